//! A switch that is set once and wakes all threads that wait for it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError};
use parking_lot::Mutex;

/// A switch that is set once. Clones share it.
#[derive(Clone, Debug)]
pub struct Signal {
    /// Dropping the only sender wakes the receivers: unlike a message, the end of the channel reaches all of them.
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
    /// Sets the switch. Further calls do nothing.
    pub fn raise(&self) {
        self.sender.lock().take();
    }

    /// Whether it is set.
    #[must_use]
    pub fn is_raised(&self) -> bool {
        matches!(self.receiver.try_recv(), Err(TryRecvError::Disconnected))
    }

    /// Blocks until it is set, at most this long. Returns whether it is set.
    #[must_use]
    pub fn wait(&self, at_most: Duration) -> bool {
        matches!(self.receiver.recv_timeout(at_most), Err(RecvTimeoutError::Disconnected))
    }

    /// For `crossbeam_channel::select!`: becomes ready when the switch is set.
    #[must_use]
    pub fn channel(&self) -> &Receiver<Infallible> {
        &self.receiver
    }
}
