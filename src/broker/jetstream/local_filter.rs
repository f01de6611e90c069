//! Which events of a consumer without filters are to be collected.
//!
//! Where the configured subjects are all that the stream has, the consumer has no filters: then a step in the sequences is a
//! message that is gone. But what was published before the stream had the subjects it has now comes too, and is passed over here.

use super::api_types::ConsumerInfo;
use crate::config::BrokerConfig;
use crate::subject::Filter;

/// Selects by subject.
pub(super) struct LocalFilter {
    filters: Vec<Filter>,
    /// The last subject that was taken: most events have the one of the event before.
    last: String,
}

impl LocalFilter {
    /// What has to be selected of what this consumer sends; `None` where that is all of it.
    pub(super) fn for_consumer(consumer: &ConsumerInfo, config: &BrokerConfig) -> Option<Self> {
        let is_filtered = consumer.config.filter_subject.is_some() || consumer.config.filter_subjects.is_some();
        if is_filtered || config.subjects.iter().any(|subject| subject == ">") {
            return None;
        }
        let filters = config.subjects.iter().filter_map(|subject| subject.parse().ok()).collect();
        Some(Self { filters, last: String::new() })
    }

    /// Whether an event of this subject is to be collected.
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
