//! The errors of settings, broker and database. Recorders have errors of their own, in [`record`](crate::record).
//!
//! The message of each error is one line that names the object, the cause and the remedy, where there is one. It needs nothing from
//! [`source`](std::error::Error::source), which is the error of SQLite or of the system, for programs that examine it.

use std::path::PathBuf;
use std::time::Duration;

/// The cause of an error: a [`std::io::Error`], a [`rusqlite::Error`], or an error of a library whose types are
/// not part of this interface. `downcast_ref` finds out.
pub type Cause = Box<dyn std::error::Error + Send + Sync + 'static>;

/// What went wrong, with the object concerned and the remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting that cannot be used. Nothing was started.
    #[error("configuration: {key}: {detail}{}", tail(remedy.as_ref()))]
    #[non_exhaustive]
    Config {
        /// The setting, as it is written in the file: `broker.servers`. Before it, the line of the text and the file, if they are known:
        /// `chat.toml:3: broker.servers`.
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

    /// A file beside the database cannot be used: the target of a backup or an export, the source of a restore or an import.
    #[error("{}: {detail}", path.display())]
    #[non_exhaustive]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to do about it.
        detail: String,
        /// The operating system's error.
        #[source]
        source: Option<Cause>,
    },

    /// Another one uses this file already: a collector or a grouped direct recorder the database, a recorder the spool, or `catchment forward`
    /// the table.
    #[error("{what} {}: {holder} uses it already; {}", path.display(), way_out(what, *is_own))]
    #[non_exhaustive]
    Locked {
        /// What it is: `database`, `spool` or `outbox`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Who uses it: `process 4711`, or `this process`.
        holder: String,
        /// Whether it is this process.
        is_own: bool,
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

    /// The collector has ended, or is being stopped.
    #[error("the collector has ended; start it again")]
    Ended,

    /// The caller cancelled a long operation. Its documentation states what remains of its work. No incomplete file has its final name.
    #[error("{operation} was cancelled")]
    #[non_exhaustive]
    Cancelled {
        /// The operation: `the backup`.
        operation: &'static str,
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
    /// The caller ended its opening. Unfinished migrations were rolled back.
    Interrupted,
    /// A statement of the user failed.
    Statement,
    /// The disk reports an error. What was to be committed at that moment may be stored or not.
    Io,
    /// Any other error of SQLite.
    Other,
}

const LOCKED: &str = "stop that one, or give this one another database.path";
const SHARED: &str = "share the recorder or collector that you have, or give this one another database.path";
const SPOOL_LOCKED: &str = "stop that one, or give this one another file";
const SPOOL_SHARED: &str = "share the recorder that you have, or give this one another file";
const NO_THREAD: &str = "raise the limit of processes (ulimit -u, TasksMax of a service, pids of a container)";

/// What to do about a file that is in use.
fn way_out(what: &str, is_own: bool) -> &'static str {
    match (what, is_own) {
        ("spool", true) => SPOOL_SHARED,
        ("spool", false) => SPOOL_LOCKED,
        ("outbox", _) => "stop that one",
        (_, true) => SHARED,
        (_, false) => LOCKED,
    }
}

impl Error {
    /// What to do about it, where that is known. The message contains it too.
    #[must_use]
    pub fn remedy(&self) -> Option<&str> {
        match self {
            Self::Config { remedy, .. }
            | Self::Broker { remedy, .. }
            | Self::Database { remedy, .. }
            | Self::Migration { remedy, .. } => remedy.as_deref(),
            Self::Locked { what, is_own, .. } => Some(way_out(what, *is_own)),
            Self::Thread { .. } => Some(NO_THREAD),
            Self::File { .. }
            | Self::Panicked { .. }
            | Self::StopDeadline { .. }
            | Self::Ended
            | Self::Cancelled { .. } => None,
        }
    }

    /// The same error for another caller. Its source is left out: it cannot be copied, and the detail has its text.
    pub(crate) fn copied(&self) -> Self {
        match self {
            Self::Config { key, detail, remedy } => {
                Self::Config { key: key.clone(), detail: detail.clone(), remedy: remedy.clone() }
            }
            Self::Broker { fault, server, detail, remedy } => {
                Self::Broker { fault: *fault, server: server.clone(), detail: detail.clone(), remedy: remedy.clone() }
            }
            Self::Database { fault, path, detail, remedy, source: _ } => Self::Database {
                fault: *fault,
                path: path.clone(),
                detail: detail.clone(),
                remedy: remedy.clone(),
                source: None,
            },
            Self::Migration { path, line, detail, remedy, source: _ } => Self::Migration {
                path: path.clone(),
                line: *line,
                detail: detail.clone(),
                remedy: remedy.clone(),
                source: None,
            },
            Self::Locked { what, path, holder, is_own } => {
                Self::Locked { what, path: path.clone(), holder: holder.clone(), is_own: *is_own }
            }
            Self::Thread { name, source } => {
                let described = || std::io::Error::new(source.kind(), source.to_string());
                let source = source.raw_os_error().map_or_else(described, std::io::Error::from_raw_os_error);
                Self::Thread { name: name.clone(), source }
            }
            Self::Panicked { thread, message } => Self::Panicked { thread: thread.clone(), message: message.clone() },
            Self::File { path, detail, source: _ } => {
                Self::File { path: path.clone(), detail: detail.clone(), source: None }
            }
            Self::Ended => Self::Ended,
            Self::Cancelled { operation } => Self::Cancelled { operation },
            Self::StopDeadline { waited, unfinished, kept } => {
                Self::StopDeadline { waited: *waited, unfinished: unfinished.clone(), kept: *kept }
            }
        }
    }

    /// A refused setting.
    pub(crate) fn config(key: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Config { key: key.into(), detail: detail.into(), remedy: None }
    }

    /// A fault of the database, without a remedy.
    pub(crate) fn database(fault: DatabaseFault, path: impl Into<PathBuf>, detail: impl Into<String>) -> Self {
        Self::Database { fault, path: path.into(), detail: detail.into(), remedy: None, source: None }
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
