//! The service: answers the configured queries over NATS, confirms committed events, and answers service discovery.
//!
//! `broker/` receives requests and sends replies, `store/` runs queries; this connects them. A problem here shows in a condition
//! and does not stop the collecting of events.

mod confirmer;
mod discovery;
mod dispatcher;
mod endpoint;
mod endpoint_counters;
mod reply_policy;
mod request_queue;
mod responder;
mod service;
mod service_state;

pub use endpoint::QueryStatus;
pub use service::{Service, confirmations};
pub use service_state::{RequestCounts, ServiceState};
