//! The streams that acknowledge a recorder's events, and their settings.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;

use super::api_types::StreamConfig;
use super::stream::acknowledges_before_writing;
use crate::config::BrokerConfig;
use crate::event_id::Identity;
use crate::subject::Filter;

/// The number of names to keep. An answer that is not a stream's may contain any name.
const MAX_STREAMS: usize = 1_000;

/// The streams that a recorder publishes to. Kept across the recorder's connections.
#[derive(Debug)]
pub struct KnownStreams {
    /// The longest time between an event's first publication and its repetition on another connection.
    longest_resend: Duration,
    /// How long a repetition may be in transit before the connection counts as silent.
    transit_time: Duration,
    known: Mutex<BTreeMap<String, Option<Settings>>>,
}

/// The settings of a stream that matter to a publisher.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Settings {
    duplicate_window: Duration,
    can_lose_acknowledged: bool,
    subjects: Vec<Filter>,
    traits: Traits,
}

/// How a stream takes events. Nothing is assumed of a stream that is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Traits {
    /// It takes many with one acknowledgement.
    pub(super) takes_batches: bool,
    /// It stores them under the subjects that they were published to.
    pub(super) keeps_subjects: bool,
}

impl Traits {
    /// What both have.
    fn common(self, other: Self) -> Self {
        Self {
            takes_batches: self.takes_batches && other.takes_batches,
            keeps_subjects: self.keeps_subjects && other.keeps_subjects,
        }
    }
}

impl KnownStreams {
    /// Without any stream.
    #[must_use]
    pub fn new(config: &BrokerConfig, identity: Identity) -> Self {
        let longest_resend = match identity {
            Identity::Stream => config.repeats_within(),
            // The database recognises what the stream does not.
            Identity::Both | Identity::Database | Identity::Payload => Duration::ZERO,
        };
        Self { longest_resend, transit_time: config.silence, known: Mutex::default() }
    }

    /// How long after its first publication an event may be published again without being stored twice: the shortest
    /// duplicate window of the known streams, less the time that the repetition may be in transit. `None` while no
    /// window is known.
    #[must_use]
    pub fn repeatable(&self) -> Option<Duration> {
        let known = self.known.lock();
        let window = known.values().flatten().map(|settings| settings.duplicate_window).min()?;
        Some(window.saturating_sub(self.transit_time.min(window / 2)))
    }

    /// Whether this name is a known stream's. Only then do its acknowledgements count.
    pub(super) fn contains(&self, stream: &str) -> bool {
        self.known.lock().contains_key(stream)
    }

    /// How the stream of this subject takes events. A subject may have moved to another stream: then only what both have counts.
    pub(super) fn traits(&self, subject: &str) -> Traits {
        let known = self.known.lock();
        let of_subject = |settings: &&Settings| settings.subjects.iter().any(|filter| filter.matches(subject));
        let traits = known.values().flatten().filter(of_subject).map(|settings| settings.traits);
        traits.reduce(Traits::common).unwrap_or_default()
    }

    /// The stream does not accept batches any more.
    pub(super) fn stop_batches(&self, stream: &str) {
        if let Some(settings) = self.known.lock().get_mut(stream).and_then(Option::as_mut) {
            settings.traits.takes_batches = false;
        }
    }

    /// The other streams that have had a subject of this one. No two streams have a subject at a time, so these have changed.
    pub(super) fn outdated_by(&self, stream: &str) -> Vec<String> {
        let known = self.known.lock();
        let Some(Some(newer)) = known.get(stream) else { return Vec::new() };
        let others = known.iter().filter(|(name, _)| *name != stream);
        let settings = others.filter_map(|(name, settings)| Some((name, settings.as_ref()?)));
        let shares = |settings: &Settings| {
            settings.subjects.iter().any(|subject| newer.subjects.iter().any(|newer| newer.overlaps(subject)))
        };
        settings.filter(|(_, settings)| shares(settings)).map(|(name, _)| name.clone()).collect()
    }

    /// The stream is not there any more, so its subjects may be another's.
    pub(super) fn forget_subjects(&self, stream: &str) {
        if let Some(settings) = self.known.lock().get_mut(stream).and_then(Option::as_mut) {
            settings.subjects.clear();
        }
    }

    /// The names, in order.
    pub(super) fn names(&self) -> Vec<String> {
        self.known.lock().keys().cloned().collect()
    }

