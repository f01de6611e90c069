//! Work on the database that is due from time to time: a running collector does it on a thread of its own, one job after the other.

mod every;
mod file_health;
mod job;
mod retention;
mod schedule;
mod thread;

pub(crate) use file_health::{OptimizeJob, QUICK_CHECK, QuickCheckJob, WalSizeJob};
pub(crate) use job::Job;
pub(crate) use retention::RetentionJob;
pub use schedule::JobStatus;
pub(crate) use thread::Upkeep;
