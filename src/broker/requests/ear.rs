//! What the server says beside messages, to a connection that answers.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::broker::publisher::denied;

/// The most refusals that are kept for whoever looks.
const REFUSALS: usize = 16;

/// Called on the client's reading thread, with its locks held: touches nothing of the client.
#[derive(Default)]
pub(super) struct Ear {
    count: AtomicU64,
    refusals: Mutex<Vec<String>>,
    has_denied: AtomicBool,
    has_overrun: AtomicBool,
}

impl Ear {
    pub(super) fn hear(&self, remark: &str) {
        self.count.fetch_add(1, Ordering::Relaxed);
        if remark.starts_with("slow consumer detected") {
            // Our own thread did not get to take requests out of the client for so long.
            if !self.has_overrun.swap(true, Ordering::Relaxed) {
                log::warn!("service: more requests came at once than could be looked at; some have no answer");
            }
        } else if denied(remark).is_some() {
            // Whoever asks chooses the subject of the reply, so this is not worth a line each.
            let level =
                if self.has_denied.swap(true, Ordering::Relaxed) { log::Level::Debug } else { log::Level::Warn };
            log::log!(level, "service: a reply cannot be sent: {remark}; allow this user to publish replies");
        } else if remark.to_lowercase().contains("violation for subscription") {
            let mut refusals = self.refusals.lock();
            if refusals.len() < REFUSALS && !refusals.iter().any(|known| known == remark) {
                log::warn!("service: the server says: {remark}");
                refusals.push(remark.to_owned());
            }
        } else {
            log::warn!("service: the server says: {remark}");
        }
    }

    /// How often the server has said something.
    pub(super) fn remarks(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// What the server said of subjects that this user may not subscribe to, those of discovery not counted: without them
    /// requests are answered all the same.
    pub(super) fn refusal(&self) -> Option<String> {
        self.refusals.lock().iter().find(|remark| !remark.contains("\"$SRV.")).cloned()
    }
}
