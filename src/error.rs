//! The one error of the library, an enum a caller can match on.

use std::path::PathBuf;
use std::time::Duration;

/// The cause beneath an error, of a library whose types are not part of this one's interface.
pub type Cause = Box<dyn std::error::Error + Send + Sync + 'static>;

/// What went wrong, with the object it went wrong with and the way out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting that cannot be used. Nothing was started.
    #[error("configuration: {key}: {detail}{}", tail(remedy.as_ref()))]
    #[non_exhaustive]
    Config {
        /// The setting, as it is written in the file: `broker.servers`.
        key: String,
        /// What is wrong with it.
        detail: String,
        /// What to do about it, where the detail does not already say it.
        remedy: Option<String>,
    },

    /// The broker cannot be used.
    #[error("broker {server}: {detail}{}", tail(remedy.as_ref()))]
    #[non_exhaustive]
    Broker {
        /// The kind of trouble.
        fault: BrokerFault,
        /// The address or addresses, without any password.
        server: String,
        /// What happened.
        detail: String,
        /// What to do about it, where that is known.
        remedy: Option<String>,
    },

    /// The database cannot be used.
    #[error("database {}: {detail}{}", path.display(), tail(remedy.as_ref()))]
    #[non_exhaustive]
    Database {
        /// The kind of trouble.
        fault: DatabaseFault,
        /// The database file.
        path: PathBuf,
        /// What happened.
        detail: String,
        /// What to do about it, where that is known.
        remedy: Option<String>,
        /// SQLite's own error, or the operating system's.
        #[source]
        source: Option<Cause>,
    },

    /// A migration cannot be applied, or is not as it was when it was applied. No new one was applied.
    #[error(
        "migration {}{}: {detail}{}",
        path.display(),
        line.map_or(String::new(), |line| format!(":{line}")),
        tail(remedy.as_ref())
    )]
    #[non_exhaustive]
    Migration {
        /// The file.
        path: PathBuf,
        /// Where in it, counted from 1, if there is a place.
        line: Option<usize>,
        /// What is wrong.
        detail: String,
        /// What to do about it, where that is known.
        remedy: Option<String>,
        /// SQLite's own error, or the operating system's.
        #[source]
        source: Option<Cause>,
    },

    /// Another process collects into this database.
    #[error(
        "database {}: {holder} collects into it already; {LOCKED}",
        path.display()
    )]
    #[non_exhaustive]
    Locked {
        /// The database file.
        path: PathBuf,
        /// Who holds it: `process 4711`.
        holder: String,
    },

    /// The operating system gives no thread.
    #[error("no thread {name}: {source}; {NO_THREAD}")]
    #[non_exhaustive]
    Thread {
        /// What it is for.
        name: String,
        /// The operating system's error.
        source: std::io::Error,
    },

    /// A thread of the library panicked: a bug of ours. Nothing uncommitted was acknowledged.
    #[error("thread {thread} panicked: {message}")]
    #[non_exhaustive]
    Panicked {
        /// The thread's name.
        thread: String,
        /// The panic's message.
        message: String,
    },

    /// The deadline of a stop passed before all work was done.
    #[error(
        "stopped after {waited:?} without {unfinished}; what it had not committed is {}",
        if *kept { "still in the stream" } else { "lost, for core NATS keeps nothing" }
    )]
    #[non_exhaustive]
    StopDeadline {
        /// How long the stop waited.
        waited: Duration,
        /// The threads that had not ended.
        unfinished: String,
        /// Whether what was not committed is still in the stream; core NATS has none.
        kept: bool,
    },
}

/// The kinds of trouble with a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BrokerFault {
    /// Nobody listens there, or the name does not resolve.
    Unreachable,
    /// Something listens there but does not answer like a NATS server in time.
    Silent,
    /// The server refuses the credentials, or they cannot be read.
    Refused,
    /// TLS: the server has none, or one side does not accept the other's certificate.
    Tls,
    /// The server, or this account, has no `JetStream`.
    NoJetStream,
    /// The stream is missing, or cannot be read by this program.
    Stream,
    /// Another collector uses a consumer of this database: the two have copies of one database.
    Contested,
    /// The server refused a request for another reason.
    Request,
}

/// The kinds of trouble with a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DatabaseFault {
    /// The file cannot be opened, created or written.
    Unwritable,
    /// Another connection holds the write lock.
    Busy,
    /// There is no room on the disk, or the file may not grow.
    Full,
    /// It is damaged, or not a database.
    Corrupt,
    /// The ledger moved under us: something else writes this stream into this database.
    Conflict,
    /// Its tables are not the ones this version knows.
    Schema,
    /// It is a copy of another database that is still there, and has the other's identity.
    Copy,
    /// A statement given by the user failed.
    Statement,
    /// Anything else SQLite reports.
    Other,
}

const LOCKED: &str = "stop that one, or give this one another database.path";
const NO_THREAD: &str = "raise the limit of processes (ulimit -u, TasksMax of a service, pids of a container)";

impl Error {
    /// What to do about it, where that is known. It stands in the message too.
    #[must_use]
    pub fn remedy(&self) -> Option<&str> {
        match self {
            Self::Config { remedy, .. }
            | Self::Broker { remedy, .. }
            | Self::Database { remedy, .. }
            | Self::Migration { remedy, .. } => remedy.as_deref(),
            Self::Locked { .. } => Some(LOCKED),
            Self::Thread { .. } => Some(NO_THREAD),
            Self::Panicked { .. } | Self::StopDeadline { .. } => None,
        }
    }

    /// A refused setting.
    pub(crate) fn config(key: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Config { key: key.into(), detail: detail.into(), remedy: None }
    }

    /// The same error with what to do about it. Errors whose remedy is always the same keep theirs.
    #[must_use]
    pub(crate) fn with_remedy(mut self, way_out: impl Into<String>) -> Self {
        if let Self::Config { remedy, .. }
        | Self::Broker { remedy, .. }
        | Self::Database { remedy, .. }
        | Self::Migration { remedy, .. } = &mut self
        {
            *remedy = Some(way_out.into());
        }
        self
    }
}

fn tail(remedy: Option<&String>) -> String {
    remedy.map_or(String::new(), |remedy| format!("; {remedy}"))
}
