//! Which subjects are collected: `broker.subjects`, and what is collected where that is not set.

use super::broker::{BrokerConfig, DEFAULT_STREAM};
use super::core_nats::Mode;
use crate::subject::Filter;

/// The subjects of the default stream, and those that mode `core` subscribes to by default.
const DEFAULT_SUBJECT: &str = "events.>";

/// A subject of `broker.subjects` that another one includes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RedundantSubject {
    subject: String,
    covered_by: String,
}

impl std::fmt::Display for RedundantSubject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { subject, covered_by } = self;
        if subject == covered_by {
            return write!(f, "broker.subjects has {subject} twice, which is the same as once");
        }
        write!(f, "broker.subjects has {subject} and {covered_by}; the second includes the first")
    }
}

impl BrokerConfig {
    /// Filters for the events that are collected, each once, and none that another one includes. Without `subjects` the filter is
    /// `>`: everything that the stream stores.
    pub(crate) fn filters(&self) -> Vec<String> {
        if self.subjects.is_empty() {
            return vec![if self.mode == Mode::Core { DEFAULT_SUBJECT } else { ">" }.into()];
        }
        self.fold().0
    }

    /// The subjects that [`BrokerConfig::filters`] leaves out.
    pub(crate) fn redundant_subjects(&self) -> Vec<RedundantSubject> {
        self.fold().1
    }

    /// Whether everything is collected that the stream stores, because no subjects are set.
    pub(crate) fn takes_all_of_stream(&self) -> bool {
        self.subjects.is_empty() && self.mode == Mode::Jetstream
    }

    /// The subjects of the stream if it has to be created; `None` if the settings do not say.
    pub(crate) fn subjects_of_new_stream(&self) -> Option<Vec<String>> {
        match (self.subjects.is_empty(), self.stream == DEFAULT_STREAM) {
            (false, _) => Some(self.filters()),
            (true, true) => Some(vec![DEFAULT_SUBJECT.into()]),
            (true, false) => None,
        }
    }

    fn fold(&self) -> (Vec<String>, Vec<RedundantSubject>) {
        let all: Vec<(&String, Option<Filter>)> =
            self.subjects.iter().map(|subject| (subject, subject.parse().ok())).collect();
        let (mut kept, mut redundant) = (Vec::new(), Vec::new());
        for (at, (subject, filter)) in all.iter().enumerate() {
            let covers = |(other_at, (other, wide)): &(usize, &(&String, Option<Filter>))| match (wide, filter) {
                _ if other == subject => *other_at < at,
                (Some(wide), Some(filter)) => wide.covers(filter),
                _ => false,
            };
            match all.iter().enumerate().find(covers) {
                None => kept.push((*subject).clone()),
                Some((_, (wide, _))) => {
                    redundant.push(RedundantSubject { subject: (*subject).clone(), covered_by: (*wide).clone() });
                }
            }
        }
        (kept, redundant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broker(subjects: &[&str]) -> BrokerConfig {
        let subjects = subjects.iter().map(|&subject| subject.to_owned()).collect();
        BrokerConfig { subjects, ..BrokerConfig::default() }
    }

    #[test]
    fn a_subject_that_another_includes_is_left_out_and_named() {
        let folded = |subjects: &[&str]| {
            let broker = broker(subjects);
            let redundant: Vec<String> = broker.redundant_subjects().iter().map(ToString::to_string).collect();
            (broker.filters(), redundant)
        };
        let (kept, said) = folded(&["s.a.b", "t", "s.>", "t"]);
        assert_eq!(kept, ["t", "s.>"]);
        assert_eq!(said[0], "broker.subjects has s.a.b and s.>; the second includes the first");
        assert_eq!(said[1], "broker.subjects has t twice, which is the same as once");
        let (kept, said) = folded(&["a.*", "*.a", "b"]);
        assert_eq!((kept, said.len()), (vec!["a.*".to_owned(), "*.a".to_owned(), "b".to_owned()], 0));
    }

    #[test]
    fn without_subjects_all_of_the_stream_is_collected() {
        let mut unset = broker(&[]);
        assert!(unset.takes_all_of_stream() && !broker(&["a"]).takes_all_of_stream());
        assert_eq!(unset.filters(), [">"]);
        assert_eq!(unset.subjects_of_new_stream(), Some(vec!["events.>".to_owned()]));
        unset.stream = "BOT".into();
        assert_eq!(unset.subjects_of_new_stream(), None);
        unset.mode = Mode::Core;
        assert_eq!((unset.filters(), unset.takes_all_of_stream()), (vec!["events.>".to_owned()], false));
        let set = BrokerConfig { stream: "BOT".into(), ..broker(&["bot.>", "bot.a"]) };
        assert_eq!(set.subjects_of_new_stream(), Some(vec!["bot.>".to_owned()]));
    }
}
