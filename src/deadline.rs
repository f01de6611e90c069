//! Deadlines from durations of any length.

use std::time::{Duration, Instant};

/// The duration used where the clock cannot represent the deadline: longer than any process runs.
const FOR_EVER: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// The time at which `timeout` is over, from now. `Duration::MAX` from now is more than the clock can represent.
pub(crate) fn after(timeout: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(timeout).unwrap_or(now + FOR_EVER)
}
