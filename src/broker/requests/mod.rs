//! Requests in, replies out: a connection that answers, replaced whenever it is lost.
//!
//! A [`RequestHandler`] gets the requests, and replies go to a [`ReplyQueue`]. Both are at most once: a request that comes while
//! there is no connection is lost, and so is a reply that cannot be sent. Clients have a time-out for that.

mod listener;
mod remark_log;
mod reply;
mod reply_queue;
mod request;
mod session;
mod streams;
mod unsent;

pub use listener::Listener;
pub use reply::{AddressedReply, AnsweringPartition, Reply, ServiceError};
pub use reply_queue::ReplyQueue;
pub use request::{Request, RequestHandler, answerable};
pub(in crate::broker) use streams::names as stream_names;

/// The subjects to receive requests on.
#[derive(Clone, Debug, Default)]
pub struct Subjects {
    /// Subjects on which each request goes to one member of the queue group.
    pub shared: Vec<String>,
    /// The queue group.
    pub group: String,
    /// Subjects on which each request goes to every subscriber.
    pub everybody: Vec<String>,
}
