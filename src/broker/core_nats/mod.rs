//! Core NATS, without a stream: what is published while nobody listens, or faster than can be stored, is lost and counted.

mod brake;
mod intake;
mod losses;
mod pacer;
mod publisher;
mod room;
mod session;

pub use intake::CoreIntake;
pub(super) use publisher::CorePublisher;
