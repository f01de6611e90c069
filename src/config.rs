//! The settings of a collector: one struct for the TOML file and for programs that embed it.

mod core_nats;

use std::path::{Path, PathBuf};
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
    /// User name, with `password` or `password_file`. Instead of it and of all the others below, an address may say who we
    /// are: `nats://user:password@host` or `nats://token@host`, percent-encoded where need be.
    pub user: Option<String>,
    /// Password of `user`. Shown in no log.
    pub password: Option<String>,
    /// A file that holds the password of `user`; white space around it does not count. This and the other files are read
    /// anew for each connection, so what is in them may change at any time.
    pub password_file: Option<PathBuf>,
    /// Token, instead of user and password. Shown in no log.
    pub token: Option<String>,
    /// A file that holds the token; white space around it does not count.
    pub token_file: Option<PathBuf>,
    /// A credentials file (JWT and seed), instead of the others.
    pub creds: Option<PathBuf>,
    /// A file that holds an nkey's seed, instead of the others.
    pub nkey: Option<PathBuf>,
    /// The user's JWT, or a file that holds it; `nkey` is its seed.
    pub jwt: Option<String>,
    /// Certificates.
    pub tls: TlsConfig,
    /// The `JetStream` domain to use: requests go to `$JS.<domain>.API`. Default: none.
    pub domain: Option<String>,
    /// Where `JetStream` requests go, instead of a domain: a prefix under which another account's `$JS.API` is imported.
    /// Default `$JS.API`.
    pub api_prefix: Option<String>,
    /// What the subjects begin with on which answers are received, for accounts that may not use the usual ones. Default
    /// `_INBOX`.
    pub inbox_prefix: Option<String>,
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

/// TLS: whom to trust, and who we are. A server that asks for TLS gets it in any case.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsConfig {
    /// Refuse a server without TLS. So do an address that begins with `tls://`, `ca` and `cert`. Default false.
    pub required: bool,
    /// A file with the certificates of the authorities to trust, instead of those that this machine trusts.
    pub ca: Option<PathBuf>,
    /// A file with our own certificate, for servers that ask for one, and those between it and an authority.
    pub cert: Option<PathBuf>,
    /// A file with the private key of `cert`.
    pub key: Option<PathBuf>,
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
            password_file: None,
            token: None,
            token_file: None,
            creds: None,
            nkey: None,
            jwt: None,
            tls: TlsConfig::default(),
            domain: None,
            api_prefix: None,
            inbox_prefix: None,
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
            .field("password_file", &self.password_file)
            .field("token", &self.token.as_ref().map(|_| "***"))
            .field("token_file", &self.token_file)
            // What was given where a file was meant.
            .field("creds", &self.creds.as_ref().map(|path| hidden_unless(path, !is_creds(path))))
            .field("nkey", &self.nkey.as_ref().map(|path| hidden_unless(path, !is_seed(path))))
            .field("jwt", &self.jwt.as_ref().map(|jwt| hidden_unless(Path::new(jwt), !is_jwt(jwt))))
            .field("tls", &self.tls)
            .field("api_prefix", &self.api_prefix())
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

    /// What the subjects of `JetStream` requests begin with: `$JS.API` unless `domain` or `api_prefix` say otherwise.
    #[must_use]
    pub fn api_prefix(&self) -> String {
        match (&self.api_prefix, &self.domain) {
            (Some(prefix), _) => prefix.clone(),
            (None, Some(domain)) => format!("$JS.{domain}.API"),
            (None, None) => "$JS.API".into(),
        }
    }

    /// The same, for a server that asks nobody who they are, has no TLS, and has `JetStream` itself: one of our own.
    #[must_use]
    pub fn on_open_server(self, url: &str) -> Self {
        Self {
            servers: vec![url.to_owned()],
            user: None,
            password: None,
            password_file: None,
            token: None,
            token_file: None,
            creds: None,
            nkey: None,
            jwt: None,
            tls: TlsConfig::default(),
            domain: None,
            api_prefix: None,
            inbox_prefix: None,
            ..self
        }
    }
}

