//! The settings of a collector: one struct for the TOML file and for programs that embed it.

mod core_nats;

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use serde::Deserialize;

use crate::error::Error;

pub use core_nats::{CoreConfig, CoreOverflow, Mode};

/// All settings. `Config::default()` is valid: a broker on this machine, stream `EVENTS`, `catchment.db` in the current
/// directory.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where events come from.
    pub broker: BrokerConfig,
    /// Where they go.
    pub database: DatabaseConfig,
    /// How many share a transaction.
    pub batch: BatchConfig,
}

/// The broker and the stream.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BrokerConfig {
    /// Addresses of the servers of one cluster, tried in turn. Default `["nats://127.0.0.1:4222"]`.
    pub servers: Vec<String>,
    /// User name, with `password`.
    pub user: Option<String>,
    /// Password of `user`. Shown in no log.
    pub password: Option<String>,
    /// Token, instead of user and password. Shown in no log.
    pub token: Option<String>,
    /// A credentials file (JWT and seed), instead of the others.
    pub creds: Option<PathBuf>,
    /// Where the broker keeps events until the database has them. Default `jetstream`.
    pub mode: Mode,
    /// The stream to collect. Default `EVENTS`. None in mode `core`.
    pub stream: String,
    /// What to collect of it, and the stream's subjects if it has to be made; what to subscribe to in mode `core`. Default
    /// `["events.>"]`.
    pub subjects: Vec<String>,
    /// Make the stream if it does not exist. Default true.
    pub create_stream: bool,
    /// The longest that connecting, or one answer of the server, may take. Default 5 s.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// A connection on which nothing was heard for this long, our own questions included, is given up and made anew.
    /// Default 5 s.
    #[serde(with = "humantime_serde")]
    pub silence: Duration,
    /// The longest pause between two attempts to connect again; the first comes after 50 ms and each pause is twice the
    /// one before. There is no last attempt. Default 2 s.
    #[serde(with = "humantime_serde")]
    pub retry: Duration,
    /// How far ahead of the database the broker may send.
    pub ahead: AheadConfig,
    /// How core NATS is collected, in mode `core`.
    pub core: CoreConfig,
    /// The name under which the server lists the connection. Default `catchment`.
    pub connection_name: String,
}

/// How far ahead of the database the broker may send: the bound of what waits in memory, beside the batches themselves.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AheadConfig {
    /// Events asked for in one request. Default 5,000.
    pub events: usize,
    /// Bytes asked for in one request. Default 4 MiB. A larger event is fetched by itself.
    pub bytes: ByteSize,
    /// Requests outstanding at a time, 2 to 16. Default 3.
    pub requests: usize,
}

/// The database.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DatabaseConfig {
    /// The file. Default `catchment.db`. It is created if absent; the directory must exist.
    pub path: PathBuf,
    /// When a commit counts as done. Default `full`.
    pub synchronous: Synchronous,
    /// Writer threads. They prepare batches side by side and commit them in turn. Default 1: measured fastest on two
    /// cores, for SQLite commits one transaction at a time.
    pub writers: usize,
    /// How long one try waits for another process that holds the database's write lock. A batch is tried again for as
    /// long as it takes. Default 1 s.
    #[serde(with = "humantime_serde")]
    pub busy_timeout: Duration,
}

/// SQLite's `PRAGMA synchronous` in WAL mode, see <https://sqlite.org/pragma.html#pragma_synchronous>.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Synchronous {
    /// Every commit is on the disk when it returns.
    #[default]
    Full,
    /// The last commits may be lost when the power goes, the database never corrupts. They are still in the stream, but
    /// the ledger is lost with them, so they are read again.
    Normal,
}

