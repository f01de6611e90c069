//! The only stream that may store an event, in a header that the server compares:
//! <https://docs.nats.io/nats-concepts/jetstream/headers>.

use crate::Event;
use crate::printable;

/// The header.
pub(crate) const HEADER: &str = "Nats-Expected-Stream";

/// The event with the header. An event that names another stream itself is refused: no stream may store it.
pub(super) fn set(event: Event, stream: &str) -> Result<Event, String> {
    match event.headers().iter().find(|(name, _)| name == HEADER) {
        None => Ok(event.header(HEADER, stream)),
        Some((_, own)) if own == stream => Ok(event),
        Some((_, own)) => Err(format!("its header {HEADER} names {}, and only {stream} is expected", printable(own))),
    }
}

/// The server's reason to refuse this event, with what it means.
pub(super) fn explained(reason: String, event: &Event) -> String {
    match event.headers().iter().find(|(name, _)| name == HEADER && reason.contains("expected stream")) {
        Some((_, stream)) => format!("{reason}: another stream than {} takes its subject", printable(stream)),
        None => reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_one_expected_stream() {
        let set = |event| set(event, "A").map(|event: Event| event.headers().to_vec());
        let expected = vec![(HEADER.to_owned(), "A".to_owned())];
        assert_eq!(set(Event::new("a", "x")), Ok(expected.clone()));
        assert_eq!(set(Event::new("a", "x").header(HEADER, "A")), Ok(expected));
        let refused = set(Event::new("a", "x").header(HEADER, "B")).expect_err("is another");
        let explained = |reason: &str| explained(reason.into(), &Event::new("a", "x").header(HEADER, "A"));
        assert_eq!(
            explained("expected stream does not match"),
            "expected stream does not match: another stream than A takes its subject"
        );
        assert_eq!(explained("maximum messages exceeded"), "maximum messages exceeded");
        assert_eq!(refused, "its header Nats-Expected-Stream names B, and only A is expected");
    }
}
