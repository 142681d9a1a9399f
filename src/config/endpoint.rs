//! Where services answer: their URLs, as options, variables and manifests name them.

use url::Url;

/// The URL of a service.
pub(super) fn parse(text: &str) -> Result<Url, String> {
    let is_web = |url: &Url| matches!(url.scheme(), "http" | "https") && url.has_host();
    let url = Url::parse(text)
        .ok()
        .filter(is_web)
        .ok_or("is no URL that begins with http:// or https://")?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not hold credentials: use the AWS_* variables or a Secret".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("must not hold ? or #".to_owned());
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_web_addresses() {
        assert!(parse("http://127.0.0.1:9000").is_ok());
        assert!(parse("https://s3.example.org/base").is_ok());
        for text in [
            "minio:9000",
            "127.0.0.1:9000",
            "",
            "ftp://a",
            "http://u:p@a",
            "http://a?b",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
