//! Keeps a database for years: backup, restore, replay, verification, export. Each operation blocks until it is done, reports its
//! progress and can be cancelled.

mod replay;

pub use crate::task::Progress;
pub use replay::{ReplayEnd, ReplayOptions, ReplayReport, ReplayStart, replay};