/// Whether this is a JWT and not the name of a file: <https://datatracker.ietf.org/doc/html/rfc7519>.
pub(crate) fn is_jwt(text: &str) -> bool {
    text.starts_with("eyJ") && text.split('.').count() == 3 && !text.contains(['/', '\\'])
}

/// Whether this is an nkey's seed and not the name of a file.
fn is_seed(path: &Path) -> bool {
    let text = path.to_string_lossy();
    text.len() == 58 && text.starts_with('S') && text.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit())
}

/// Whether these are credentials and not the name of a file.
fn is_creds(path: &Path) -> bool {
    path.to_string_lossy().contains("-----BEGIN")
}

fn hidden_unless(path: &Path, shown: bool) -> String {
    if shown { path.display().to_string() } else { "***".into() }
}

/// A server's address without user, password or token; nor with what stands in a port's place and is none, for that may be a
/// password whose host was forgotten.
#[must_use]
pub fn without_secrets(server: &str) -> String {
    let shown = match (server.split_once("://"), server.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        (None, Some((_, host))) => host.to_owned(),
        (_, None) => server.to_owned(),
    };
    let is_port = |port: &str| port.starts_with("//") || port.chars().all(|c| c.is_ascii_digit() || c == '/');
    match shown.rsplit_once(':') {
        Some((host, port)) if !shown.contains('[') && !is_port(port) => format!("{host}:***"),
        _ => shown,
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
        self.validate_way_in()?;
        self.validate_tls()?;
        self.validate_prefixes()?;
        validate_stream_name(&self.stream)?;
        if self.subjects.is_empty() {
            return Err(Error::config("broker.subjects", "is empty; give at least one, as events.>"));
        }
        self.subjects.iter().try_for_each(|subject| validate_filter(subject))?;
        if self.mode == Mode::Core {
            self.core.validate(&self.subjects)?;
        }
        if !(1..=MOST_EVENTS).contains(&self.ahead.events) {
            let reason = format!("is {}; from 1 to {MOST_EVENTS}", self.ahead.events);
            return Err(Error::config("broker.ahead.events", reason));
        }
        if !(1024..=1 << 30).contains(&self.ahead.bytes.as_u64()) {
            return Err(Error::config("broker.ahead.bytes", format!("is {}; from 1 KiB to 1 GiB", self.ahead.bytes)));
        }
        if !(2..=16).contains(&self.ahead.requests) {
            let reason = format!("is {}; from 2 to 16 requests can be outstanding", self.ahead.requests);
            return Err(Error::config("broker.ahead.requests", reason));
        }
        for (key, value) in [("broker.timeout", self.timeout), ("broker.silence", self.silence)] {
            if value < Duration::from_millis(50) {
                return Err(Error::config(key, format!("is {value:?}; the least is 50ms")));
            }
            validate_longest(key, value)?;
        }
        validate_longest("broker.retry", self.retry)?;
        if self.retry < Duration::from_millis(10) {
            return Err(Error::config("broker.retry", format!("is {:?}; the least is 10ms", self.retry)));
        }
        Ok(())
    }

    fn validate_way_in(&self) -> Result<(), Error> {
        let (password, token) = (self.password.is_some(), self.token.is_some());
        let (password_file, token_file) = (self.password_file.is_some(), self.token_file.is_some());
        let ways_in = [
            self.user.is_some() || password || password_file,
            token || token_file,
            self.creds.is_some(),
            self.nkey.is_some() || self.jwt.is_some(),
            self.servers.iter().any(|server| server.contains('@')),
        ];
        let refused = |key, reason| Err(Error::config(key, reason));
        if ways_in.iter().filter(|given| **given).count() > 1 {
            let ways = "user and password, token, creds, nkey, or a user in the server's address";
            return Err(Error::config("broker", format!("give only one of {ways}")));
        }
        if password && password_file {
            return refused("broker.password_file", "stands beside a password; give only one of them");
        }
        if self.user.is_some() != (password || password_file) {
            return refused("broker.user", "user and password go together; give both");
        }
        if token && token_file {
            return refused("broker.token_file", "stands beside a token; give only one of them");
        }
        if self.jwt.is_some() && self.nkey.is_none() {
            return refused(
                "broker.jwt",
                "needs broker.nkey, the file with its seed; a file with both is broker.creds",
            );
        }
        if self.nkey.as_deref().is_some_and(is_seed) {
            return refused("broker.nkey", "is a seed; write it to a file that only you can read, and name that");
        }
        if self.creds.as_deref().is_some_and(is_creds) {
            return refused("broker.creds", "is no file's name; write the credentials to a file, and name that");
        }
        Ok(())
    }

    fn validate_tls(&self) -> Result<(), Error> {
        match (&self.tls.cert, &self.tls.key) {
            (Some(_), None) => Err(Error::config("broker.tls.cert", "needs broker.tls.key, its private key")),
            (None, Some(_)) => Err(Error::config("broker.tls.key", "needs broker.tls.cert, its certificate")),
            _ => Ok(()),
        }
    }

    fn validate_prefixes(&self) -> Result<(), Error> {
        if self.domain.is_some() && self.api_prefix.is_some() {
            let reason = "stands beside broker.api_prefix, which says the same in full; give only one of them";
            return Err(Error::config("broker.domain", reason));
        }
        let is_name = |name: &str| is_prefix(name) && !name.contains('.');
        if let Some(domain) = self.domain.as_deref().filter(|domain| !is_name(domain)) {
            let reason = format!("{domain:?} is no domain's name: no dots, white space, * or >");
            return Err(Error::config("broker.domain", reason));
        }
        for (key, prefix) in [("api_prefix", &self.api_prefix), ("inbox_prefix", &self.inbox_prefix)] {
            if let Some(prefix) = prefix.as_deref().filter(|prefix| !is_prefix(prefix)) {
                let reason =
                    format!("{prefix:?} begins no subject; a prefix looks like js.hub, without a dot behind it");
                return Err(Error::config(format!("broker.{key}"), reason));
            }
        }
        Ok(())
    }
}

