//! Filters events that the consumer delivers and that are not collected. There are two cases:
//!
//! - The configured subjects are all that the stream stores. Then the consumer has no filters, because then a skipped sequence
//!   is a lost event. But the stream may also have events from before its subjects were changed.
//! - Configured subjects overlap. A consumer cannot have such filters, so it has wider ones.

use super::api_types::ConsumerInfo;
use super::partition;
use crate::config::BrokerConfig;
use crate::subject::{Filter, without_overlaps};

/// The filters that a consumer can have and that match all configured subjects. No two of them overlap: the server refuses that.
pub(super) fn consumer_filters(config: &BrokerConfig) -> Vec<String> {
    without_overlaps(parse(&partition::stored_filters(config)))
        .iter()
        .map(|filter| filter.as_str().to_owned())
        .collect()
}

fn parse(subjects: &[String]) -> Vec<Filter> {
    subjects.iter().filter_map(|subject| subject.parse().ok()).collect()
}

/// Filters by subject, as the stream stores it.
pub(super) struct LocalFilter {
    filters: Vec<Filter>,
    /// The last subject that matched: most events have the subject of the event before.
    last: String,
}

impl LocalFilter {
    /// The filter for this consumer's events; `None` if all of them are collected.
    pub(super) fn for_consumer(consumer: &ConsumerInfo, config: &BrokerConfig) -> Option<Self> {
        let filters = partition::stored_filters(config);
        let of_consumer = consumer.config.filter_subject.iter().chain(consumer.config.filter_subjects.iter().flatten());
        let is_collected = |subject: &String| filters.contains(subject);
        let delivers_everything = of_consumer.clone().next().is_none();
        if is_collected(&">".to_owned()) || !delivers_everything && of_consumer.into_iter().all(is_collected) {
            return None;
        }
        Some(Self { filters: parse(&filters), last: String::new() })
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn filter(subjects: &[&str], of_consumer: &[&str]) -> Option<LocalFilter> {
        let subjects = subjects.iter().map(|&subject| subject.to_owned()).collect();
        let config = BrokerConfig { subjects, ..BrokerConfig::default() };
        let consumer = json!({
            "config": {
                "name": "c", "deliver_policy": "all", "ack_policy": "none", "replay_policy": "instant",
                "filter_subjects": of_consumer,
            },
            "num_pending": 0, "delivered": { "consumer_seq": 0, "stream_seq": 0 },
        });
        LocalFilter::for_consumer(&serde_json::from_value(consumer).expect("a consumer"), &config)
    }

    #[test]
    fn a_consumer_that_delivers_more_is_filtered() {
        assert!(filter(&["a.*", "b"], &["a.*", "b"]).is_none());
        assert!(filter(&["a.*", "a.x", "b"], &["b", "a.*"]).is_none());
        assert!(filter(&[], &[]).is_none() && filter(&["a", ">"], &[]).is_none());
        let mut overlapping = filter(&["a.*", "*.b"], &["*.*"]).expect("wider than wanted");
        assert_eq!(
            ["a.x", "x.b", "a.b", "x.y", "x.y"].map(|subject| overlapping.matches(subject)),
            [true, true, true, false, false]
        );
        assert!(filter(&["a.*"], &[]).is_some_and(|mut filter| !filter.matches("b.c")));
    }

    #[test]
    fn a_consumers_filters_do_not_overlap() {
        let filters = |subjects: &[&str]| {
            let subjects = subjects.iter().map(|&subject| subject.to_owned()).collect();
            consumer_filters(&BrokerConfig { subjects, ..BrokerConfig::default() })
        };
        assert_eq!(filters(&["s.a.*", "s.*.a", "t", "t"]), ["s.*.*", "t"]);
        assert_eq!(filters(&["s.>", "s.a.b"]), ["s.>"]);
        assert_eq!(filters(&[]), [">"]);
    }
}
