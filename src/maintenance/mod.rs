//! Keeps a database for years: backup, restore, replay, verification, export. Each operation blocks until it is done, reports its
//! progress and can be cancelled.

pub use crate::task::Progress;
