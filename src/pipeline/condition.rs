//! How a part of the collector is doing, said once when it changes.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use crate::printable;

/// How a part is doing. Clones share it.
#[derive(Clone, Debug)]
pub struct Condition {
    part: &'static str,
    trouble: Arc<Mutex<Option<Trouble>>>,
}

/// Why a part does not do its work, and since when.
#[derive(Clone, Debug)]
pub struct Trouble {
    /// The part: `broker`, `database`.
    pub part: &'static str,
    /// One line.
    pub reason: String,
    /// When it began.
    pub since: Instant,
}

impl Condition {
    /// A part that does its work.
    #[must_use]
    pub fn new(part: &'static str) -> Self {
        Self { part, trouble: Arc::default() }
    }

    /// Says that the part does not do its work now. Logged when the reason is new, on one line whatever is in it.
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

    /// Says that the part does its work again. Logged when it had not.
    pub fn recover(&self) {
        if let Some(trouble) = self.trouble.lock().take() {
            log::info!("{}: well again after {:.1?}", self.part, trouble.since.elapsed());
        }
    }

    /// What is wrong now, if anything.
    #[must_use]
    pub fn trouble(&self) -> Option<Trouble> {
        self.trouble.lock().clone()
    }
}

/// How all parts are doing.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// What is wrong now, a part each; empty when all is well.
    pub troubles: Vec<Trouble>,
}

impl Health {
    /// The health that these conditions make up.
    pub fn of<'c>(conditions: impl IntoIterator<Item = &'c Condition>) -> Self {
        Self { troubles: conditions.into_iter().filter_map(Condition::trouble).collect() }
    }

    /// Whether every part does its work.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.troubles.is_empty()
    }
}
