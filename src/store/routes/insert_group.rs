//! Events of a batch that follow each other and that one multi-row INSERT may take.

use super::multi_row::ROWS;
use super::plan::StatementId;

/// The events that wait until there are enough of them, or until one comes that the same INSERT does not take.
#[derive(Debug, Default)]
pub(in crate::store) struct InsertGroup {
    insert: Option<StatementId>,
    events: Vec<usize>,
}

impl InsertGroup {
    /// Whether events of this INSERT may follow before the group is run.
    pub(in crate::store) fn takes(&self, insert: Option<StatementId>) -> bool {
        self.events.is_empty() || (self.insert == insert && self.events.len() < ROWS)
    }

    /// Adds the event at this index of the batch. The group must take its INSERT.
    pub(in crate::store) fn push(&mut self, insert: StatementId, index: usize) {
        self.insert = Some(insert);
        self.events.push(index);
    }

    /// The events, which are to be run by the INSERT if one is given, and singly otherwise. The group is empty then.
    pub(in crate::store) fn take(&mut self) -> (Option<StatementId>, impl ExactSizeIterator<Item = usize> + '_) {
        let insert = self.insert.take().filter(|_| self.events.len() == ROWS);
        (insert, self.events.drain(..))
    }
}
