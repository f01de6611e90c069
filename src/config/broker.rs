//! The broker, the stream, and how this program authenticates: `[broker]`.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use serde::Deserialize;

use super::core_nats::{CoreConfig, Mode};
use super::limits::{MAX_EVENTS, validate_duration};
use super::secrets::without_secrets;
use crate::error::Error;
use crate::subject::{Filter, InvalidSubject, is_prefix};

/// The stream that is collected by default. It is the only one that is created without `broker.subjects`.
pub(super) const DEFAULT_STREAM: &str = "EVENTS";

/// The broker and the stream: `[broker]`.
///
/// Choose one way to authenticate: `user` with `password` or `password_file`; `token` or `token_file`; `creds`; `nkey`; `nkey` with
/// `jwt`; or a user or token in the server's address. Files are read again for each connection, so their contents may change at
/// any time. No secret is shown in a log, an error or by `Debug`.
#[derive(Clone, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct BrokerConfig {
    /// Addresses of the servers of one cluster, tried in turn: `nats://host:4222`, `tls://host:4222`. One may contain a user and
    /// password (`nats://user:password@host`) or a token (`nats://token@host`), percent-encoded where necessary. Default
    /// `["nats://127.0.0.1:4222"]`.
    pub servers: Vec<String>,
    /// A file with the server's address, which replaces `servers` whenever the file has another one. Not a setting: the command sets it
    /// where it takes the address from the file that `catchment run --with-server` writes.
    #[serde(skip)]
    pub(crate) address_file: Option<PathBuf>,
    /// User name. Default none.
    pub user: Option<String>,
    /// Password of `user`. Default none.
    pub password: Option<String>,
    /// A file that holds the password of `user`, instead of `password`. White space around the password is removed. Default none.
    pub password_file: Option<PathBuf>,
    /// Token. Default none.
    pub token: Option<String>,
    /// A file that holds the token, instead of `token`. White space around the token is removed. Default none.
    pub token_file: Option<PathBuf>,
    /// A credentials file: a JWT and its seed. Default none.
    pub creds: Option<PathBuf>,
    /// A file that holds an nkey's seed. Default none.
    pub nkey: Option<PathBuf>,
    /// The user's JWT, or a file that holds it. Needs `nkey`, the file with its seed. Default none.
    pub jwt: Option<String>,
    /// Certificates.
    pub tls: TlsConfig,
    /// The JetStream domain: requests go to `$JS.<domain>.API`. Default none.
    pub domain: Option<String>,
    /// The prefix of JetStream requests, instead of `domain`: where another account's `$JS.API` is imported. Default `$JS.API`.
    pub api_prefix: Option<String>,
    /// The prefix of the subjects on which replies are received, for accounts that may not use the usual one. Default `_INBOX`.
    pub inbox_prefix: Option<String>,
    /// Whether a stream keeps events until the database has them. Default `jetstream`.
    pub mode: Mode,
    /// The stream to collect. Not used in mode `core`. Default `EVENTS`.
    pub stream: String,
    /// Which subjects to collect, as the stream stores them; also the subjects of the stream if it has to be created. A subject that
    /// another one includes is left out. Default empty: everything that the stream stores. Then a missing stream is created only if it
    /// is `EVENTS`, on `events.>`; if another stream is missing, the start fails.
    ///
    /// In mode `core`: what to subscribe to. Default `events.>`.
    pub subjects: Vec<String>,
    /// Create the stream if it does not exist. Default true.
    pub create_stream: bool,
    /// How many partitions the stream has: 1 to 1,024. A stream that has to be created gets a `subject_transform` that puts the number of
    /// the partition before each subject; events of one subject are all in the same partition. A stream that has another number is
    /// refused. Subjects in the settings and in rows are as published, without that number. Default none: the stream has no partitions.
    pub partitions: Option<u32>,
    /// Which partition to collect, from 0. Each needs a collector with a database of its own. Needs `partitions`. Default none: all
    /// partitions.
    pub partition: Option<u32>,
    /// The longest that connecting, or one answer of the server, may take. 50 ms to a day. Default 5 s.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "cli", schemars(with = "crate::config::schema_types::Time"))]
    pub timeout: Duration,
    /// How long a collector's start tries again where the broker cannot be reached or does not answer. A broker that answers and
    /// refuses ends the start at once. Up to a day. Default 0: one try.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "cli", schemars(with = "crate::config::schema_types::Time"))]
    pub wait: Duration,
    /// A connection without any answer for this long, probes included, is replaced. 50 ms to a day. Default 5 s.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "cli", schemars(with = "crate::config::schema_types::Time"))]
    pub silence: Duration,
    /// The longest pause between two attempts to reconnect. The first pause is 50 ms, and each is twice the one before: up to 250 ms
    /// in the first 30 s of an outage, then up to this. Each is shortened at random by up to a quarter. Attempts never end. 10 ms to a
    /// day. Default 2 s.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "cli", schemars(with = "crate::config::schema_types::Time"))]
    pub retry: Duration,
    /// How much the broker may send before the database has committed it.
    #[serde(alias = "ahead")]
    pub prefetch: PrefetchConfig,
    /// How core NATS is collected, in mode `core`.
    pub core: CoreConfig,
    /// The connection's name in the server's lists. Default `catchment`.
    pub connection_name: String,
}

