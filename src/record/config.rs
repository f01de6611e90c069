//! The settings of the recorders.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::{
    BatchConfig, BrokerConfig, DatabaseConfig, Mode, RouteConfig, Unmatched, is_stream_name, validate_routes,
};
use crate::error::Error;
use crate::event_id::Identity;

/// The default of all recorders for [`Overflow::Block`].
const BLOCK: Duration = Duration::from_secs(5);

/// The settings of a [`NatsRecorder`](super::NatsRecorder).
///
/// ```
/// let mut config = catchment::NatsRecorderConfig::default();
/// config.broker.servers = vec!["nats://127.0.0.1:4222".into()];
/// config.buffer_events = 10_000;
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NatsRecorderConfig {
    /// The broker. `stream` and `subjects` are not used: the server gives an event to the stream whose subjects match it. With
    /// `mode` `core` there is no stream: see [`NatsRecorder`](super::NatsRecorder).
    pub broker: BrokerConfig,
    /// The only stream that may store the events: they get the header `Nats-Expected-Stream`, and the server refuses those that another stream
    /// takes ([`FailureReason::Refused`](super::FailureReason::Refused)). An event that is given back has the header. Default `None`: the
    /// stream whose subjects match. Not used in mode `core`.
    pub expected_stream: Option<String>,
    /// At most this many events are in the buffer, sent ones that are not confirmed included. Default 50,000.
    pub buffer_events: usize,
    /// At most this many bytes are in the buffer, sent events that are not confirmed included. Default 64 MiB.
    pub buffer_bytes: usize,
    /// What to do when the buffer is full. Default: block for 5 s.
    pub overflow: Overflow,
    /// At most this many events are sent and not confirmed. Default 8,000: nats-server refuses events while 10,000 wait in a stream
    /// (`max_buffered_msgs`). With [`Identity::Database`] and [`Identity::Payload`] at most 64 until the first is confirmed.
    pub window: usize,
    /// At most this many bytes are sent and not confirmed, unless a single event is larger. Default 2 MiB: over TLS, the NATS
    /// client breaks a connection to which some 4 MB are written that the server does not read. In mode `core`, the limit is
    /// also what the connection carries in a quarter of `broker.silence`, as far as that is known.
    pub window_bytes: usize,
    /// Start even if the broker cannot be reached. Events are then buffered until it can. Errors of the broker, such as a
    /// refused password, show only in [`Recorder::health`](super::Recorder::health). Default false:
    /// [`NatsRecorder::open`](super::NatsRecorder::open) fails.
    pub start_without_broker: bool,
    /// How an event that is sent twice is recognised. Default [`Identity::Both`]. Not used in mode `core`.
    pub identity: Identity,
    /// With [`Identity::Stream`]: how long after it was first sent an event may be sent again, at most. The stream's own `duplicate_window` counts where
    /// it is shorter: the recorder reads it on each new connection, before it sends anything again, and stops sending again
    /// before the window ends, by `broker.silence` or half of the window. An event that the server refused for the moment, and so
    /// did not store, may be sent again at any time.
    ///
    /// An event that has no answer for longer is looked for, by its identity, among the last 20,000 messages of the
    /// stream. If it is not found, it comes back with [`FailureReason::Unconfirmed`](super::FailureReason::Unconfirmed), because
    /// it may still be on its way. Where the user may not send these requests (`$JS.API.STREAM.INFO.<stream>`,
    /// `$JS.API.STREAM.MSG.GET.<stream>`), only this setting counts, and no event is found.
    ///
    /// Default 2 minutes, the server's default. Not used in mode `core`, where nothing recognises a repetition.
    pub duplicate_window: Duration,
}

impl Default for NatsRecorderConfig {
    fn default() -> Self {
        Self {
            broker: BrokerConfig::default(),
            expected_stream: None,
            buffer_events: 50_000,
            buffer_bytes: 64 << 20,
            overflow: Overflow::Block(BLOCK),
            window: 8_000,
            window_bytes: 2 << 20,
            start_without_broker: false,
            identity: Identity::default(),
            duplicate_window: Duration::from_secs(120),
        }
    }
}

