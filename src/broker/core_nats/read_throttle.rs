//! Stops the client's reading thread while the receive buffer is half full, so that the server has to wait.
//!
//! The client reads without pause into channels without bound, so taking nothing out of them stops nothing. But it calls our error
//! callback on its reading thread when a subscription is over its limit, and reads on only when the callback returns. So one more
//! subscription, with a limit of 0, gets *markers*: empty messages. At each marker the callback checks the receive buffer, and blocks
//! while it is more than half full.
//!
//! A marker works only at its position in the server's data: what is before it is still read. So markers are sent all the time while
//! events come, and also while the throttle is on: what the server queues then must contain many of them. A second connection
//! publishes them, because with the throttle on the first connection's locks are held and it cannot publish.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::receive_buffer::ReceiveBuffer;
use crate::broker::connection::{ErrorListener, ServerRemark};
use crate::pipeline::{Counters, Signal};

/// How often the throttle checks whether there is room.
const LOOK: Duration = Duration::from_millis(5);

/// The error listener of one connection, which also throttles reading.
pub(super) struct ReadThrottle {
    buffer: Arc<ReceiveBuffer>,
    counters: Arc<Counters>,
    /// The prefix of our inboxes. No event ever comes there.
    inboxes: String,
    released: Signal,
    on: AtomicBool,
    markers: AtomicU64,
    longest: Mutex<Duration>,
    /// The server's remark on the first subscription that it refused.
    refusal: Mutex<Option<String>>,
    remarks: AtomicU64,
}

impl ReadThrottle {
    pub(super) fn new(buffer: &Arc<ReceiveBuffer>, counters: &Arc<Counters>, inboxes: String) -> Self {
        Self {
            buffer: Arc::clone(buffer),
            counters: Arc::clone(counters),
            inboxes,
            released: Signal::default(),
            on: AtomicBool::new(false),
            markers: AtomicU64::new(0),
            longest: Mutex::default(),
            refusal: Mutex::default(),
            remarks: AtomicU64::new(0),
        }
    }

    /// The prefix of our inboxes.
    pub(super) fn inboxes(&self) -> &str {
        &self.inboxes
    }

    fn hold(&self) {
        if !self.buffer.is_past_half() {
            return;
        }
        let began = Instant::now();
        self.on.store(true, Ordering::Relaxed);
        log::debug!("broker: reading stops until there is room");
        while self.buffer.is_past_half() && !self.released.wait(LOOK) {}
        self.on.store(false, Ordering::Relaxed);
        let held = began.elapsed();
        log::debug!("broker: reading goes on after {held:.1?}");
        let mut longest = self.longest.lock();
        *longest = held.max(*longest);
    }

    /// Ends throttling for good. To be called before any call of the client that something waits for.
    pub(super) fn release(&self) {
        self.released.raise();
    }

    /// Whether reading is stopped now.
    pub(super) fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// How many markers have come.
    pub(super) fn markers(&self) -> u64 {
        self.markers.load(Ordering::Relaxed)
    }

    /// The longest time that reading was stopped.
    pub(super) fn longest(&self) -> Duration {
        *self.longest.lock()
    }

    /// How many remarks the server has sent.
    pub(super) fn remarks(&self) -> u64 {
        self.remarks.load(Ordering::Relaxed)
    }

    /// The server's remark on the first subscription that it refused.
    pub(super) fn refusal(&self) -> Option<String> {
        self.refusal.lock().clone()
    }
}

impl ErrorListener for ReadThrottle {
    fn remarked(&self, remark: &ServerRemark) {
        match remark {
            ServerRemark::SlowConsumer { subject, .. } if subject.starts_with(&self.inboxes) => {
                self.markers.fetch_add(1, Ordering::Relaxed);
                self.hold();
            }
            // The last resort: for too long our own thread did not run to take messages out of the client.
            ServerRemark::SlowConsumer { .. } => self.counters.dropped.add(1),
            _ => {
                let is_ours = remark.line().contains(&self.inboxes);
                let level = if is_ours { log::Level::Debug } else { log::Level::Warn };
                log::log!(level, event = "server.remark", remark:% = remark; "broker: the server reports: {remark}");
                if let ServerRemark::SubscribeDenied(line) = remark {
                    self.refusal.lock().get_or_insert_with(|| line.clone());
                }
                self.remarks.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}
