//! Work on the database that is due from time to time: a running collector does it on a thread of its own, one job after the other.

mod backup;
mod job;
mod schedule;
mod thread;

pub(crate) use backup::BackupJob;
pub(crate) use job::Job;
pub use schedule::JobStatus;
pub(crate) use thread::Upkeep;