    /// Updates a stream's settings. Logs what a publisher should know, once and whenever it changes.
    pub(super) fn update(&self, stream: &str, config: &StreamConfig) {
        let settings = Settings {
            duplicate_window: Duration::from_nanos(config.duplicate_window),
            can_lose_acknowledged: acknowledges_before_writing(config),
            subjects: config.subjects.iter().filter_map(|text| text.parse().ok()).collect(),
            traits: Traits { takes_batches: config.allow_batched, keeps_subjects: config.subject_transform.is_none() },
        };
        let (window, can_lose_acknowledged) = (settings.duplicate_window, settings.can_lose_acknowledged);
        let mut known = self.known.lock();
        if known.len() >= MAX_STREAMS && !known.contains_key(stream) {
            return;
        }
        let before = known.insert(stream.to_owned(), Some(settings)).flatten();
        drop(known);
        if before.as_ref().is_none_or(|before| before.duplicate_window != window) && window < self.longest_resend {
            log::warn!(
                event = "stream.short_window", stream = stream, seconds = window.as_secs_f64();
                "recorder: stream {stream} detects repeated events for only {window:?} (duplicate_window): after that, an \
                 event without an answer is searched for in the stream, and given back if it is not found; raise the window: \
                 nats stream edit --dupe-window 2m"
            );
        }
        if can_lose_acknowledged && !before.is_some_and(|before| before.can_lose_acknowledged) {
            log::warn!(
                event = "stream.persists_late", stream = stream;
                "recorder: stream {stream} has persist_mode async: it can lose acknowledged events when its server is killed; \
                 create it again without persist_mode async"
            );
        }
    }

    /// Adds a stream whose settings cannot be requested. Settings that are known already remain.
    pub(super) fn insert_unverified(&self, stream: &str, why: &str) {
        let mut known = self.known.lock();
        if known.len() < MAX_STREAMS && !known.contains_key(stream) {
            known.insert(stream.to_owned(), None);
            log::info!(
                event = "stream.unverified", stream = stream, reason = why;
                "recorder: stream {stream} acknowledges events, and its duplicate window cannot be requested ({why}); using the \
                 recorder's own setting"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(seconds: u64) -> StreamConfig {
        let window = seconds * 1_000_000_000;
        serde_json::from_value(serde_json::json!({ "retention": "limits", "duplicate_window": window }))
            .expect("a config")
    }

    #[test]
    fn the_shortest_window_counts_less_the_way_there() {
        let config_of = BrokerConfig { silence: Duration::from_secs(5), ..BrokerConfig::default() };
        let known = KnownStreams::new(&config_of, Identity::Stream);
        assert_eq!(known.repeatable(), None);
        known.insert_unverified("A", "no permission");
        assert_eq!((known.repeatable(), known.contains("A")), (None, true));
        known.update("B", &config(120));
        assert_eq!(known.repeatable(), Some(Duration::from_secs(115)));
        known.update("C", &config(2));
        assert_eq!(known.repeatable(), Some(Duration::from_secs(1)));
        known.update("C", &config(60));
        known.insert_unverified("C", "no answer");
        assert_eq!(known.repeatable(), Some(Duration::from_secs(55)), "an edit counts, silence changes nothing");
    }

    #[test]
    fn the_traits_of_a_subject_are_those_that_all_its_streams_have() {
        let known = KnownStreams::new(&BrokerConfig::default(), Identity::Payload);
        let update = |stream: &str, more: serde_json::Value| {
            let mut config = serde_json::json!({ "retention": "limits", "duplicate_window": 1, "allow_batched": true });
            config.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
            known.update(stream, &serde_json::from_value(config).expect("a config"));
        };
        let of = |subject| {
            let Traits { takes_batches, keeps_subjects } = known.traits(subject);
            (takes_batches, keeps_subjects)
        };
        let transform = serde_json::json!({ "src": "b", "dest": "c" });
        update("A", serde_json::json!({ "subjects": ["a.>"] }));
        update("B", serde_json::json!({ "subjects": ["b"], "subject_transform": transform }));
        known.insert_unverified("C", "no permission");
        assert_eq!([of("a.x"), of("b"), of("c")], [(true, true), (true, false), (false, false)]);
        update("D", serde_json::json!({ "subjects": ["a.x", "b"] }));
        assert_eq!([of("a.x"), of("b")], [(true, true), (true, false)], "both are known to have the subject");
        assert_eq!(
            (known.outdated_by("D"), known.outdated_by("C")),
            (vec!["A".to_owned(), "B".to_owned()], Vec::new())
        );
        known.stop_batches("D");
        assert_eq!([of("a.x"), of("a.y")], [(false, true), (true, true)]);
        known.forget_subjects("D");
        known.forget_subjects("B");
        assert_eq!([of("a.x"), of("b")], [(true, true), (false, false)]);
        update("A", serde_json::json!({ "subjects": ["a.>"], "subject_transform": transform }));
        assert_eq!(of("a.x"), (true, false), "the settings were changed");
    }
}
