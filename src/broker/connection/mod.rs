//! A connection to one server of a cluster: which servers there are, how to log in, whether the server still answers, and when to
//! connect again.

mod access;
mod address_file;
mod backoff;
mod cluster;
mod denials;
mod flush;
mod greeting;
mod link;
mod link_count;
mod liveness;
mod problem;
mod reconnect;
mod remarks;
mod tls;

pub use address_file::address_in;
pub(crate) use backoff::Pauses;
pub use cluster::Cluster;
pub(super) use denials::Denials;
pub(super) use flush::{FlushObserver, Flusher};
pub(super) use greeting::receive as receive_greeting;
pub(super) use link::{Link, ServerInfo};
pub(super) use liveness::{LinkState, Received};
pub use liveness::{Liveness, SessionEnd};
pub use reconnect::Reconnect;
pub use remarks::{Denial, ServerRemark};
pub(super) use remarks::{ErrorListener, one_line, quoted};
