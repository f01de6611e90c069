//! Records events durably in SQLite from programs that use threads, not an async runtime.

pub mod broker;
pub mod collect;
pub mod config;
pub mod error;
pub mod event;
pub mod pipeline;
pub mod record;
pub mod store;

pub use collect::{Collector, Status, Until};
pub use config::Config;
pub use error::Error;
pub use event::Event;
pub use record::{NatsRecorder, NatsRecorderConfig, Receipt, Recorder};
