//! Why a comparison, or a part of it, has no figures.

use std::path::PathBuf;

use crate::error::Error;

/// One line: the object, the cause, the way out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// Somebody asked for an end.
    #[error("stopped before the comparison was done; no process and no directory of it is left")]
    Stopped,
    /// A part of the library failed.
    #[error(transparent)]
    Library(#[from] Error),
    /// The operating system refused.
    #[error("{what}: {source}")]
    System {
        /// What was to be done, with what.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A process of the comparison did not do what it should.
    #[error("the {role} {what}{}", said(log))]
    Process {
        /// `application`, `collector`, ...
        role: String,
        /// What it did instead.
        what: String,
        /// What its log says last.
        log: String,
    },
    /// An arm did other work than was asked for: no figure of it would mean anything.
    #[error("{arm}: {what}; no figure is given for it")]
    Unequal {
        /// Which.
        arm: String,
        /// What is in the database, and what should be.
        what: String,
    },
    /// Settings that cannot be used.
    #[error("--{option}: {what}")]
    Option {
        /// The command line's name of it.
        option: &'static str,
        /// What is wrong and what would be right.
        what: String,
    },
    /// A directory in which nothing can be measured.
    #[error("directory {}: {what}; name one on a disk with --directory", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}

impl Failure {
    pub(super) fn system(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::System { what, source }
    }
}

fn said(log: &str) -> String {
    if log.is_empty() { String::new() } else { format!("; its log says: {log}") }
}
