//! Everything connected and nothing to do.

use std::time::{Duration, Instant};

use super::driver::Session;
use super::meter::Meters;
use super::{Failure, Idle};

/// What starting leaves behind is over by then.
const SETTLES: Duration = Duration::from_millis(200);

/// What the processes use while nothing happens.
pub(super) fn look(session: &Session<'_>, meters: &Meters, duration: Duration) -> Result<Idle, Failure> {
    wait(session, SETTLES)?;
    let (before, began) = (meters.read(), Instant::now());
    wait(session, duration)?;
    Ok(Idle { seconds: began.elapsed().as_secs_f64(), cpu_s: meters.cpu_since(&before) })
}

fn wait(session: &Session<'_>, duration: Duration) -> Result<(), Failure> {
    let until = Instant::now() + duration;
    while Instant::now() < until {
        session.go_on()?;
        std::thread::sleep(Duration::from_millis(50).min(until.saturating_duration_since(Instant::now())));
    }
    Ok(())
}
