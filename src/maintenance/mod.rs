//! Keeps a database for years: backup, restore, replay, verification, export. Each operation blocks until it is done, reports its
//! progress and can be cancelled.

mod compact;
mod retain;

pub use crate::store::{Compacted, RetentionForecast};
pub use crate::task::Progress;
pub use compact::{CompactOptions, compact};
pub use retain::{RetainOptions, retain, retention_forecast};
