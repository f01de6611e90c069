//! The errors of settings, broker and database. Recorders have errors of their own, in [`record`](crate::record).

use std::path::PathBuf;
use std::time::Duration;

/// The cause of an error, from a library whose types are not part of this interface.
pub type Cause = Box<dyn std::error::Error + Send + Sync + 'static>;

/// What went wrong, with the object concerned and the remedy.
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
        /// The address or addresses, without secrets.
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

    /// A migration cannot be applied, or has changed since it was applied. No new one was applied.
    #[error(
        "migration {}{}: {detail}{}",
        path.display(),
        line.map_or(String::new(), |line| format!(":{line}")),
        tail(remedy.as_ref())
    )]
    #[non_exhaustive]
    Migration {
        /// The file, or the name of the script.
        path: PathBuf,
        /// The line, counted from 1, if it is known.
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
        /// The other process: `process 4711`.
        holder: String,
    },

    /// The operating system refuses a thread.
    #[error("no thread {name}: {source}; {NO_THREAD}")]
    #[non_exhaustive]
    Thread {
        /// The thread's name or purpose.
        name: String,
        /// The operating system's error.
        source: std::io::Error,
    },

    /// A thread of the library panicked: a bug in this library. Nothing uncommitted was acknowledged.
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
        "stopped after {waited:?}: {unfinished} had not ended; uncommitted events are {}",
        if *kept { "still in the stream" } else { "lost: core NATS keeps nothing" }
    )]
    #[non_exhaustive]
    StopDeadline {
        /// How long the stop waited.
        waited: Duration,
        /// The threads that had not ended.
        unfinished: String,
        /// Whether the uncommitted events are still in the stream. Core NATS has no stream.
        kept: bool,
    },
}

/// The kinds of trouble with a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BrokerFault {
    /// No server listens at the address, or its name does not resolve.
    Unreachable,
    /// The server does not answer in time, or not as a NATS server does.
    Silent,
    /// The server refuses the credentials, or they cannot be read.
    Refused,
    /// The server has no TLS, or one side does not accept the other's certificate.
    Tls,
    /// The server, or this account, has no JetStream.
    NoJetStream,
    /// The stream is missing, or cannot be read by this program.
    Stream,
    /// Another collector uses this database's consumer: the two have copies of one database.
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
    /// The disk is full, or the file has reached its size limit.
    Full,
    /// The file is damaged, or no database.
    Corrupt,
    /// The ledger has changed: another program writes this stream into this database.
    Conflict,
    /// Its tables are not those of this version.
    Schema,
    /// It is a copy of a database that still exists, and has the same identity.
    Copy,
    /// A statement of the user failed.
    Statement,
    /// Any other error of SQLite.
    Other,
}

const LOCKED: &str = "stop that one, or give this one another database.path";
const NO_THREAD: &str = "raise the limit of processes (ulimit -u, TasksMax of a service, pids of a container)";

impl Error {
    /// What to do about it, where that is known. The message contains it too.
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

    /// The same error with this remedy. Errors whose remedy is always the same keep it.
    #[must_use]
    pub(crate) fn with_remedy(mut self, text: impl Into<String>) -> Self {
        if let Self::Config { remedy, .. }
        | Self::Broker { remedy, .. }
        | Self::Database { remedy, .. }
        | Self::Migration { remedy, .. } = &mut self
        {
            *remedy = Some(text.into());
        }
        self
    }
}

fn tail(remedy: Option<&String>) -> String {
    remedy.map_or(String::new(), |remedy| format!("; {remedy}"))
}
