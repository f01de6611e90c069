//! Deadlines from patiences of any length.

use std::time::{Duration, Instant};

/// What somebody who waits for ever is given: longer than any process lives.
const FOR_EVER: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// When `patience` is over, from now. The clock has an end, which `Duration::MAX` lies behind.
pub(crate) fn after(patience: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(patience).unwrap_or(now + FOR_EVER)
}
