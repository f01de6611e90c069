//! `catchment compare`: direct recording and recording through NATS, measured against each other. The events, statements and
//! durability are the same, and a run is timed until the last commit is seen.
//!
//! A *test environment* is a fresh database with the processes that belong to it: for the NATS arms a broker and a collector.
//! The *application* that produces the events is a process of its own too. A *run* has an application produce events in an
//! environment while a *commit watch* on the database sees the commits. The *verification* counts and hashes the rows before a
//! figure is believed. Nothing here uses a terminal: progress and stopping go through [`Callbacks`].
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts and times become figures"
)]

mod absence;
pub mod application;
pub mod arms;
mod axes;
mod calibration;
mod callgrind;
mod clock;
mod commit_watch;
mod comparison;
mod context;
mod curve;
mod driver;
mod environment;
mod error;
mod forecast;
mod hotspots;
mod idle;
mod instructions;
mod isolation;
mod latency;
mod machine;
mod meter;
mod options;
mod outage;
mod planning;
mod process;
mod profile;
mod random;
pub mod report;
mod run;
mod schedule;
mod scratch_directory;
mod stall;
pub mod statistics;
mod syscalls;
mod verification;
mod workload;

pub use comparison::*;
pub use context::{Callbacks, Step};
pub use driver::compare;
pub use error::CompareError;
pub use options::{Options, Work};
pub use profile::{Findings, Profile, ProfileError};
pub use workload::Codec;
