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

/// The longest wait for a collector that has opened the database, and for one that has not.
const OPENED: Duration = Duration::from_secs(1);
const OPENING: Duration = Duration::from_secs(5);

/// How often to look.
const PAUSE: Duration = Duration::from_millis(5);

/// Waits until the collector of the configured database has committed the event: at most a second, and 5 seconds while that collector
/// opens the database. Returns at once if `keep_going` returns `false`, if no collector uses this database, or if it does not collect this
/// subject of this stream, or only one partition of it. That the wait is over says nothing: the collector may need longer.
pub fn wait(config: &Config, subject: &str, destination: Option<&Destination>, keep_going: &dyn Fn() -> bool) {
    let Some(Destination::Stream { stream, sequence: Some(sequence), .. }) = destination else { return };
    let filters = config.broker.filters();
    let is_collected =
        filters.iter().any(|filter| filter.parse::<Filter>().is_ok_and(|filter| filter.matches(subject)));
    let is_divided = config.broker.partition.is_some();
    if is_divided || config.broker.mode != Mode::Jetstream || *stream != config.broker.stream || !is_collected {
        return;
    }
    let path = &config.database.path;
    let (began, mut opened) = (Instant::now(), None);
    let mut reader = None;
    while keep_going()
        && let Some(phase) = Lock::phase(path)
    {
        // A collector that connects may wait for its broker for long.
        let is_over = if matches!(phase, StartPhase::Connecting | StartPhase::Running) {
            opened.get_or_insert_with(Instant::now).elapsed() >= OPENED
        } else {
            began.elapsed() >= OPENING
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
