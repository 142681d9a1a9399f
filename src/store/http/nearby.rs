//! Endpoints that are asked without a proxy: those that give this host, and no other, credentials.
//!
//! A proxy has metadata services of its own at the same addresses, if any: what it answers is
//! another machine's. Not here: `NO_PROXY`, which goes for all other endpoints.

use std::net::IpAddr;

use http::Uri;

/// The names under which metadata services and agents of this host answer.
const NAMES: [&str; 3] = ["localhost", "metadata.google.internal", "metadata"];

/// The network of Amazon's metadata service and agents, by IPv6.
const AMAZON: [u16; 2] = [0xFD00, 0x0EC2];

/// Whether only this host can ask there: itself, or an address of its link.
pub(in crate::store) fn is_nearby(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match bare.parse() {
        Ok(IpAddr::V4(address)) => address.is_loopback() || address.is_link_local(),
        Ok(IpAddr::V6(address)) => {
            address.is_loopback()
                || address.is_unicast_link_local()
                || address.segments().starts_with(&AMAZON)
        }
        Err(_) => NAMES.iter().any(|name| host.eq_ignore_ascii_case(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_services_and_agents_are_nearby_and_nothing_else() {
        for (url, expected) in [
            ("http://169.254.169.254/latest/api/token", true),
            ("http://169.254.170.2/v2/credentials/x", true),
            ("http://169.254.170.23/v1/credentials", true),
            ("http://[fd00:ec2::254]/latest", true),
            ("http://[fd00:ec2::23]/v1/credentials", true),
            ("http://metadata.google.internal/computeMetadata/v1", true),
            ("http://Metadata:80/", true),
            ("http://127.0.0.1:41293/msi/token", true),
            ("http://localhost:8080/", true),
            ("http://[::1]:8080/", true),
            ("http://10.0.0.1/", false),
            ("http://[fd00:ec3::1]/", false),
            ("http://metadata.example.org/", false),
            ("/path", false),
        ] {
            assert_eq!(is_nearby(&url.parse().unwrap()), expected, "{url}");
        }
    }
}
