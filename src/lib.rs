//! Records events durably in SQLite from programs that use threads, not an async runtime.
pub mod config;
pub mod error;
pub mod event;
pub mod pipeline;
pub mod store;
