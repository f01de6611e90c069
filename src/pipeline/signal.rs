//! A switch that goes on once and wakes everybody who waits for it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError};
use parking_lot::Mutex;

/// A switch that goes on once. Clones are the same switch.
#[derive(Clone, Debug)]
pub struct Signal {
    /// Dropping the only sender is what wakes the receivers: a closed channel, unlike a message, reaches all of them.
    sender: Arc<Mutex<Option<Sender<Infallible>>>>,
    receiver: Receiver<Infallible>,
}

impl Default for Signal {
    fn default() -> Self {
        let (sender, receiver) = crossbeam_channel::bounded(0);
        Self { sender: Arc::new(Mutex::new(Some(sender))), receiver }
    }
}

impl Signal {
    /// Switches it on. Further calls change nothing.
    pub fn raise(&self) {
        self.sender.lock().take();
    }

    /// Whether it is on.
    #[must_use]
    pub fn is_raised(&self) -> bool {
        matches!(self.receiver.try_recv(), Err(TryRecvError::Disconnected))
    }

    /// Blocks until it is on, at most this long; says whether it is.
    #[must_use]
    pub fn wait(&self, at_most: Duration) -> bool {
        matches!(self.receiver.recv_timeout(at_most), Err(RecvTimeoutError::Disconnected))
    }

    /// For `crossbeam_channel::select!`: becomes ready when the switch goes on.
    #[must_use]
    pub fn channel(&self) -> &Receiver<Infallible> {
        &self.receiver
    }
}
