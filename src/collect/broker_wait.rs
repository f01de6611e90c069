//! Waits for the broker at the start: `broker.wait`.

use std::time::{Duration, Instant};

use crate::broker::Pauses;
use crate::config::BrokerConfig;
use crate::deadline;
use crate::error::{BrokerFault, Error};

/// Opens the intake. Tries again while the broker is unreachable or silent, at most for `broker.wait`.
pub(super) fn retry_until_broker<T>(
    config: &BrokerConfig,
    keep_going: &dyn Fn() -> bool,
    mut open: impl FnMut() -> Result<T, Error>,
) -> Result<T, Error> {
    /// How often to call `keep_going`.
    const CHECK: Duration = Duration::from_millis(50);
    let began = Instant::now();
    let until = deadline::after(config.wait);
    let mut pauses = Pauses::up_to(config.retry);
    let mut is_logged = false;
    loop {
        let error = match open() {
            Err(error @ Error::Broker { fault: BrokerFault::Unreachable | BrokerFault::Silent, .. }) => error,
            opened => return opened,
        };
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(error);
        }
        if !std::mem::replace(&mut is_logged, true) {
            let wait = config.wait;
            log::warn!(
                event = "broker.awaited", error:% = error, at_most_seconds = wait.as_secs_f64();
                "{error}; waiting for it, at most {wait:?} (broker.wait)"
            );
        }
        let next = Instant::now() + pauses.next(began.elapsed()).max(CHECK).min(left);
        while Instant::now() < next {
            if !keep_going() {
                return Err(error);
            }
            std::thread::sleep(CHECK);
        }
    }
}
