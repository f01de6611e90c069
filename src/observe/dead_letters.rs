//! The dead letters that are stored, read again when there may be others.

use std::path::Path;
use std::time::{Duration, Instant};

use super::snapshot::{DeadLetterLine, DeadLetters};
use super::time::shown_us;
use crate::printable;
use crate::store::Observation;

/// How many of the last ones are shown.
const SHOWN: u32 = 10;

/// How often they are read at the most: while new ones come, and otherwise, for `dead-letters retry` and `drop` remove some.
const WHILE_NEW: Duration = Duration::from_secs(2);
const OTHERWISE: Duration = Duration::from_secs(30);

/// What was last read of the database.
#[derive(Debug, Default)]
pub(super) struct Watch {
    pub(super) found: Option<Observation>,
    read: Option<Instant>,
    /// How many the collector had stored then.
    counted: u64,
}

impl Watch {
    /// Reads the database if that is due. `counted` is how many dead letters the collector has stored since its start.
    pub(super) fn look(&mut self, now: Instant, path: &Path, counted: u64) {
        let pause = if counted == self.counted { OTHERWISE } else { WHILE_NEW };
        if self.read.is_some_and(|read| now.saturating_duration_since(read) < pause) {
            return;
        }
        self.read = Some(now);
        self.counted = counted;
        self.found = match Observation::make(path, SHOWN) {
            Ok(found) => Some(found),
            Err(error) => {
                log::debug!("observe: the dead letters cannot be read: {error}");
                None
            }
        };
    }

    pub(super) fn letters(&self) -> DeadLetters {
        let Some(found) = &self.found else { return DeadLetters::default() };
        let last = found.last.iter().map(|letter| DeadLetterLine {
            id: letter.id,
            at: shown_us(letter.recorded_us),
            subject: printable(&letter.subject).into_owned(),
            sequence: letter.sequence,
            route: letter.route.as_deref().map(|route| printable(route).into_owned()),
            error: printable(&letter.error).into_owned(),
        });
        DeadLetters { stored: Some(found.dead_letters), last: last.collect() }
    }
}
