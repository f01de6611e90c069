//! Deadlines from durations of any length.

use std::time::{Duration, Instant};

/// The duration used where the clock cannot represent the deadline: longer than any process runs.
const FOR_EVER: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// The time at which `patience` is over, from now. `Duration::MAX` from now is more than the clock can represent.
pub(crate) fn after(patience: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(patience).unwrap_or(now + FOR_EVER)
}
