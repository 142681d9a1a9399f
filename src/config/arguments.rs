//! The options in Barman's words that manifests carry in `additionalCommandArgs`.
//!
//! The few that say something to us are taken; of the others the user is told.

/// What those options say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Extra {
    /// `--read-timeout`, in seconds.
    pub(super) read_timeout_seconds: Option<u64>,
    /// `--profile` and its older names.
    pub(super) profile: Option<String>,
    /// `--compression-level`.
    pub(super) compression_level: Option<i32>,
    /// `--sse-kms-key-id`.
    pub(super) encryption_key_id: Option<String>,
    /// `--encryption-scope`, of Azure.
    pub(super) encryption_scope: Option<String>,
    /// `--azure-credential` and its other names: `default` or `managed-identity`.
    pub(super) azure_credential: Option<String>,
    /// `--kms-key-name`.
    pub(super) kms_key_name: Option<String>,
    /// Options that are not taken, and why.
    pub(super) refused: Vec<String>,
}

/// Reads the items of one field, `--name=value` or `--name` and `value` as two.
pub(super) fn read(items: &[String]) -> Extra {
    let mut extra = Extra::default();
    let mut items = items.iter().map(|item| item.trim()).peekable();
    while let Some(item) = items.next() {
        let (name, attached) = item
            .split_once('=')
            .map_or((item, None), |(name, value)| (name, Some(value)));
        if matches!(
            name,
            "-v" | "--verbose" | "-q" | "--quiet" | "-t" | "--test" | ""
        ) {
            continue;
        }
        let follows = attached.is_none() && items.peek().is_some_and(|next| !next.starts_with('-'));
        let value = if follows { items.next() } else { attached };
        if !extra.take(name, value.unwrap_or_default()) {
            extra.refused.push(name.to_owned());
        }
    }
    extra
}

impl Extra {
    /// Takes one option. False if it is unknown or its value is none.
    fn take(&mut self, name: &str, value: &str) -> bool {
        let text = Some(value.to_owned()).filter(|text| !text.is_empty());
        let is_given = text.is_some();
        match name {
            "--read-timeout" => {
                self.read_timeout_seconds = value.parse().ok().filter(|seconds| *seconds > 0);
                self.read_timeout_seconds.is_some()
            }
            "--compression-level" => {
                self.compression_level = value.parse().ok();
                self.compression_level.is_some()
            }
            "-P" | "--profile" | "--aws-profile" => {
                self.profile = text;
                is_given
            }
            "--sse-kms-key-id" => {
                self.encryption_key_id = text;
                is_given
            }
            "--encryption-scope" => {
                self.encryption_scope = text;
                is_given
            }
            "--azure-credential" | "--credential" => {
                let is_known = matches!(value, "default" | "managed-identity");
                self.azure_credential = text.filter(|_| is_known);
                is_known
            }
            "--kms-key-name" => {
                self.kms_key_name = text;
                is_given
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_in_both_shapes() {
        let items = [
            "--read-timeout=60",
            "--profile",
            "blue",
            "-v",
            "--sse-kms-key-id=arn:aws:kms:a=b",
            "--compression-level",
            "9",
            "--max-bandwidth",
            "10MB",
            "--no-partial",
            "--read-timeout=soon",
        ];
        let extra = read(&items.map(str::to_owned));
        assert_eq!(extra.profile.as_deref(), Some("blue"));
        assert_eq!(extra.encryption_key_id.as_deref(), Some("arn:aws:kms:a=b"));
        assert_eq!(extra.compression_level, Some(9));
        assert_eq!(
            extra.refused,
            ["--max-bandwidth", "--no-partial", "--read-timeout"]
        );
        let alone = read(&["--read-timeout=60".to_owned()]);
        assert_eq!(
            (alone.read_timeout_seconds, alone.refused.len()),
            (Some(60), 0)
        );
    }
}