impl DatabaseConfig {
    /// Checks every setting by itself.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] with the first setting that cannot be used.
    pub fn validate(&self) -> Result<(), Error> {
        if !(1..=64).contains(&self.writers) {
            return Err(Error::config("database.writers", format!("is {}; from 1 to 64", self.writers)));
        }
        validate_longest("database.busy_timeout", self.busy_timeout)?;
        if self.path.as_os_str().is_empty() {
            return Err(Error::config("database.path", "is empty; give a file, as catchment.db"));
        }
        Ok(())
    }
}

impl BatchConfig {
    /// Checks every setting by itself.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] with the first setting that cannot be used.
    pub fn validate(&self) -> Result<(), Error> {
        if !(1..=MOST_EVENTS).contains(&self.max_events) {
            let reason = format!("is {}; from 1 to {MOST_EVENTS}", self.max_events);
            return Err(Error::config("batch.max_events", reason));
        }
        if self.linger > LONGEST_LINGER {
            let reason = format!("is {:?}; the most is {LONGEST_LINGER:?}", self.linger);
            return Err(Error::config("batch.linger", reason));
        }
        if !(1..=1 << 30).contains(&self.max_bytes.as_u64()) {
            return Err(Error::config("batch.max_bytes", format!("is {}; from 1 B to 1 GiB", self.max_bytes)));
        }
        Ok(())
    }
}

/// The most events that may be asked for, or committed, at a time.
const MOST_EVENTS: usize = 1_000_000;

/// The longest that anything may be waited for.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// The longest that a batch may wait for more events: far below the time after which a stream delivers again what was not
/// acknowledged.
const LONGEST_LINGER: Duration = Duration::from_secs(60);

