//! How far the forwarder is, for threads that wait for it.

use std::time::Instant;

use parking_lot::{Condvar, Mutex};

/// How far the events are forwarded, in this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::record) struct ForwardProgress {
    /// Events that the stream has stored.
    pub(in crate::record) forwarded: u64,
    /// Events that were given up.
    pub(in crate::record) given_up: u64,
    /// All events up to this position are in the stream, given up or dropped.
    pub(in crate::record) done_through: u64,
    /// The last look found no further events, and all are done and marked in the file.
    pub(in crate::record) is_idle: bool,
    /// When the oldest event that waits was recorded, in microseconds since 1970.
    pub(in crate::record) oldest_us: Option<i64>,
}

#[derive(Debug, Default)]
pub(super) struct ProgressCell {
    now: Mutex<ForwardProgress>,
    changed: Condvar,
}

impl ProgressCell {
    pub(super) fn set(&self, progress: ForwardProgress) {
        let mut now = self.now.lock();
        if *now != progress {
            *now = progress;
            drop(now);
            self.changed.notify_all();
        }
    }

    pub(super) fn now(&self) -> ForwardProgress {
        *self.now.lock()
    }

    /// Blocks until the progress is as wanted, until then at the latest. Returns whether it is.
    pub(super) fn wait(&self, until: Instant, is_wanted: impl Fn(&ForwardProgress) -> bool) -> bool {
        let mut now = self.now.lock();
        while !is_wanted(&now) {
            if self.changed.wait_until(&mut now, until).timed_out() {
                return is_wanted(&now);
            }
        }
        true
    }
}
