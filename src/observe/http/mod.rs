//! A small HTTP server for GET and HEAD: one thread serves all connections, and each has its bounds.
//!
//! No connection has a thread, and none is waited for: the thread polls all of them. A request has at most 8 KiB and 5 seconds, an answer
//! 10 seconds. There are at most 128 connections: a new one takes the place of the oldest that has not sent its request. So slow and idle
//! clients cost nothing but a little memory, and do not keep others out.

mod connection;
mod listener;
mod request;
mod response;
mod stream;
mod thread;

pub(super) use listener::Listener;
pub(super) use request::Request;
pub(super) use response::Response;
pub(super) use thread::HttpThread;
