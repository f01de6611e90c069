//! CPU while everything is connected and no event comes.

use std::time::{Duration, Instant};

use super::context::RunContext;
use super::meter::Meters;
use super::{CompareError, Idle};

/// By then the work of starting is over.
const SETTLE_TIME: Duration = Duration::from_millis(200);

/// What the processes use while nothing happens.
pub(super) fn measure(context: &RunContext<'_>, meters: &Meters, duration: Duration) -> Result<Idle, CompareError> {
    wait(context, SETTLE_TIME)?;
    let (before, began) = (meters.read(), Instant::now());
    wait(context, duration)?;
    Ok(Idle { seconds: began.elapsed().as_secs_f64(), cpu_s: meters.cpu_since(&before) })
}

fn wait(context: &RunContext<'_>, duration: Duration) -> Result<(), CompareError> {
    let until = Instant::now() + duration;
    while Instant::now() < until {
        context.check_stop()?;
        std::thread::sleep(Duration::from_millis(50).min(until.saturating_duration_since(Instant::now())));
    }
    Ok(())
}
