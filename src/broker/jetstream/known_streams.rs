//! The streams that acknowledge a recorder's events, and what they said of themselves.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;

use super::api_types::StreamConfig;
use super::stream::acknowledges_before_writing;
use crate::config::BrokerConfig;

/// Names remembered, at most: answers that are no stream's may name anything.
const MOST: usize = 1_000;

/// What is known of the streams that a recorder publishes to. It outlives each of the recorder's connections.
#[derive(Debug)]
pub struct KnownStreams {
    /// A lost connection may be followed by a repetition this much later, at most.
    longest_resend: Duration,
    /// How long a repetition may be on its way before the connection counts as silent.
    transit_time: Duration,
    known: Mutex<BTreeMap<String, Option<Settings>>>,
}

/// What matters of a stream's configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Settings {
    duplicate_window: Duration,
    can_lose_acknowledged: bool,
}

impl KnownStreams {
    /// Knows none yet.
    #[must_use]
    pub fn new(config: &BrokerConfig) -> Self {
        Self { longest_resend: config.repeats_within(), transit_time: config.silence, known: Mutex::default() }
    }

    /// How long after an event was sent for the first time it may be sent again without being stored twice: the shortest
    /// duplicate window of the known streams, less the time that the repetition may be on its way. `None` while none has
    /// told its window.
    #[must_use]
    pub fn repeatable(&self) -> Option<Duration> {
        let known = self.known.lock();
        let window = known.values().flatten().map(|settings| settings.duplicate_window).min()?;
        Some(window.saturating_sub(self.transit_time.min(window / 2)))
    }

    /// Whether this stream's acknowledgements count.
    pub(super) fn contains(&self, stream: &str) -> bool {
        self.known.lock().contains_key(stream)
    }

    /// The names, in order.
    pub(super) fn names(&self) -> Vec<String> {
        self.known.lock().keys().cloned().collect()
    }

    /// Takes in what a stream says of itself, and logs what a publisher should know, once and when it changes.
    pub(super) fn update(&self, stream: &str, config: &StreamConfig) {
        let settings = Settings {
            duplicate_window: Duration::from_nanos(config.duplicate_window),
            can_lose_acknowledged: acknowledges_before_writing(config),
        };
        let mut known = self.known.lock();
        if known.len() >= MOST && !known.contains_key(stream) {
            return;
        }
        let before = known.insert(stream.to_owned(), Some(settings)).flatten();
        drop(known);
        let window = settings.duplicate_window;
        if before.is_none_or(|before| before.duplicate_window != window) && window < self.longest_resend {
            log::warn!(
                "recorder: stream {stream} recognises a repetition for {window:?} only (duplicate_window): later an event \
                 without an answer is looked for in the stream, and given back if it is not found; raise the window with \
                 nats stream edit --dupe-window 2m"
            );
        }
        if settings.can_lose_acknowledged && !before.is_some_and(|before| before.can_lose_acknowledged) {
            log::warn!(
                "recorder: stream {stream} has persist_mode async: events that it acknowledged can be lost when its server is \
                 killed; make it anew without it"
            );
        }
    }

    /// Takes a stream that cannot be asked for one all the same. What it said before stays.
    pub(super) fn insert_unverified(&self, stream: &str, why: &str) {
        let mut known = self.known.lock();
        if known.len() < MOST && !known.contains_key(stream) {
            known.insert(stream.to_owned(), None);
            log::info!(
                "recorder: stream {stream} acknowledges and cannot be asked for its duplicate window ({why}); the recorder's \
                 own options holds"
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
        let known = KnownStreams::new(&BrokerConfig { silence: Duration::from_secs(5), ..BrokerConfig::default() });
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
}