/// How many events one transaction commits. Batches are never waited for unless `linger` says so: they grow by
/// themselves while the database is busy.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BatchConfig {
    /// At most this many events. Default 5,000.
    pub max_events: usize,
    /// At most this many bytes, unless a single event is larger. Default 1 MiB.
    pub max_bytes: ByteSize,
    /// Wait this long for more before committing a batch that is not full. Default 0.
    #[serde(with = "humantime_serde")]
    pub linger: Duration,
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self {
            servers: vec!["nats://127.0.0.1:4222".into()],
            user: None,
            password: None,
            token: None,
            creds: None,
            mode: Mode::default(),
            stream: "EVENTS".into(),
            subjects: vec!["events.>".into()],
            create_stream: true,
            timeout: Duration::from_secs(5),
            silence: Duration::from_secs(5),
            retry: Duration::from_secs(2),
            ahead: AheadConfig::default(),
            core: CoreConfig::default(),
            connection_name: "catchment".into(),
        }
    }
}

impl Default for AheadConfig {
    fn default() -> Self {
        Self { events: 5_000, bytes: ByteSize::mib(4), requests: 3 }
    }
}

impl Default for DatabaseConfig {
    fn default() -> Self {
        Self {
            path: "catchment.db".into(),
            synchronous: Synchronous::Full,
            writers: 1,
            busy_timeout: Duration::from_secs(1),
        }
    }
}

impl Default for BatchConfig {
    fn default() -> Self {
        Self { max_events: 5_000, max_bytes: ByteSize::mib(1), linger: Duration::ZERO }
    }
}

/// Shows whether there are secrets, never the secrets.
impl std::fmt::Debug for BrokerConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BrokerConfig")
            .field("servers", &self.shown_servers())
            .field("user", &self.user)
            .field("password", &self.password.as_ref().map(|_| "***"))
            .field("token", &self.token.as_ref().map(|_| "***"))
            .field("creds", &self.creds)
            .field("mode", &self.mode)
            .field("stream", &self.stream)
            .field("subjects", &self.subjects)
            .finish_non_exhaustive()
    }
}

impl BrokerConfig {
    /// The servers for a log line or an error: without what stands before an `@`.
    #[must_use]
    pub fn shown_servers(&self) -> String {
        self.servers.iter().map(|server| without_secrets(server)).collect::<Vec<_>>().join(", ")
    }
}

/// A server's address without user, password or token.
pub(crate) fn without_secrets(server: &str) -> String {
    match (server.split_once("://"), server.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        (None, Some((_, host))) => host.to_owned(),
        (_, None) => server.to_owned(),
    }
}

impl Config {
    /// Checks every setting by itself, without touching the broker or the database.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] with the first setting that cannot be used.
    pub fn validate(&self) -> Result<(), Error> {
        self.broker.validate()?;
        self.database.validate()?;
        self.batch.validate()
    }
}

impl BrokerConfig {
    /// Checks every setting by itself.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] with the first setting that cannot be used.
    pub fn validate(&self) -> Result<(), Error> {
        if self.servers.is_empty() {
            return Err(Error::config("broker.servers", "is empty; give at least one, as nats://127.0.0.1:4222"));
        }
        let ways_in = [self.user.is_some() || self.password.is_some(), self.token.is_some(), self.creds.is_some()];
        if ways_in.iter().filter(|given| **given).count() > 1 {
            return Err(Error::config("broker", "give only one of user and password, token, or creds"));
        }
        if self.user.is_some() != self.password.is_some() {
            return Err(Error::config("broker.user", "user and password go together; give both"));
        }
        validate_stream_name(&self.stream)?;
        if self.subjects.is_empty() {
            return Err(Error::config("broker.subjects", "is empty; give at least one, as events.>"));
        }
        self.subjects.iter().try_for_each(|subject| validate_filter(subject))?;
        if self.mode == Mode::Core {
            self.core.validate(&self.subjects)?;
        }
        if self.ahead.events == 0 {
            return Err(Error::config("broker.ahead.events", "is 0; nothing would ever be asked for"));
        }
        if self.ahead.bytes.as_u64() < 1024 {
            return Err(Error::config("broker.ahead.bytes", "is below 1KiB; the default is 4MiB"));
        }
        if !(2..=16).contains(&self.ahead.requests) {
            let reason = format!("is {}; from 2 to 16 requests can be outstanding", self.ahead.requests);
            return Err(Error::config("broker.ahead.requests", reason));
        }
        for (key, value) in [("broker.timeout", self.timeout), ("broker.silence", self.silence)] {
            if value < Duration::from_millis(50) {
                return Err(Error::config(key, format!("is {value:?}; the least is 50ms")));
            }
        }
        if self.retry < Duration::from_millis(10) {
            return Err(Error::config("broker.retry", format!("is {:?}; the least is 10ms", self.retry)));
        }
        Ok(())
    }
}

