//! Recognises delete markers: messages that report that the earlier messages of their subject are gone.
//!
//! A stream writes one when the last message of a subject expires, with the reason in a header
//! (<https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-43.md>). A client writes one when it deletes or purges a
//! key of a key-value bucket, with the operation in a header
//! (<https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-8.md>). A message that only has the header
//! `Nats-Rollup` is none: it replaces the earlier messages and has a payload of its own.

use crate::pipeline::Headers;

const REASON: &str = "Nats-Marker-Reason";
const OPERATION: &str = "KV-Operation";

/// The header that makes a message a delete marker, as `name: value`; `None` if it is none.
pub(super) fn marker(headers: Headers<'_>) -> Option<String> {
    headers.iter().find(is_marker).map(|(name, value)| format!("{name}: {value}"))
}

/// Whether a message with these headers is a delete marker.
pub(super) fn is_delete_marker<'h>(headers: impl IntoIterator<Item = (&'h str, &'h str)>) -> bool {
    headers.into_iter().any(|header| is_marker(&header))
}

fn is_marker((name, value): &(&str, &str)) -> bool {
    name.eq_ignore_ascii_case(REASON) || name.eq_ignore_ascii_case(OPERATION) && ["DEL", "PURGE"].contains(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::{Mark, SingleEvent};

    fn marker_of(headers: &[(&str, &str)]) -> Option<String> {
        let event = SingleEvent::new(Mark::START, "a", headers.iter().copied(), b"");
        let headers = event.delivery().headers;
        assert_eq!(marker(headers).is_some(), is_delete_marker(headers.iter()));
        marker(headers)
    }

    #[test]
    fn a_delete_marker_is_recognised_by_its_headers() {
        let expired = [("Nats-TTL", "1m0s"), ("Nats-Rollup", "sub"), ("Nats-Marker-Reason", "MaxAge")];
        assert_eq!(marker_of(&expired).as_deref(), Some("Nats-Marker-Reason: MaxAge"));
        assert_eq!(marker_of(&[("KV-Operation", "DEL")]).as_deref(), Some("KV-Operation: DEL"));
        assert_eq!(marker_of(&[("kv-operation", "PURGE")]).as_deref(), Some("kv-operation: PURGE"));
        for other in [&[][..], &[("Nats-Rollup", "sub")], &[("KV-Operation", "PUT")], &[("Operation", "DEL")]] {
            assert_eq!(marker_of(other), None, "{other:?}");
        }
    }
}
