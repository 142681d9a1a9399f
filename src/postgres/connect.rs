//! How the server is reached: a DSN, libpq's variables, the password file, the usual defaults.
//!
//! Source of the names and defaults: PostgreSQL 18, chapters "Environment Variables" and "The
//! Password File" of libpq. Not here: what is asked of the server (`postgres::client`).

use std::fmt;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};
use tracing::warn;

use crate::fault::{Fault, Kind};

/// The directories that PostgreSQL's builds put their socket in.
const SOCKET_DIRECTORIES: [&str; 2] = ["/var/run/postgresql", "/tmp"];
const DEFAULT_PORT: u16 = 5432;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A backup's session is idle for hours, and a dead one must show before the end.
const KEEPALIVE_IDLE: Duration = Duration::from_mins(1);

/// A connection that cannot be asked for.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The DSN cannot be read. Its text is not repeated: it may hold a password.
    #[error("cannot read the DSN: {reason}")]
    Dsn {
        /// What is wrong with it.
        reason: String,
    },
    /// A variable has no usable value.
    #[error("{name}={value:?} cannot be used")]
    Variable {
        /// The variable.
        name: &'static str,
        /// Its value.
        value: String,
    },
    /// The server is named in a file that is not read here.
    #[error("PGSERVICE={service:?} names the server, and this release reads no service files")]
    Service {
        /// Its value.
        service: String,
    },
    /// TLS was demanded.
    #[error("sslmode={mode} was asked for, and this release does not speak TLS to PostgreSQL")]
    Tls {
        /// The mode asked for.
        mode: String,
    },
}

impl Fault for ConnectError {
    fn kind(&self) -> Kind {
        Kind::Config
    }

    fn hint(&self) -> String {
        match self {
            Self::Tls { .. } => "Connect by the unix socket of the server's own host, which a \
                                 backup needs anyway, or set sslmode=disable."
                .to_owned(),
            Self::Service { .. } => {
                "Name the server by PGHOST and PGPORT or by --dsn, or unset PGSERVICE.".to_owned()
            }
            _ => Kind::Config.hint().to_owned(),
        }
    }
}

/// Everything needed to connect. Its `Debug` and `Display` show no password.
#[derive(Clone)]
pub struct ConnectOptions {
    pub(super) config: Config,
}

impl ConnectOptions {
    /// The DSN, a URL or `key=value` words, completed by libpq's variables and defaults.
    pub fn resolve(
        dsn: Option<&str>,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConnectError> {
        let env = |name: &str| env(name).filter(|value| !value.is_empty());
        let mut config = parse_dsn(dsn)?;
        let is_mode_given = dsn.is_some_and(|dsn| dsn.contains("sslmode"));
        if !is_mode_given && let Some(mode) = env("PGSSLMODE") {
            config.ssl_mode(parse_ssl_mode(&mode)?);
        }
        if config.get_ssl_mode() == SslMode::Require {
            return Err(ConnectError::Tls {
                mode: "require".to_owned(),
            });
        }
        add_hosts(&mut config, &env)?;
        if config.get_ports().is_empty() {
            config.port(number(&env, "PGPORT")?.unwrap_or(DEFAULT_PORT));
        }
        if config.get_user().is_none()
            && let Some(user) = env("PGUSER")
        {
            config.user(user);
        }
        if config.get_dbname().is_none() {
            config.dbname(env("PGDATABASE").unwrap_or_else(|| "postgres".to_owned()));
        }
        if config.get_options().is_none()
            && let Some(options) = env("PGOPTIONS")
        {
            config.options(options);
        }
        if config.get_application_name().is_none() {
            config.application_name(env("PGAPPNAME").unwrap_or_else(|| "cellarman".to_owned()));
        }
        if config.get_connect_timeout().is_none() {
            // No time at all is no limit, to libpq.
            let seconds = number(&env, "PGCONNECT_TIMEOUT")?.filter(|seconds| *seconds > 0);
            config.connect_timeout(seconds.map_or(CONNECT_TIMEOUT, Duration::from_secs));
        }
        config.keepalives_idle(KEEPALIVE_IDLE);
        add_password(&mut config, &env);
        Ok(Self { config })
    }
}

impl fmt::Display for ConnectOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = self.config.get_ports().first().unwrap_or(&DEFAULT_PORT);
        for (index, host) in self.config.get_hosts().iter().enumerate() {
            let separator = if index > 0 { " or " } else { "" };
            match host {
                Host::Tcp(name) => write!(f, "{separator}{name}:{port}")?,
                Host::Unix(folder) => {
                    write!(f, "{separator}{}/.s.PGSQL.{port}", folder.display())?;
                }
            }
        }
        Ok(())
    }
}

