//! Keeps a database for years: backup, restore, replay, verification, export. Each operation blocks until it is done, reports its
//! progress and can be cancelled.
//!
//! ```no_run
//! use catchment::maintenance::{self, BackupOptions};
//! use std::ops::ControlFlow;
//!
//! let options = BackupOptions::default();
//! let report = maintenance::backup("events.db", "backup.db", &options, &|_| ControlFlow::Continue(()))?;
//! for position in &report.positions {
//!     println!("stream {} up to sequence {}", position.stream, position.sequence);
//! }
//! # Ok::<(), catchment::Error>(())
//! ```

mod backup;
mod compact;
mod export;
mod export_format;
mod gaps;
mod import;
mod import_file;
mod line_chain;
mod replay;
mod restore;
mod retain;
mod table_filters;
mod verify;

pub use crate::store::{Compacted, RetentionForecast, StreamPosition, VerifyCounts};
pub use crate::task::Progress;
pub use backup::{BackupOptions, BackupReport, backup};
pub use compact::{CompactOptions, compact};
pub use export::{ExportOptions, ExportReport, ExportSource, ExportTable, ExportTarget, export};
pub use export_format::ExportFormat;
pub use gaps::{EpochPosition, GapRange, GapState, GapsOptions, GapsReport, gaps};
pub use import::{BadLines, ImportOptions, ImportReport, import};
pub use replay::{ReplayEnd, ReplayOptions, ReplayReport, ReplayStart, replay};
pub use restore::{RestoreOptions, RestoreReport, restore};
pub use retain::{retain, retention_forecast};
pub use verify::{Finding, Findings, TableCount, VerifyOptions, VerifyReport, verify};

pub(crate) use import::import_reporting;
pub(crate) use replay::replay_reporting;
pub(crate) use restore::{MissingInStream, missing_in_stream};
pub(crate) use table_filters::TableFilters;