impl NatsRecorderConfig {
    /// The defaults, for this broker: often that of a [`Config`](crate::Config).
    ///
    /// ```
    /// use catchment::{Config, NatsRecorderConfig};
    ///
    /// let config = Config::default();
    /// let mut of_recorder = NatsRecorderConfig::new(config.broker.clone());
    /// of_recorder.buffer_events = 10_000;
    /// ```
    #[must_use]
    pub fn new(broker: BrokerConfig) -> Self {
        Self { broker, ..Self::default() }
    }

    /// Checks all settings but the form of the servers' addresses, and whether files exist. Opens no connection.
    /// [`NatsRecorder::open`](super::NatsRecorder::open) calls this.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] with the first setting that cannot be used.
    pub fn validate(&self) -> Result<(), Error> {
        self.broker.validate()?;
        self.overflow.must_not_drop()?;
        if let Some(stream) = self.expected_stream.as_ref().filter(|stream| !is_stream_name(stream)) {
            return Err(Error::config("expected_stream", format!("{stream:?} is not a valid stream name")));
        }
        let limits = [
            ("buffer_events", self.buffer_events),
            ("buffer_bytes", self.buffer_bytes),
            ("window", self.window),
            ("window_bytes", self.window_bytes),
        ];
        match limits.into_iter().find(|(_, limit)| *limit == 0) {
            Some((key, _)) => Err(Error::config(key, "is 0; must be at least 1")),
            None => Ok(()),
        }
    }
}

/// The settings of a [`DirectRecorder`](super::DirectRecorder).
///
/// ```
/// let mut config = catchment::DirectRecorderConfig::new("events.db");
/// config.commit = catchment::record::CommitMode::PerEvent;
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DirectRecorderConfig {
    /// The database. `writers` is used with [`CommitMode::Grouped`] only.
    pub database: DatabaseConfig,
    /// The limits of one transaction, with [`CommitMode::Grouped`]. Memory holds one such batch for each writer and two more. If an
    /// event's receipt was dropped, memory holds the event twice until it is committed: in the batch, and for the error that
    /// would return it.
    pub batch: BatchConfig,
    /// The statements that events run. Default none: no route takes any event. A subject with `{prefix}` is
    /// refused, and no confirmations are sent (`reply`).
    pub routes: Vec<RouteConfig>,
    /// What to do with events that no route takes. Default: store them in table `events`.
    pub unmatched: Unmatched,
    /// When events are committed. Default [`CommitMode::Grouped`].
    pub commit: CommitMode,
    /// What to do when the buffer is full, with [`CommitMode::Grouped`]. Default: block for 5 s.
    pub overflow: Overflow,
}

impl Default for DirectRecorderConfig {
    fn default() -> Self {
        Self {
            database: DatabaseConfig::default(),
            batch: BatchConfig::default(),
            routes: Vec::new(),
            unmatched: Unmatched::default(),
            commit: CommitMode::default(),
            overflow: Overflow::Block(BLOCK),
        }
    }
}

