//! The last troubles of a part, also those that are over.

use std::collections::VecDeque;
use std::time::{Duration, Instant, SystemTime};

/// How many are kept.
const KEPT: usize = 16;

/// Something that was wrong with a part.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Incident {
    /// The part: `broker`, `intake`, `database`, `service`, `spool` or `spool file`, or a job of the upkeep: `retention`.
    pub part: &'static str,
    /// Why it did not work: one line.
    pub reason: String,
    /// When this reason was first noticed.
    pub at: SystemTime,
    /// How long it lasted, until the part worked again; `None` while it does not.
    pub lasted: Option<Duration>,
}

/// The last incidents of a part, the latest last.
#[derive(Debug, Default)]
pub(super) struct Incidents(VecDeque<(Instant, Incident)>);

impl Incidents {
    /// A new reason.
    pub(super) fn add(&mut self, part: &'static str, reason: &str) {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        let incident = Incident { part, reason: reason.to_owned(), at: SystemTime::now(), lasted: None };
        self.0.push_back((Instant::now(), incident));
    }

    /// The part works again.
    pub(super) fn end(&mut self) {
        for (began, incident) in &mut self.0 {
            incident.lasted.get_or_insert_with(|| began.elapsed());
        }
    }

    pub(super) fn all(&self) -> Vec<Incident> {
        self.0.iter().map(|(_, incident)| incident.clone()).collect()
    }
}
