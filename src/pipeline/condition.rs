//! Whether a part of the collector works. Changes are logged once.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use crate::printable;

/// Whether a part works. Clones share it.
#[derive(Clone, Debug)]
pub struct Condition {
    part: &'static str,
    trouble: Arc<Mutex<Option<Trouble>>>,
}

/// Why a part does not work, and since when.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Trouble {
    /// The part: `broker`, `intake`, `database` or `service`.
    pub part: &'static str,
    /// Why it does not work: one line.
    pub reason: String,
    /// Since when.
    pub since: Instant,
}

impl Condition {
    /// A part that works.
    #[must_use]
    pub fn new(part: &'static str) -> Self {
        Self { part, trouble: Arc::default() }
    }

    /// Notes that the part does not work. Logs the reason if it is new, on one line.
    pub fn degrade(&self, reason: impl Into<String>) {
        let reason = printable(&reason.into()).into_owned();
        let mut trouble = self.trouble.lock();
        match trouble.as_mut() {
            Some(known) if known.reason == reason => {}
            Some(known) => {
                log::warn!("{}: {reason}", self.part);
                known.reason = reason;
            }
            None => {
                log::warn!("{}: {reason}", self.part);
                *trouble = Some(Trouble { part: self.part, reason, since: Instant::now() });
            }
        }
    }

    /// Notes that the part works. Logs it if it did not work before.
    pub fn recover(&self) {
        if let Some(trouble) = self.trouble.lock().take() {
            log::info!("{}: well again after {:.1?}", self.part, trouble.since.elapsed());
        }
    }

    /// What is wrong now, if anything. Does not block.
    #[must_use]
    pub fn trouble(&self) -> Option<Trouble> {
        self.trouble.lock().clone()
    }
}

/// Whether all parts work.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Health {
    /// One entry for each part that does not work; empty when all parts work.
    pub troubles: Vec<Trouble>,
}

impl Health {
    /// The health of the parts with these conditions.
    pub(crate) fn of<'c>(conditions: impl IntoIterator<Item = &'c Condition>) -> Self {
        Self { troubles: conditions.into_iter().filter_map(Condition::trouble).collect() }
    }

    /// Whether all parts work.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.troubles.is_empty()
    }
}
