//! Waits until the collector of this database has committed what was just published, so that the next command reads it.
//!
//! A stream acknowledges an event some milliseconds before its collector has committed it. Without the wait, a `sql` right after a
//! `publish` would sometimes miss the event.

use std::thread;
use std::time::{Duration, Instant};

use crate::Config;
use crate::config::Mode;
use crate::record::Destination;
use crate::store::{Lock, Reader, StartPhase};
use crate::subject::Filter;

/// The longest wait for a collector that runs, and for one that is starting.
const RUNNING: Duration = Duration::from_secs(1);
const STARTING: Duration = Duration::from_secs(5);

/// How often to look.
const PAUSE: Duration = Duration::from_millis(5);

/// Waits until the collector of the configured database has committed the event: at most a second, and 5 seconds while that collector is
/// starting. Returns at once if no collector uses this database, or if it does not collect this subject of this stream. That the wait is
/// over says nothing: the collector may need longer.
pub fn wait(config: &Config, subject: &str, destination: Option<&Destination>) {
    let Some(Destination::Stream { stream, sequence, .. }) = destination else { return };
    let filters = config.broker.subjects.iter().filter_map(|filter| filter.parse::<Filter>().ok());
    let is_collected = filters.into_iter().any(|filter| filter.matches(subject));
    if config.broker.mode != Mode::Jetstream || *stream != config.broker.stream || !is_collected {
        return;
    }
    let path = &config.database.path;
    let (began, mut running_since) = (Instant::now(), None);
    let mut reader = None;
    while let Some(phase) = Lock::phase(path) {
        let is_over = if phase == StartPhase::Running {
            running_since.get_or_insert_with(Instant::now).elapsed() >= RUNNING
        } else {
            began.elapsed() >= STARTING
        };
        if phase != StartPhase::Opening && reader.is_none() {
            reader = Reader::open(path).ok();
        }
        let position = reader.as_ref().and_then(|reader| reader.position(stream).ok());
        if is_over || position.flatten().is_some_and(|position| position >= *sequence) {
            return;
        }
        thread::sleep(PAUSE);
    }
}
