//! The direct path against the way through NATS, measured: what `catchment compare` does.
//!
//! Data flows one way: an arm is run (`run`), meters look at its processes (`meter`), statistics are made of the raw
//! samples (`statistics`), and reports of both (`report`). [`Comparison`] is what stands between measuring and telling.

mod comparison;
mod profile;

pub use comparison::*;
pub use profile::{Findings, Profile, ProfileError};