fn validate_longest(key: &str, value: Duration) -> Result<(), Error> {
    if value > LONGEST {
        return Err(Error::config(key, format!("is {value:?}; the most is a day")));
    }
    Ok(())
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

/// Whether subjects can begin with it.
fn is_prefix(text: &str) -> bool {
    let bad = |c: char| c.is_whitespace() || c.is_control() || c == '*' || c == '>';
    text.split('.').all(|token| !token.is_empty() && !token.contains(bad))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid() {
        assert!(Config::default().validate().is_ok());
    }

    #[test]
    fn a_password_whose_host_was_forgotten_is_not_shown() {
        for (server, shown) in [
            ("nats://me:hunter2", "nats://me:***"),
            ("nats://me:hunter2@a:4222", "nats://a:4222"),
            ("nats://a", "nats://a"),
            ("nats://[fe80::a]", "nats://[fe80::a]"),
        ] {
            assert_eq!(without_secrets(server), shown);
        }
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
        // Given by mistake where a file was meant.
        let seed = format!("SU{}", "A".repeat(56));
        let broker = BrokerConfig {
            nkey: Some(seed.clone().into()),
            jwt: Some("eyJhbGciOiJlZDI1NTE5.eyJzdWIi.c2ln".into()),
            creds: Some(format!("-----BEGIN USER NKEY SEED-----\n{seed}").into()),
            ..BrokerConfig::default()
        };
        let shown = format!("{broker:?} {}", broker.validate().expect_err("must be refused"));
        assert!(![&seed, "eyJ"].iter().any(|secret| shown.contains(secret)), "{shown}");
        let broker = BrokerConfig { nkey: Some(seed.clone().into()), ..BrokerConfig::default() };
        let refusal = broker.validate().expect_err("must be refused").to_string();
        assert!(refusal.contains("broker.nkey: is a seed") && !refusal.contains(&seed), "{refusal}");
    }

    #[test]
    fn what_stands_before_the_at_sign_is_not_shown() {
        let servers = ["nats://me:hunter2@a:1", "tok3n@b", "tls://me:p@ss@c"].map(str::to_owned).into();
        let broker = BrokerConfig { servers, ..BrokerConfig::default() };
        assert_eq!(broker.shown_servers(), "nats://a:1, b, tls://c");
    }

    #[test]
    fn requests_go_where_domain_or_prefix_say() {
        let mut broker = BrokerConfig::default();
        assert_eq!(broker.api_prefix(), "$JS.API");
        broker.domain = Some("hub".into());
        assert_eq!(broker.api_prefix(), "$JS.hub.API");
        (broker.domain, broker.api_prefix) = (None, Some("js.hub".into()));
        assert_eq!(broker.api_prefix(), "js.hub");
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
        assert!(refused(|c| c.broker.password_file = Some("pw".into())).contains("go together"));
        let both = |c: &mut Config| (c.broker.token, c.broker.token_file) = (Some("t".into()), Some("t".into()));
        assert!(refused(both).starts_with("configuration: broker.token_file:"));
        let two = |c: &mut Config| (c.broker.nkey, c.broker.creds) = (Some("n".into()), Some("c".into()));
        assert!(refused(two).contains("only one"));
        let in_url = |c: &mut Config| (c.broker.servers, c.broker.token) = (vec!["t@a".into()], Some("t".into()));
        assert!(refused(in_url).contains("only one"));
        assert!(refused(|c| c.broker.jwt = Some("j".into())).contains("needs broker.nkey"));
        assert!(refused(|c| c.broker.tls.cert = Some("c".into())).contains("needs broker.tls.key"));
        assert!(refused(|c| c.broker.tls.key = Some("k".into())).contains("needs broker.tls.cert"));
        assert!(refused(|c| c.broker.domain = Some("a.b".into())).contains("\"a.b\""));
        assert!(refused(|c| c.broker.api_prefix = Some("a.".into())).contains("\"a.\""));
        assert!(refused(|c| c.broker.inbox_prefix = Some("a.*".into())).contains("broker.inbox_prefix"));
        let two = |c: &mut Config| (c.broker.domain, c.broker.api_prefix) = (Some("a".into()), Some("b".into()));
        assert!(refused(two).contains("only one"));
        assert!(refused(|c| c.batch.max_events = 0).contains("batch.max_events"));
        assert!(refused(|c| c.database.writers = 0).contains("database.writers"));
    }
}
