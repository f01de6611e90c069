//! The client's map of headers as what it stands for: names and values.

use nats::HeaderMap;

use crate::event::Event;

/// An event's headers, and its identity if it was given one.
pub(super) fn of(event: &Event) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Some(id) = event.given_id() {
        headers.insert(nats::header::NATS_MSG_ID, id);
    }
    for (name, value) in event.headers() {
        headers.append(name.as_str(), value.as_str());
    }
    headers
}

/// Each name with each of its values. The order they came in is gone: the client keeps none.
pub(super) fn pairs(headers: Option<&HeaderMap>) -> impl Iterator<Item = (&str, &str)> {
    headers
        .into_iter()
        .flat_map(|headers| headers.iter())
        .flat_map(|(name, values)| values.iter().map(move |value| (name.as_str(), value.as_str())))
}

/// Bytes of all names and values.
pub(super) fn size(headers: Option<&HeaderMap>) -> usize {
    pairs(headers).map(|(name, value)| name.len() + value.len()).sum()
}
