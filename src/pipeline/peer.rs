//! Which server the events come from.

use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;

/// The server that events come from. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Peer(Arc<Mutex<Option<Connected>>>);

/// A connection to a server.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Connected {
    /// The server's address, without secrets.
    pub server: String,
    /// Since when.
    pub since: SystemTime,
}

impl Peer {
    /// There is a connection to this server now.
    pub fn connected(&self, server: &str) {
        *self.0.lock() = Some(Connected { server: server.to_owned(), since: SystemTime::now() });
    }

    /// There is no connection now.
    pub fn lost(&self) {
        *self.0.lock() = None;
    }

    /// The connection, if there is one. Does not block.
    #[must_use]
    pub fn get(&self) -> Option<Connected> {
        self.0.lock().clone()
    }
}
