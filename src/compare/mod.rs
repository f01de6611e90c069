//! The ways an event may go, compared: the same events, the same statements, the same durability, timed until the last
//! commit is seen.
//!
//! A *stage* is a fresh database with what belongs to it: for the NATS arms a broker and a collector, each a process of its
//! own, as is the *application* that produces the events. A *run* has an application produce on a stage while a *watch* on
//! the database sees the commits; a *check* counts and hashes the rows before a figure is believed. Nothing here knows a
//! terminal: progress and the wish to stop go through [`Surroundings`].
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts and times become figures"
)]

pub mod application;
pub mod arms;
mod axes;
mod clock;
mod commit_watch;
mod comparison;
mod driver;
mod environment;
mod error;
mod hotspots;
mod idle;
mod instructions;
mod isolation;
mod latency;
mod machine;
mod meter;
mod options;
mod process;
mod profile;
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
pub use driver::{Step, Surroundings, compare};
pub use error::Failure;
pub use options::{Options, Work};
pub use profile::{Findings, Profile, ProfileError};
pub use workload::Codec;
