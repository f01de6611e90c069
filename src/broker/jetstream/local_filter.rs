//! Filters the events of a consumer that has no filters.
//!
//! If the configured subjects are all that the stream stores, the consumer has no filters: then a skipped sequence is a
//! lost event. But the stream may also have events from before its subjects were changed. These are skipped here.

use super::api_types::ConsumerInfo;
use crate::config::BrokerConfig;
use crate::subject::Filter;

/// Filters by subject.
pub(super) struct LocalFilter {
    filters: Vec<Filter>,
    /// The last subject that matched: most events have the subject of the event before.
    last: String,
}

impl LocalFilter {
    /// The filter for this consumer's events; `None` if all of them are collected.
    pub(super) fn for_consumer(consumer: &ConsumerInfo, config: &BrokerConfig) -> Option<Self> {
        let is_filtered = consumer.config.filter_subject.is_some() || consumer.config.filter_subjects.is_some();
        if is_filtered || config.subjects.iter().any(|subject| subject == ">") {
            return None;
        }
        let filters = config.subjects.iter().filter_map(|subject| subject.parse().ok()).collect();
        Some(Self { filters, last: String::new() })
    }

    /// Whether an event with this subject is collected.
    pub(super) fn matches(&mut self, subject: &str) -> bool {
        if subject == self.last {
            return true;
        }
        let takes = self.filters.iter().any(|filter| filter.matches(subject));
        if takes {
            subject.clone_into(&mut self.last);
        }
        takes
    }
}
