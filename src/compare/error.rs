//! Why a comparison, or a part of it, has no figures.

use std::path::PathBuf;

use crate::error::Error;

/// One line: the object, the cause, and what to do where that is known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompareError {
    /// A stop was requested before every arm had figures.
    #[error(
        "stopped before every arm had figures; nothing is kept, and the comparison's processes and directories are removed"
    )]
    Stopped,
    /// A part of the library failed.
    #[error(transparent)]
    Library(#[from] Error),
    /// The operating system refused.
    #[error("{object}: {source}{}", tail(remedy.as_ref()))]
    System {
        /// What was used: a file, a program, a thread.
        object: String,
        /// What to do about it, where that is known.
        remedy: Option<String>,
        /// The system's error.
        source: std::io::Error,
    },
    /// A process of the comparison failed.
    #[error("the {role} {detail}{}", log_tail(log))]
    Process {
        /// `application`, `collector`, …
        role: String,
        /// What happened.
        detail: String,
        /// The last line of its log.
        log: String,
    },
    /// The rows are not those of the events that were recorded, so the run has no figures.
    #[error("{arm}: {detail}; no figure is given for it")]
    Mismatch {
        /// The arm.
        arm: String,
        /// What is in the database, and what should be.
        detail: String,
    },
    /// An option that cannot be used.
    #[error("{option}: {detail}; {remedy}")]
    Option {
        /// The option's name.
        option: &'static str,
        /// What is wrong.
        detail: String,
        /// What to give instead.
        remedy: String,
    },
    /// A directory in which nothing can be measured.
    #[error("directory {}: {detail}; {remedy}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
        /// What to do about it.
        remedy: String,
    },
}

impl CompareError {
    /// Turns the system's error into this one; `object` is what was used.
    pub(super) fn system(object: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let object = object.into();
        move |source| Self::System { object, remedy: None, source }
    }
}

/// A remedy as the end of an error's line.
pub(super) fn tail(remedy: Option<&String>) -> String {
    remedy.map_or_else(String::new, |remedy| format!("; {remedy}"))
}

fn log_tail(log: &str) -> String {
    if log.is_empty() { String::new() } else { format!("; last line of its log: {log}") }
}
