//! Stops the client's reading thread while there is no room, so that the server feels it.
//!
//! The client reads without pause into channels without bound; not taking anything out of them stops nothing. But it calls
//! our error callback on its reading thread when a subscription is over its limit, and reads on only when that returns. So
//! one more subscription, with a limit of 0, gets *markers*: messages that mean nothing. At each the callback looks whether
//! there is room, and stays until there is.
//!
//! A marker only works where it stands in what the server sends: what is before it is still read. So markers are sent all the
//! time while events come, and on while the brake is on, for what piles up in the server then must be full of them. They
//! come by a second connection, the *pacer*: with the brake on, the first one's locks are held and nothing can be published
//! there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::room::Room;
use crate::pipeline::{Counters, Signal};

/// What the client says when a subscription is over its limit, before the subscription's subject.
const OVER_LIMIT: &str = "slow consumer detected for subscription on subject ";

/// How often the brake looks whether there is room.
const LOOK: Duration = Duration::from_millis(5);

/// The most remarks of the server that are kept for whoever asks.
const REMARKS: usize = 16;

/// One connection's ear and brake. Called on the client's reading thread, with its locks held: touches nothing of the client.
pub(super) struct Brake {
    room: Arc<Room>,
    counters: Arc<Counters>,
    /// Inboxes of ours begin with this. No event is ever expected there.
    inboxes: String,
    released: Signal,
    on: AtomicBool,
    markers: AtomicU64,
    longest: Mutex<Duration>,
    remarks: Mutex<Vec<String>>,
    count: AtomicU64,
}

impl Brake {
    pub(super) fn new(room: &Arc<Room>, counters: &Arc<Counters>, inboxes: String) -> Self {
        Self {
            room: Arc::clone(room),
            counters: Arc::clone(counters),
            inboxes,
            released: Signal::default(),
            on: AtomicBool::new(false),
            markers: AtomicU64::new(0),
            longest: Mutex::default(),
            remarks: Mutex::default(),
            count: AtomicU64::new(0),
        }
    }

    /// What the subjects of our inboxes begin with.
    pub(super) fn inboxes(&self) -> &str {
        &self.inboxes
    }

    /// What the client says beside messages: a marker, a message that it dropped, or a word of the server.
    pub(super) fn hear(&self, remark: &str) {
        match remark.strip_prefix(OVER_LIMIT) {
            Some(subject) if subject.starts_with(&self.inboxes) => {
                self.markers.fetch_add(1, Ordering::Relaxed);
                self.hold();
            }
            // The last resort: our own thread did not get to take messages out of the client for so long.
            Some(_) => self.counters.dropped.add(1),
            None => {
                let ours = remark.contains(&self.inboxes);
                log::log!(if ours { log::Level::Debug } else { log::Level::Warn }, "broker: the server says: {remark}");
                let mut remarks = self.remarks.lock();
                if remarks.len() < REMARKS {
                    remarks.push(remark.to_owned());
                }
                self.count.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn hold(&self) {
        if !self.room.is_past_half() {
            return;
        }
        let began = Instant::now();
        self.on.store(true, Ordering::Relaxed);
        log::debug!("broker: reading is held up until there is room");
        while self.room.is_past_half() && !self.released.wait(LOOK) {}
        self.on.store(false, Ordering::Relaxed);
        let held = began.elapsed();
        log::debug!("broker: reading goes on after {held:.1?}");
        let mut longest = self.longest.lock();
        *longest = held.max(*longest);
    }

    /// Never to brake again. Comes before any call of the client that somebody waits for.
    pub(super) fn release(&self) {
        self.released.raise();
    }

    /// Whether reading is stopped now.
    pub(super) fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// Markers that have come.
    pub(super) fn markers(&self) -> u64 {
        self.markers.load(Ordering::Relaxed)
    }

    /// How long reading was stopped at most.
    pub(super) fn longest(&self) -> Duration {
        *self.longest.lock()
    }

    /// How often the server has said something.
    pub(super) fn remarks(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// The first remark of the server that has these words in it.
    pub(super) fn remark_on(&self, words: &str) -> Option<String> {
        self.remarks.lock().iter().find(|remark| remark.to_lowercase().contains(words)).cloned()
    }
}
