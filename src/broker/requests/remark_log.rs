//! What the server reports to a connection that answers requests.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use log::Level;
use parking_lot::Mutex;

use crate::broker::connection::{ErrorListener, ServerRemark};

/// The most refused subscriptions that are kept.
const MOST_REFUSALS: usize = 16;

/// Logs the server's remarks, and keeps those on subscriptions.
#[derive(Default)]
pub(super) struct RemarkLog {
    count: AtomicU64,
    refusals: Mutex<Vec<String>>,
    has_denied: AtomicBool,
    has_overrun: AtomicBool,
}

impl RemarkLog {
    /// How many remarks there were.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// The server's remark on the first subscription that this user may not make. Those for discovery do not count: requests are
    /// answered without them.
    pub(super) fn refusal(&self) -> Option<String> {
        self.refusals.lock().iter().find(|remark| !remark.contains("\"$SRV.")).cloned()
    }
}

impl ErrorListener for RemarkLog {
    fn remarked(&self, remark: &ServerRemark) {
        self.count.fetch_add(1, Ordering::Relaxed);
        match remark {
            // For too long our own thread did not run to take requests out of the client.
            ServerRemark::SlowConsumer { .. } => {
                if !self.has_overrun.swap(true, Ordering::Relaxed) {
                    log::warn!(
                        event = "requests.overrun";
                        "service: too many requests came at once; some were dropped and get no reply"
                    );
                }
            }
            ServerRemark::PublishDenied(_) => {
                // The client chooses the subject of the reply, so only the first denial is a warning.
                let was_logged = self.has_denied.swap(true, Ordering::Relaxed);
                let level = if was_logged { Level::Debug } else { Level::Warn };
                log::log!(
                    level, event = "reply.denied", remark:% = remark;
                    "service: a reply cannot be sent: {remark}; allow this user to publish replies"
                );
            }
            ServerRemark::SubscribeDenied(line) => {
                let mut refusals = self.refusals.lock();
                if refusals.len() < MOST_REFUSALS && !refusals.contains(line) {
                    log::warn!(event = "server.remark", remark:% = line; "service: the server reports: {line}");
                    refusals.push(line.clone());
                }
            }
            ServerRemark::Other(line) => {
                log::warn!(event = "server.remark", remark:% = line; "service: the server reports: {line}");
            }
        }
    }
}