impl DatabaseConfig {
    fn validate(&self) -> Result<(), Error> {
        if !(1..=64).contains(&self.writers) {
            return Err(Error::config("database.writers", format!("is {}; from 1 to 64", self.writers)));
        }
        if self.path.as_os_str().is_empty() {
            return Err(Error::config("database.path", "is empty; give a file, as catchment.db"));
        }
        Ok(())
    }
}

impl BatchConfig {
    fn validate(&self) -> Result<(), Error> {
        if self.max_events == 0 {
            return Err(Error::config("batch.max_events", "is 0; a batch has at least one event"));
        }
        if !(1..=1 << 30).contains(&self.max_bytes.as_u64()) {
            return Err(Error::config("batch.max_bytes", format!("is {}; from 1 B to 1 GiB", self.max_bytes)));
        }
        Ok(())
    }
}

/// The characters that the server refuses in a stream's name, see <https://docs.nats.io/nats-concepts/jetstream/streams>.
fn validate_stream_name(name: &str) -> Result<(), Error> {
    if name.is_empty() || name.chars().any(|c| c.is_whitespace() || c.is_control() || ".*>/\\".contains(c)) {
        let reason = format!("{name:?} cannot be a stream's name: no white space, dots, *, > or slashes");
        return Err(Error::config("broker.stream", reason));
    }
    Ok(())
}

fn validate_filter(subject: &str) -> Result<(), Error> {
    let tokens: Vec<&str> = subject.split('.').collect();
    let last = tokens.len() - 1;
    let usable = |(at, token): (usize, &&str)| {
        !token.is_empty()
            && (*token != ">" || at == last)
            && !token.chars().any(|c| c.is_whitespace() || c.is_control())
    };
    if tokens.iter().enumerate().all(usable) {
        return Ok(());
    }
    Err(Error::config("broker.subjects", format!("{subject:?} is no subject; one looks like events.> or chat.*.log")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid() {
        assert!(Config::default().validate().is_ok());
    }

    #[test]
    fn no_secret_is_shown() {
        let broker = BrokerConfig {
            servers: vec!["nats://me:hunter2@a:1".into(), "tok3n@b".into()],
            password: Some("hunter3".into()),
            token: Some("t0ken".into()),
            ..BrokerConfig::default()
        };
        let shown = format!("{broker:?}");
        assert!(!["hunter", "tok3n", "t0ken"].iter().any(|secret| shown.contains(secret)), "{shown}");
        assert_eq!(broker.shown_servers(), "nats://a:1, b");
    }

    #[test]
    fn a_refused_setting_is_named() {
        let refused = |change: fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            config.validate().expect_err("must be refused").to_string()
        };
        assert!(refused(|c| c.broker.stream = "A B".into()).starts_with("configuration: broker.stream:"));
        assert!(refused(|c| c.broker.subjects = vec!["a.>.b".into()]).contains("\"a.>.b\""));
        assert!(refused(|c| c.broker.user = Some("me".into())).contains("go together"));
        assert!(refused(|c| c.batch.max_events = 0).contains("batch.max_events"));
        assert!(refused(|c| c.database.writers = 0).contains("database.writers"));
    }
}
