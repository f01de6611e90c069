//! One clock for all processes of a comparison.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Nanoseconds since the machine started, the same in every process.
pub(super) fn now() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |time| Duration::from(time).as_nanos() as u64)
}

/// Sleeps until then; returns `false` if that time has passed already.
pub(super) fn sleep_until(due: u64) -> bool {
    let now = now();
    if due > now {
        std::thread::sleep(Duration::from_nanos(due - now));
    }
    due > now
}

/// Seconds from one time to another; 0 if `to` is earlier.
pub(super) fn seconds(from: u64, to: u64) -> f64 {
    to.saturating_sub(from) as f64 / 1e9
}