/// TLS: which servers to trust, and the certificate to show them: `[broker.tls]`. A server that requires TLS gets it in any case.
#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct TlsConfig {
    /// Refuse a server without TLS. An address that begins with `tls://`, `ca` and `cert` do so too. Default false.
    pub required: bool,
    /// A PEM file with the authorities to trust, instead of those that this machine trusts. Default none.
    pub ca: Option<PathBuf>,
    /// A PEM file with the client certificate, for servers that ask for one, and its intermediate certificates. Default none.
    pub cert: Option<PathBuf>,
    /// A PEM file with the private key of `cert`. Default none.
    pub key: Option<PathBuf>,
}

/// How much the broker may send before the database has committed it: `[broker.prefetch]`. This bounds the events in memory that
/// are not in a batch yet.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct PrefetchConfig {
    /// Events of one pull request, 1 to 1,000,000. Default 5,000.
    pub events: usize,
    /// Bytes of one pull request, 1 KiB to 1 GiB. A larger event is fetched by a request of its own. Default 4 MiB.
    #[cfg_attr(feature = "cli", schemars(with = "crate::config::schema_types::Size"))]
    pub bytes: ByteSize,
    /// Pull requests outstanding at a time, 2 to 16. Default 3.
    pub requests: usize,
    /// How often to request what is stored, while more than 10,000 events a second come. It saves server and collector work, and an event
    /// waits for the next request. At lower rates, and always with 0, each event is sent as soon as it is stored. 1 ms to 20 ms, or 0.
    /// Default 10 ms.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "cli", schemars(with = "crate::config::schema_types::Time"))]
    pub poll_interval: Duration,
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self {
            servers: vec!["nats://127.0.0.1:4222".into()],
            address_file: None,
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
            stream: DEFAULT_STREAM.into(),
            subjects: Vec::new(),
            create_stream: true,
            partitions: None,
            partition: None,
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
        Self { events: 5_000, bytes: ByteSize::mib(4), requests: 3, poll_interval: Duration::from_millis(10) }
    }
}

impl BrokerConfig {
    /// The servers for a log line or an error, without users, passwords and tokens.
    pub(crate) fn shown_servers(&self) -> String {
        self.servers.iter().map(|server| without_secrets(server)).collect::<Vec<_>>().join(", ")
    }

    /// How long after an event was sent for the first time it is usually sent again, at most: a connection is replaced after
    /// `silence`, with pauses up to `retry`.
    pub(crate) fn repeats_within(&self) -> Duration {
        self.silence + self.timeout + self.retry
    }

    /// The prefix of JetStream requests: `api_prefix`, else the one of `domain`, else `$JS.API`.
    pub(crate) fn api_prefix(&self) -> String {
        match (&self.api_prefix, &self.domain) {
            (Some(prefix), _) => prefix.clone(),
            (None, Some(domain)) => format!("$JS.{domain}.API"),
            (None, None) => "$JS.API".into(),
        }
    }
}