impl fmt::Debug for ConnectOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnectOptions({self})")
    }
}

fn parse_dsn(dsn: Option<&str>) -> Result<Config, ConnectError> {
    let Some(dsn) = dsn else {
        return Ok(Config::new());
    };
    for mode in ["require", "verify-ca", "verify-full"] {
        if dsn.contains(&format!("sslmode={mode}")) {
            return Err(ConnectError::Tls {
                mode: mode.to_owned(),
            });
        }
    }
    dsn.parse().map_err(|error: tokio_postgres::Error| {
        let reason = std::error::Error::source(&error)
            .map_or_else(|| error.to_string(), ToString::to_string);
        ConnectError::Dsn { reason }
    })
}

fn parse_ssl_mode(mode: &str) -> Result<SslMode, ConnectError> {
    match mode {
        "disable" | "allow" => Ok(SslMode::Disable),
        "prefer" => Ok(SslMode::Prefer),
        "require" | "verify-ca" | "verify-full" => Err(ConnectError::Tls {
            mode: mode.to_owned(),
        }),
        _ => Err(ConnectError::Variable {
            name: "PGSSLMODE",
            value: mode.to_owned(),
        }),
    }
}

fn add_hosts(
    config: &mut Config,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<(), ConnectError> {
    if !config.get_hosts().is_empty() || !config.get_hostaddrs().is_empty() {
        return Ok(());
    }
    if let Some(address) = env("PGHOSTADDR") {
        let address = address.parse().map_err(|_| ConnectError::Variable {
            name: "PGHOSTADDR",
            value: address.clone(),
        })?;
        config.hostaddr(address);
    } else if let Some(hosts) = env("PGHOST") {
        for host in hosts.split(',') {
            config.host(host);
        }
    } else if let Some(service) = env("PGSERVICE") {
        // Another server of this host may answer at the usual places.
        return Err(ConnectError::Service { service });
    } else {
        for folder in SOCKET_DIRECTORIES {
            config.host_path(folder);
        }
    }
    Ok(())
}

fn number<N: std::str::FromStr>(
    env: &dyn Fn(&str) -> Option<String>,
    name: &'static str,
) -> Result<Option<N>, ConnectError> {
    let Some(value) = env(name) else {
        return Ok(None);
    };
    match value.parse() {
        Ok(number) => Ok(Some(number)),
        Err(_) => Err(ConnectError::Variable { name, value }),
    }
}

fn add_password(config: &mut Config, env: &dyn Fn(&str) -> Option<String>) {
    if config.get_password().is_some() {
        return;
    }
    if let Some(password) = env("PGPASSWORD") {
        config.password(password);
        return;
    }
    let home_file = || env("HOME").map(|home| PathBuf::from(home).join(".pgpass"));
    let Some(path) = env("PGPASSFILE").map(PathBuf::from).or_else(home_file) else {
        return;
    };
    if let Some(text) = read_password_file(&path)
        && let Some(password) = find_password(&text, config, env("USER"))
    {
        config.password(password);
    }
}

/// The file's text, unless others could read it too, as libpq demands.
fn read_password_file(path: &Path) -> Option<String> {
    let mode = fs::metadata(path).ok()?.permissions().mode();
    if mode & 0o077 != 0 {
        warn!(path = %path.display(), "password file is open to group or others, and so not used");
        return None;
    }
    fs::read_to_string(path).ok()
}

fn find_password(text: &str, config: &Config, os_user: Option<String>) -> Option<String> {
    let host = match config.get_hosts().first() {
        Some(Host::Tcp(name)) => name.clone(),
        _ => "localhost".to_owned(),
    };
    let port = config
        .get_ports()
        .first()
        .unwrap_or(&DEFAULT_PORT)
        .to_string();
    let database = config.get_dbname().unwrap_or_default().to_owned();
    let user = config.get_user().map(str::to_owned).or(os_user)?;
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(split_password_line)
        .find(|fields| {
            [&host, &port, &database, &user]
                .iter()
                .zip(fields)
                .all(|(wanted, field)| field == "*" || field == *wanted)
        })
        .map(|[_, _, _, _, password]| password)
}

/// The five fields of a line; a backslash takes the next character as it is.
fn split_password_line(line: &str) -> Option<[String; 5]> {
    let mut fields = vec![String::new()];
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        let field = fields.last_mut()?;
        match character {
            '\\' => field.extend(characters.next()),
            ':' => fields.push(String::new()),
            _ => field.push(character),
        }
    }
    fields.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(dsn: Option<&str>, env: &[(&str, &str)]) -> Result<ConnectOptions, ConnectError> {
        ConnectOptions::resolve(dsn, &|name| {
            env.iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn variables_fill_what_the_dsn_leaves_open() {
        for (dsn, env, shown, database) in [
            (
                None,
                &[][..],
                "/var/run/postgresql/.s.PGSQL.5432 or /tmp/.s.PGSQL.5432",
                "postgres",
            ),
            (
                None,
                &[("PGHOST", "/run/x"), ("PGPORT", "6000")],
                "/run/x/.s.PGSQL.6000",
                "postgres",
            ),
            (
                Some("host=db user=u"),
                &[("PGHOST", "other"), ("PGDATABASE", "app")],
                "db:5432",
                "app",
            ),
            (
                Some("postgres://u@h:7/name"),
                &[("PGDATABASE", "app")],
                "h:7",
                "name",
            ),
        ] {
            let options = resolve(dsn, env).unwrap();
            assert_eq!(options.to_string(), shown);
            assert_eq!(options.config.get_dbname(), Some(database));
        }
    }

    #[test]
    fn tls_that_is_demanded_is_refused() {
        for (dsn, mode) in [
            (Some("host=h sslmode=require"), None),
            (Some("postgres://h/d?sslmode=verify-full"), None),
            (None, Some("verify-ca")),
        ] {
            let env: Vec<_> = mode.map(|mode| ("PGSSLMODE", mode)).into_iter().collect();
            let error = resolve(dsn, &env).unwrap_err();
            assert!(matches!(error, ConnectError::Tls { .. }), "{error}");
        }
        assert!(resolve(Some("host=h"), &[("PGSSLMODE", "prefer")]).is_ok());
    }

    #[test]
    fn a_server_that_only_a_service_file_names_is_not_guessed() {
        for (dsn, env, is_known) in [
            (None, &[("PGSERVICE", "main")][..], false),
            (Some("user=u"), &[("PGSERVICE", "main")], false),
            (Some("host=h"), &[("PGSERVICE", "main")], true),
            (None, &[("PGSERVICE", "main"), ("PGHOST", "h")], true),
        ] {
            let resolved = resolve(dsn, env);
            assert_eq!(resolved.is_ok(), is_known, "{dsn:?} {env:?}");
        }
    }

    #[test]
    fn the_password_file_answers_by_its_first_fitting_line() {
        let text =
            "# comment\nh:5432:d:other:no\nlocal\\:host:*:*:u:a\\:b\\\\\n*:*:*:u:c:d\n*:*:*:u:last";
        for (dsn, password) in [
            ("host=local:host user=u", Some("a:b\\")),
            ("host=/run user=u", Some("last")),
            ("host=h user=nobody", None),
        ] {
            let options = resolve(Some(dsn), &[]).unwrap();
            assert_eq!(
                find_password(text, &options.config, None).as_deref(),
                password,
                "{dsn}"
            );
        }
    }
}
