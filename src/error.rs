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
    #[error("configuration: {key}: {reason}")]
    Config {
        /// The setting, as it is written in the file: `broker.servers`.
        key: String,
        /// What is wrong with it and what would be right.
        reason: String,
    },

    /// The broker cannot be used.
    #[error("broker {server}: {detail}")]
    Broker {
        /// The kind of trouble.
        fault: BrokerFault,
        /// The address or addresses, without any password.
        server: String,
        /// What happened and what to do about it.
        detail: String,
    },

    /// The database cannot be used.
    #[error("database {}: {detail}", path.display())]
    Database {
        /// The kind of trouble.
        fault: DatabaseFault,
        /// The database file.
        path: PathBuf,
        /// What happened and what to do about it.
        detail: String,
        /// SQLite's own error, or the operating system's.
        #[source]
        source: Option<Cause>,
    },

    /// A migration cannot be applied, or is not as it was when it was applied. No new one was applied.
    #[error("migration {}{}: {detail}", path.display(), line.map_or(String::new(), |line| format!(":{line}")))]
    Migration {
        /// The file.
        path: PathBuf,
        /// Where in it, counted from 1, if there is a place.
        line: Option<usize>,
        /// What is wrong and what to do about it.
        detail: String,
        /// `SQLite`'s own error, or the operating system's.
        #[source]
        source: Option<Cause>,
    },

    /// Another process collects into this database.
    #[error(
        "database {}: {holder} collects into it already; stop that one, or give this one another database.path",
        path.display()
    )]
    Locked {
        /// The database file.
        path: PathBuf,
        /// Who holds it: `process 4711`.
        holder: String,
    },

    /// The operating system gives no thread.
    #[error(
        "no thread {name}: {source}; raise the limit of processes (ulimit -u, TasksMax of a service, pids of a container)"
    )]
    Thread {
        /// What it is for.
        name: String,
        /// The operating system's error.
        source: std::io::Error,
    },

    /// A thread of the library panicked: a bug of ours. Nothing uncommitted was acknowledged.
    #[error("thread {thread} panicked: {message}")]
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

impl Error {
    /// A refused setting.
    pub(crate) fn config(key: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Config { key: key.into(), reason: reason.into() }
    }
}