impl BrokerConfig {
    /// Checks the settings without a connection.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] with the first setting that cannot be used.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        if self.servers.is_empty() {
            return Err(
                Error::config("broker.servers", "is empty").with_remedy("give at least one, as nats://127.0.0.1:4222")
            );
        }
        if self.servers.iter().any(|server| server.trim().is_empty()) {
            let remedy = "give an address, as nats://127.0.0.1:4222, or remove it";
            return Err(Error::config("broker.servers", "an address is empty").with_remedy(remedy));
        }
        self.authentication()?;
        self.validate_files()?;
        self.validate_tls()?;
        self.validate_prefixes()?;
        validate_stream_name(&self.stream)?;
        self.validate_partitions()?;
        let parse = |subject: &String| {
            subject.parse().map_err(|e: InvalidSubject| Error::config("broker.subjects", e.to_string()))
        };
        self.subjects.iter().try_for_each(|subject| parse(subject).map(|_: Filter| ()))?;
        self.refuse_own_subjects()?;
        if self.mode == Mode::Core {
            let filters = self.filters().iter().map(parse).collect::<Result<Vec<Filter>, Error>>()?;
            self.core.validate(&filters)?;
        }
        if !(1..=MAX_EVENTS).contains(&self.prefetch.events) {
            let detail = format!("is {}; from 1 to {MAX_EVENTS}", self.prefetch.events);
            return Err(Error::config("broker.prefetch.events", detail));
        }
        if !(1024..=1 << 30).contains(&self.prefetch.bytes.as_u64()) {
            return Err(Error::config(
                "broker.prefetch.bytes",
                format!("is {}; from 1 KiB to 1 GiB", self.prefetch.bytes),
            ));
        }
        if !(2..=16).contains(&self.prefetch.requests) {
            let detail = format!("is {}; from 2 to 16", self.prefetch.requests);
            return Err(Error::config("broker.prefetch.requests", detail));
        }
        let interval = self.prefetch.poll_interval;
        if !interval.is_zero() && !(Duration::from_millis(1)..=Duration::from_millis(20)).contains(&interval) {
            let detail = format!("is {interval:?}; from 1ms to 20ms, or 0s to have each event sent as it is stored");
            return Err(Error::config("broker.prefetch.poll_interval", detail));
        }
        for (key, value) in [("broker.timeout", self.timeout), ("broker.silence", self.silence)] {
            if value < Duration::from_millis(50) {
                return Err(Error::config(key, format!("is {value:?}; the least is 50ms")));
            }
            validate_duration(key, value)?;
        }
        validate_duration("broker.wait", self.wait)?;
        validate_duration("broker.retry", self.retry)?;
        if self.retry < Duration::from_millis(10) {
            return Err(Error::config("broker.retry", format!("is {:?}; the least is 10ms", self.retry)));
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
            let detail = "cannot be combined with broker.api_prefix, which is the whole prefix";
            return Err(Error::config("broker.domain", detail).with_remedy("give only one of them"));
        }
        let is_name = |name: &str| is_prefix(name) && !name.contains('.');
        if let Some(domain) = self.domain.as_deref().filter(|domain| !is_name(domain)) {
            let detail = format!("{domain:?} is not a valid domain name: dots, white space, * and > are not allowed");
            return Err(Error::config("broker.domain", detail));
        }
        for (key, prefix) in [("api_prefix", &self.api_prefix), ("inbox_prefix", &self.inbox_prefix)] {
            if let Some(prefix) = prefix.as_deref().filter(|prefix| !is_prefix(prefix)) {
                let detail =
                    format!("{prefix:?} is not a valid prefix; an example is js.hub, without a dot at its end");
                return Err(Error::config(format!("broker.{key}"), detail));
            }
        }
        Ok(())
    }
}

/// Whether a stream can have this name, see <https://docs.nats.io/nats-concepts/jetstream/streams>.
pub(crate) fn is_stream_name(name: &str) -> bool {
    !name.is_empty() && !name.chars().any(|c| c.is_whitespace() || c.is_control() || ".*>/\\".contains(c))
}

fn validate_stream_name(name: &str) -> Result<(), Error> {
    if !is_stream_name(name) {
        let detail =
            format!("{name:?} is not a valid stream name: white space, dots, *, > and slashes are not allowed");
        return Err(Error::config("broker.stream", detail));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_polled_for_within_twenty_milliseconds_or_not_at_all() {
        let refused = |interval| {
            let mut config = BrokerConfig::default();
            config.prefetch.poll_interval = interval;
            config.validate().err().map(|error| error.to_string())
        };
        for interval in [Duration::ZERO, Duration::from_millis(1), Duration::from_millis(20)] {
            assert_eq!(refused(interval), None, "{interval:?}");
        }
        for interval in [Duration::from_micros(999), Duration::from_micros(20_001)] {
            let said = refused(interval).expect("refused");
            assert!(
                said.contains("broker.prefetch.poll_interval") && said.contains("from 1ms to 20ms, or 0s"),
                "{said}"
            );
        }
    }
}