/// The settings of a [`SpooledRecorder`](super::SpooledRecorder).
///
/// ```
/// let mut config = catchment::SpooledRecorderConfig::new("spool.db");
/// config.broker.servers = vec!["nats://127.0.0.1:4222".into()];
/// config.overflow = catchment::record::Overflow::DropOldest;
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SpooledRecorderConfig {
    /// The spool: a file that only one recorder uses at a time. It is created if absent; its directory must exist. Default `spool.db`.
    pub path: PathBuf,
    /// The permissions of the files that are created. Default 0o600: only the owner.
    pub permissions: u32,
    /// The broker, which need not be there. `stream` and `subjects` are not used: the server gives an event to the stream whose subjects
    /// match it. `mode` must be `jetstream`.
    pub broker: BrokerConfig,
    /// The only stream that may store the events, as in [`NatsRecorderConfig::expected_stream`]. Those that another stream takes become dead
    /// letters of the spool. Default `None`: the stream whose subjects match.
    pub expected_stream: Option<String>,
    /// How an event that is sent twice is recognised. Default [`Identity::Both`]. [`Identity::Stream`] is refused: after an outage, a
    /// stream alone does not recognise it.
    pub identity: Identity,
    /// At most this many events are in the spool. Default 10,000,000.
    pub max_events: u64,
    /// At most this many bytes of events are in the spool, as [`Event::size`](crate::Event::size) counts them. The file takes some more
    /// room. Default 1 GiB.
    pub max_bytes: u64,
    /// What to do when the spool is full. Default: block for 5 s.
    pub overflow: Overflow,
    /// How long an event that the server refuses is sent again, while the stream stores others: no stream takes its subject, the user may
    /// not publish on it, or the stream refuses it. Then it becomes a dead letter of the spool. The time counts from the first refusal, which is
    /// noted in the spool, in an earlier start too. A larger event than the server accepts becomes one at once. Default 30 s.
    pub give_up_after: Duration,
    /// The limits of one transaction. Memory holds three such batches.
    pub batch: BatchConfig,
    /// At most this many events are sent and not confirmed. Default 8,000.
    pub window: usize,
    /// At most this many bytes are sent and not confirmed, unless a single event is larger. Default 2 MiB.
    pub window_bytes: usize,
}

impl Default for SpooledRecorderConfig {
    fn default() -> Self {
        let NatsRecorderConfig { broker, window, window_bytes, identity, overflow, .. } = NatsRecorderConfig::default();
        let DatabaseConfig { permissions, .. } = DatabaseConfig::default();
        Self {
            path: "spool.db".into(),
            permissions,
            broker,
            expected_stream: None,
            identity,
            max_events: 10_000_000,
            max_bytes: 1 << 30,
            overflow,
            give_up_after: Duration::from_secs(30),
            batch: BatchConfig::default(),
            window,
            window_bytes,
        }
    }
}

impl SpooledRecorderConfig {
    /// The defaults, for this file.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), ..Self::default() }
    }

    /// Checks all settings but the form of the servers' addresses, and whether files exist. Opens no file and no connection.
    /// [`SpooledRecorder::open`](super::SpooledRecorder::open) calls this.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] with the first setting that cannot be used.
    pub fn validate(&self) -> Result<(), Error> {
        if self.path.as_os_str().is_empty() {
            return Err(Error::config("path", "is empty; it names the spool"));
        }
        let limits = [("max_events", self.max_events), ("max_bytes", self.max_bytes)];
        if let Some((key, _)) = limits.into_iter().find(|(_, limit)| *limit == 0) {
            return Err(Error::config(key, "is 0; must be at least 1"));
        }
        must_have_streams(&self.broker)?;
        if self.identity == Identity::Stream {
            let detail = "is Stream: after an outage, a stream alone does not recognise an event that is sent again";
            return Err(Error::config("identity", detail).with_remedy("set it to Both, Database or Payload"));
        }
        // Here they are no settings of a database.
        let of_spool = |error| match error {
            Error::Config { key, detail, remedy } => {
                let key = key.strip_prefix("database.").unwrap_or(&key).to_owned();
                Error::Config { key, detail, remedy }
            }
            other => other,
        };
        self.database().validate().map_err(of_spool)?;
        self.batch.validate()?;
        self.publishing().validate()
    }

    /// How the file is opened.
    pub(super) fn database(&self) -> DatabaseConfig {
        let mut config = DatabaseConfig::default();
        (config.path, config.permissions) = (self.path.clone(), self.permissions);
        config
    }

    /// How its events are published.
    pub(super) fn publishing(&self) -> NatsRecorderConfig {
        NatsRecorderConfig {
            broker: self.broker.clone(),
            expected_stream: self.expected_stream.clone(),
            identity: self.identity,
            window: self.window,
            window_bytes: self.window_bytes,
            start_without_broker: true,
            ..NatsRecorderConfig::default()
        }
    }
}

