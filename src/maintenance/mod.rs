//! Keeps a database for years: backup, restore, replay, verification, export. Each operation blocks until it is done, reports its
//! progress and can be cancelled.

mod gaps;
mod replay;
mod verify;

pub use crate::task::Progress;
pub use gaps::{EpochPosition, GapRange, GapState, GapsOptions, GapsReport, gaps};
pub use replay::{ReplayEnd, ReplayOptions, ReplayReport, ReplayStart, replay};
pub use verify::{Finding, Findings, TableCount, VerifyOptions, VerifyReport, verify};
