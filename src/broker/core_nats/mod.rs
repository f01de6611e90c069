//! Core NATS, without a stream. Events that are published while there is no connection, or faster than they can be stored, are lost and
//! counted.

mod drop_reporter;
mod intake;
mod marker_publisher;
mod publisher;
mod read_throttle;
mod receive_buffer;
mod session;

pub use intake::CoreIntake;
pub(super) use publisher::CorePublisher;