/// When a [`DirectRecorder`](super::DirectRecorder) commits events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CommitMode {
    /// Each event in a transaction of its own, on the caller's thread: it is committed when `record` returns. Any number of
    /// threads and processes can write to the database.
    PerEvent,
    /// Several events in one transaction, on writer threads: `record` returns at once, and the receipt reports when the event is
    /// committed. A database has one collector or one recorder in this mode at a time; a second one is refused, in the same program
    /// too ([`Error::Locked`]).
    #[default]
    Grouped,
}

impl DirectRecorderConfig {
    /// The defaults, for this file.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let mut config = Self::default();
        config.database.path = path.into();
        config
    }

    /// Checks all settings but the SQL of the routes, which needs the database. Opens no file.
    /// [`DirectRecorder::open`](super::DirectRecorder::open) calls this.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] with the first setting that cannot be used.
    pub fn validate(&self) -> Result<(), Error> {
        self.database.validate()?;
        self.batch.validate()?;
        self.overflow.must_not_drop()?;
        validate_routes(&self.routes)
    }
}

/// What `record` does when the buffer is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overflow {
    /// Blocks until there is room, at most for this long, then gives the event back.
    Block(Duration),
    /// Gives the event back at once.
    Refuse,
    /// Takes the event, and drops the oldest events instead, which are counted. Only a [`SpooledRecorder`](super::SpooledRecorder) can.
    DropOldest,
}

impl Overflow {
    /// Refuses what only a spool can do.
    fn must_not_drop(self) -> Result<(), Error> {
        match self {
            Self::DropOldest => Err(Error::config("overflow", "DropOldest is only for a SpooledRecorder")),
            Self::Block(_) | Self::Refuse => Ok(()),
        }
    }
}

/// Refuses core NATS for events that are kept until a stream has them.
pub(super) fn must_have_streams(broker: &BrokerConfig) -> Result<(), Error> {
    if broker.mode != Mode::Core {
        return Ok(());
    }
    let error = Error::config("broker.mode", "is core: only a stream tells that it has stored an event");
    Err(error.with_remedy("set it to jetstream"))
}

/// The default settings of a broker, with these servers of one cluster, separated by commas.
pub(super) fn broker_at(servers: &str) -> BrokerConfig {
    let servers = servers.split(',').map(|server| server.trim().to_owned()).collect();
    BrokerConfig { servers, ..BrokerConfig::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_zero_is_refused_by_its_name() {
        let refused = |change: fn(&mut NatsRecorderConfig)| {
            let mut config = NatsRecorderConfig::default();
            assert!(config.validate().is_ok());
            change(&mut config);
            config.validate().expect_err("must be refused").to_string()
        };
        let said = [
            refused(|config| config.buffer_events = 0),
            refused(|config| config.buffer_bytes = 0),
            refused(|config| config.window = 0),
            refused(|config| config.window_bytes = 0),
        ];
        let said_of_stream = refused(|config| config.expected_stream = Some("a.b".into()));
        assert_eq!(said_of_stream, "configuration: expected_stream: \"a.b\" is not a valid stream name");
        let keys = ["buffer_events", "buffer_bytes", "window", "window_bytes"];
        assert_eq!(said, keys.map(|key| format!("configuration: {key}: is 0; must be at least 1")));
    }

    #[test]
    fn a_direct_recorders_settings_are_refused_by_their_names() {
        let mut config = DirectRecorderConfig::default();
        assert!(config.validate().is_ok());
        config.routes = vec![RouteConfig::new("a..b", ["-"])];
        assert!(config.validate().expect_err("must be refused").to_string().contains("route a..b"));
        config.database.writers = 0;
        assert!(config.validate().expect_err("must be refused").to_string().contains("database.writers"));
    }
}
