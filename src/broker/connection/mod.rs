//! A connection to one of a cluster's servers: where they are, who we are to them, and how to end it again.

mod access;
mod backoff;
mod cluster;
mod flush;
mod greeting;
mod link;
mod tls;

pub(super) use backoff::Backoff;
pub use cluster::Cluster;
pub(super) use flush::{Flusher, Witness};
pub(super) use link::{Link, one_line};
