//! Core NATS, without a stream: what is published while nobody listens, or faster than can be stored, is lost and counted.

mod drop_reporter;
mod intake;
mod marker_publisher;
mod publisher;
mod read_throttle;
mod receive_buffer;
mod session;

pub use intake::CoreIntake;
pub(super) use publisher::CorePublisher;
