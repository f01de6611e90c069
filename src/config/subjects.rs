//! Which subjects are collected: `broker.subjects`, and what is collected where that is not set.

use super::broker::{BrokerConfig, DEFAULT_STREAM};
use super::core_nats::Mode;
use crate::error::Error;
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

/// Subjects on which a collector itself sends or receives.
#[derive(Clone, Debug, PartialEq, Eq)]
struct OwnSubjects {
    filter: Filter,
    what: &'static str,
    /// They are answers, deliveries included.
    is_inbox: bool,
}

impl std::fmt::Display for OwnSubjects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.what, self.filter.as_str())
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

    /// The first of these filters through which a collector of a stream would receive its own requests and their answers, and those
    /// filters that it then includes. Each of them that is stored brings more.
    fn own_traffic<'a>(&self, filters: impl IntoIterator<Item = &'a str>) -> Option<(&'a str, OwnSubjects)> {
        if self.mode == Mode::Core {
            // There it makes no requests, and it leaves out its own inbox.
            return None;
        }
        let own = self.own_subjects();
        filters.into_iter().find_map(|text| {
            let filter = text.parse::<Filter>().ok()?;
            let own = own.iter().find(|own| own.filter.overlaps(&filter))?;
            Some((text, own.clone()))
        })
    }

    /// What a collector of a stream sends and receives there.
    fn own_subjects(&self) -> Vec<OwnSubjects> {
        let own = |text: String, what| text.parse().ok().map(|filter| OwnSubjects { filter, what, is_inbox: false });
        let inbox = self.inbox_prefix.as_deref().unwrap_or("_INBOX");
        let all = [
            own(format!("{inbox}.*.>"), "the answers that the collector receives")
                .map(|own| OwnSubjects { is_inbox: true, ..own }),
            own(format!("{}.>", self.api_prefix()), "the collector's own requests to JetStream"),
            own("$JS.API.>".into(), "the collector's own requests to JetStream"),
            own("$JS.ACK.>".into(), "the collector's own acknowledgements"),
        ];
        all.into_iter().flatten().collect()
    }

    /// Refuses subjects that name what the collector itself sends or receives. Subjects that begin with a wildcard are accepted: which of
    /// their events there are depends on the stream.
    pub(super) fn refuse_own_subjects(&self) -> Result<(), Error> {
        let named = self.subjects.iter().map(String::as_str).filter(|subject| !subject.starts_with(['*', '>']));
        let Some((subject, own)) = self.own_traffic(named) else { return Ok(()) };
        let detail = format!("{subject:?} includes {own}; each that is stored would bring more");
        let inbox = if own.is_inbox { ", or set another broker.inbox_prefix" } else { "" };
        Err(Error::config("broker.subjects", detail).with_remedy(format!("leave it out{inbox}")))
    }

    /// Why these settings cannot collect a stream that takes these subjects, if it would store the collector's own requests and answers.
    ///
    /// A stream that takes the collector's inbox stores each delivery once more, under the event's own subject. No filter prevents that.
    pub(crate) fn feeds_itself(&self, of_stream: &[String]) -> Option<String> {
        let (subject, own) = self.own_traffic(of_stream.iter().map(String::as_str))?;
        if !own.is_inbox {
            let filters = self.filters();
            self.own_traffic(filters.iter().map(String::as_str))?;
        }
        Some(format!(
            "stream {} takes {subject}, which includes {own}; each that is stored would bring more",
            self.stream
        ))
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
    fn what_the_collector_itself_sends_and_receives_is_refused() {
        let refused = |broker: &BrokerConfig| broker.validate().err().map(|error| error.to_string());
        for subject in ["_INBOX.>", "_INBOX.*.>", "$JS.>", "$JS.API.CONSUMER.>", "$JS.ACK.*.x"] {
            let said = refused(&broker(&["events.>", subject])).expect(subject);
            assert!(said.contains(&format!("broker.subjects: {subject:?} includes the ")), "{said}");
            assert!(said.contains("leave it out"), "{said}");
        }
        assert_eq!(
            refused(&broker(&["_INBOX.>"])).expect("must be refused"),
            "configuration: broker.subjects: \"_INBOX.>\" includes the answers that the collector receives (_INBOX.*.>); each that is \
             stored would bring more; leave it out, or set another broker.inbox_prefix"
        );
        // A key-value bucket, advisories, and filters of a stream whose subjects decide.
        for subject in ["$KV.settings.>", "$JS.EVENT.ADVISORY.>", "_INBOXES.>", ">", "*.a"] {
            assert_eq!(refused(&broker(&[subject])), None, "{subject}");
        }
        let mut moved = broker(&["_INBOX.>"]);
        moved.inbox_prefix = Some("my.own".into());
        assert_eq!(refused(&moved), None);
        moved.subjects = vec!["my.>".into()];
        assert!(
            refused(&moved).is_some_and(|said| said.contains("\"my.>\" includes") && said.contains("(my.own.*.>)"))
        );
        moved.mode = Mode::Core;
        assert_eq!(refused(&moved), None, "it leaves out its own inbox");
        moved.mode = Mode::Jetstream;
        (moved.subjects, moved.api_prefix) = (vec!["js.hub.>".into()], Some("js.hub".into()));
        assert!(refused(&moved).is_some_and(|said| said.contains("(js.hub.>)")));
    }

    #[test]
    fn a_stream_that_takes_the_collectors_inbox_cannot_be_collected() {
        let fed = |subjects: &[&str], of_stream: &str| broker(subjects).feeds_itself(&[of_stream.to_owned()]);
        let said = fed(&[], ">").expect("must be refused");
        assert!(
            said.starts_with("stream EVENTS takes >, which includes the answers that the collector receives"),
            "{said}"
        );
        assert!(
            fed(&[">"], "_INBOX.>").is_some() && fed(&["chat.>"], ">").is_some() && fed(&["chat.>"], "*.>").is_some()
        );
        assert!(fed(&[], "$JS.API.>").is_some_and(|said| said.contains("own requests to JetStream ($JS.API.>)")));
        assert_eq!((fed(&["chat.>"], "$JS.API.>"), fed(&[">"], "chat.>"), fed(&[], "*.a")), (None, None, None));
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
