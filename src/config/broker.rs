//! The broker, the stream, and who we are to it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use serde::Deserialize;

use super::core_nats::{CoreConfig, Mode};
use super::secrets::{hidden_unless, is_contents, is_jwt, is_seed, without_secrets};
use super::{MOST_EVENTS, validate_longest};
use crate::error::Error;
use crate::subject::{Filter, is_prefix};

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
    /// How long a collector's start waits for a broker that is not there yet, or does not answer, and tries again meanwhile.
    /// Default 0: it does not wait. A broker that answers and refuses is never waited for.
    #[serde(with = "humantime_serde")]
    pub wait: Duration,
    /// A connection on which nothing was heard for this long, our own questions included, is given up and made anew.
    /// Default 5 s.
    #[serde(with = "humantime_serde")]
    pub silence: Duration,
    /// The longest pause between two attempts to connect again; the first comes after 50 ms and each pause is twice the
    /// one before. There is no last attempt. Default 2 s.
    #[serde(with = "humantime_serde")]
    pub retry: Duration,
    /// How far ahead of the database the broker may send.
    #[serde(alias = "ahead")]
    pub prefetch: PrefetchConfig,
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
pub struct PrefetchConfig {
    /// Events asked for in one request. Default 5,000.
    pub events: usize,
    /// Bytes asked for in one request. Default 4 MiB. A larger event is fetched by itself.
    pub bytes: ByteSize,
    /// Requests outstanding at a time, 2 to 16. Default 3.
    pub requests: usize,
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
            wait: Duration::ZERO,
            retry: Duration::from_secs(2),
            prefetch: PrefetchConfig::default(),
            core: CoreConfig::default(),
            connection_name: "catchment".into(),
        }
    }
}

impl Default for PrefetchConfig {
    fn default() -> Self {
        Self { events: 5_000, bytes: ByteSize::mib(4), requests: 3 }
    }
}

/// Shows whether there are secrets, never the secrets.
impl std::fmt::Debug for BrokerConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BrokerConfig")
            .field("servers", &self.shown_servers())
            .field("user", &self.user)
            .field("password", &self.password.as_ref().map(|_| "***"))
            .field("password_file", &self.password_file.as_ref().map(|path| hidden_unless(path, !is_contents(path))))
            .field("token", &self.token.as_ref().map(|_| "***"))
            .field("token_file", &self.token_file.as_ref().map(|path| hidden_unless(path, !is_contents(path))))
            // What was given where a file was meant.
            .field("creds", &self.creds.as_ref().map(|path| hidden_unless(path, !is_contents(path))))
            .field("nkey", &self.nkey.as_ref().map(|path| hidden_unless(path, !is_contents(path))))
            .field("jwt", &self.jwt.as_ref().map(|jwt| hidden_unless(Path::new(jwt), !is_contents(Path::new(jwt)))))
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

    /// How long after an event was sent for the first time it is usually sent again, at most: a connection is given up after
    /// `silence`, and made anew with pauses up to `retry`.
    pub(crate) fn repeats_within(&self) -> Duration {
        self.silence + self.timeout + self.retry
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
        let filters = self
            .subjects
            .iter()
            .map(|subject| subject.parse().map_err(|e: String| Error::config("broker.subjects", e)));
        let filters = filters.collect::<Result<Vec<Filter>, Error>>()?;
        if self.mode == Mode::Core {
            self.core.validate(&filters)?;
        }
        if !(1..=MOST_EVENTS).contains(&self.prefetch.events) {
            let reason = format!("is {}; from 1 to {MOST_EVENTS}", self.prefetch.events);
            return Err(Error::config("broker.prefetch.events", reason));
        }
        if !(1024..=1 << 30).contains(&self.prefetch.bytes.as_u64()) {
            return Err(Error::config(
                "broker.prefetch.bytes",
                format!("is {}; from 1 KiB to 1 GiB", self.prefetch.bytes),
            ));
        }
        if !(2..=16).contains(&self.prefetch.requests) {
            let reason = format!("is {}; from 2 to 16 requests can be outstanding", self.prefetch.requests);
            return Err(Error::config("broker.prefetch.requests", reason));
        }
        for (key, value) in [("broker.timeout", self.timeout), ("broker.silence", self.silence)] {
            if value < Duration::from_millis(50) {
                return Err(Error::config(key, format!("is {value:?}; the least is 50ms")));
            }
            validate_longest(key, value)?;
        }
        validate_longest("broker.wait", self.wait)?;
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
        let jwt = self.jwt.as_deref().filter(|jwt| !is_jwt(jwt)).map(Path::new);
        for (key, path) in [
            ("password_file", self.password_file.as_deref()),
            ("token_file", self.token_file.as_deref()),
            ("creds", self.creds.as_deref()),
            ("nkey", self.nkey.as_deref()),
            ("jwt", jwt),
            ("tls.ca", self.tls.ca.as_deref()),
            ("tls.cert", self.tls.cert.as_deref()),
            ("tls.key", self.tls.key.as_deref()),
        ] {
            let what = match path {
                Some(path) if is_seed(path) => "is a seed",
                Some(path) if is_contents(path) => "is no file's name, but what should be in the file",
                _ => continue,
            };
            let reason = format!("{what}; write it to a file that only you can read, and name that");
            return Err(Error::config(format!("broker.{key}"), reason));
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

/// Whether a stream can have this name: see <https://docs.nats.io/nats-concepts/jetstream/streams>.
pub(crate) fn is_stream_name(name: &str) -> bool {
    !name.is_empty() && !name.chars().any(|c| c.is_whitespace() || c.is_control() || ".*>/\\".contains(c))
}

fn validate_stream_name(name: &str) -> Result<(), Error> {
    if !is_stream_name(name) {
        let reason = format!("{name:?} cannot be a stream's name: no white space, dots, *, > or slashes");
        return Err(Error::config("broker.stream", reason));
    }
    Ok(())
}
