//! Keeps a database for years: backup, restore, replay, verification, export. Each operation blocks until it is done, reports its
//! progress and can be cancelled.
//!
//! ```no_run
//! use std::ops::ControlFlow;
//!
//! use catchment::Config;
//! use catchment::maintenance::{VerifyOptions, verify};
//!
//! let mut config = Config::default();
//! config.database.path = "events.db".into();
//! let report = verify(&config, &VerifyOptions::default(), &|progress| {
//!     println!("{} {} {}", progress.step, progress.done, progress.unit);
//!     ControlFlow::Continue(())
//! })?;
//! println!("{} of {} messages are missing", report.missing.count, report.messages);
//! # Ok::<(), catchment::Error>(())
//! ```

mod compact;
mod gaps;
mod replay;
mod retain;
mod verify;

pub use crate::store::{Compacted, RetentionForecast};
pub use crate::task::Progress;
pub use compact::{CompactOptions, compact};
pub use gaps::{EpochPosition, GapRange, GapState, GapsOptions, GapsReport, gaps};
pub use replay::{ReplayEnd, ReplayOptions, ReplayReport, ReplayStart, replay};
pub use retain::{RetainOptions, retain, retention_forecast};
pub use verify::{Finding, Findings, TableCount, VerifyOptions, VerifyReport, verify};
