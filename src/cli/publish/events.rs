//! The events to publish: one, the lines of an input, or generated load.

use std::time::{Duration, SystemTime};

use crate::Event;
use crate::cli::lines::{Lines, Source};
use crate::store::event_line;
use crate::unix_time::microseconds;

/// The events of one command, in order.
pub struct Events {
    kind: Kind,
    /// How many were returned.
    read: u64,
}

enum Kind {
    One(Option<Box<Event>>),
    Lines { lines: Lines, source: Source, format: LineFormat, number: u64, at_end: bool },
    Generated(Load),
}

/// What a line is.
#[derive(Clone, Debug)]
pub enum LineFormat {
    /// The payload of an event on this subject.
    Payload { subject: String },
    /// A whole event.
    Event,
}

/// Generated load.
#[derive(Clone, Debug)]
pub struct Load {
    pub subject: String,
    pub count: u64,
    /// Events a second.
    pub rate: Option<u64>,
    /// Bytes of a payload.
    pub size: usize,
    /// When the first event was made. The clock starts with it.
    began: Option<SystemTime>,
}

impl Load {
    pub fn new(subject: String, count: u64, rate: Option<u64>, size: usize) -> Self {
        Self { subject, count, rate, size, began: None }
    }

    fn event(&mut self, number: u64) -> Event {
        let now = SystemTime::now();
        let began = *self.began.get_or_insert(now);
        let due = self.rate.map_or(now, |rate| began + due(number, rate));
        Event::new(self.subject.clone(), generated(number, due, self.size))
    }
}

impl Events {
    pub fn one(event: Event) -> Self {
        Self { kind: Kind::One(Some(Box::new(event))), read: 0 }
    }

    pub fn lines(lines: Lines, source: Source, format: LineFormat) -> Self {
        Self { kind: Kind::Lines { lines, source, format, number: 0, at_end: false }, read: 0 }
    }

    pub fn generated(load: Load) -> Self {
        Self { kind: Kind::Generated(load), read: 0 }
    }

    /// How many events there are. `None` for lines whose end was not reached.
    pub fn total(&self) -> Option<u64> {
        match &self.kind {
            Kind::One(_) => Some(1),
            Kind::Lines { at_end, .. } => at_end.then_some(self.read),
            Kind::Generated(load) => Some(load.count),
        }
    }

    /// Where the last event came from, if that is one of several lines: `line 7`.
    pub fn position(&self) -> Option<String> {
        match &self.kind {
            Kind::Lines { number, .. } if *number > 0 => Some(format!("line {number}")),
            _ => None,
        }
    }

    /// The source of lines.
    pub fn source(&self) -> Option<&Source> {
        if let Kind::Lines { source, .. } = &self.kind { Some(source) } else { None }
    }

    /// Whether the events are typed on a terminal.
    pub fn are_typed(&self) -> bool {
        matches!(&self.kind, Kind::Lines { lines, .. } if lines.are_typed())
    }

    fn next_event(&mut self) -> Option<anyhow::Result<Event>> {
        match &mut self.kind {
            Kind::One(event) => event.take().map(|event| Ok(*event)),
            Kind::Generated(load) => (self.read < load.count).then(|| Ok(load.event(self.read))),
            Kind::Lines { lines, format, number, at_end, .. } => match lines.next() {
                None => {
                    *at_end = lines.is_at_end();
                    None
                }
                Some(Err(error)) => Some(Err(error)),
                Some(Ok(line)) => {
                    *number = line.number;
                    Some(match format {
                        LineFormat::Payload { subject } => Ok(Event::new(subject.clone(), line.bytes)),
                        LineFormat::Event => event_line::read(&line.bytes).map_err(anyhow::Error::msg),
                    })
                }
            },
        }
    }
}

impl Iterator for Events {
    type Item = anyhow::Result<Event>;

    /// The next event, or why a line is none.
    fn next(&mut self) -> Option<Self::Item> {
        let next = self.next_event();
        self.read += u64::from(matches!(next, Some(Ok(_))));
        next
    }
}

/// When the event of this number is due, counted from the start.
pub fn due(number: u64, rate: u64) -> Duration {
    let nanos = u128::from(number % rate) * 1_000_000_000 / u128::from(rate);
    Duration::from_secs(number / rate) + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// JSON of this size with the number of the event and the time at which it was due. It is larger only if the two need more.
fn generated(number: u64, due: SystemTime, size: usize) -> Vec<u8> {
    let due_us = microseconds(due);
    let mut payload = format!("{{\"n\":{number},\"sent_us\":{due_us}");
    let rest = size.saturating_sub(payload.len());
    let padded = "{,\"pad\":\"\"}".len() - 1;
    if rest >= padded {
        payload += ",\"pad\":\"";
        payload.extend(std::iter::repeat_n('x', rest - padded));
        payload.push('"');
    } else {
        payload.extend(std::iter::repeat_n(' ', rest.saturating_sub(1)));
    }
    payload.push('}');
    payload.into_bytes()
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn generated_payloads_are_json_of_the_requested_size() {
        let now = UNIX_EPOCH + Duration::from_micros(1_795_452_899_430_223);
        for number in [0, 7, 99_999, 100_000, 1_000_000, 999_999_999_999_999] {
            for size in (48..120).chain([1_000]) {
                let payload = generated(number, now, size);
                assert_eq!(payload.len(), size, "{}", String::from_utf8_lossy(&payload));
                let value: serde_json::Value = serde_json::from_slice(&payload).expect("JSON");
                assert_eq!((&value["n"], &value["sent_us"]), (&number.into(), &1_795_452_899_430_223_u64.into()));
            }
        }
        assert!(serde_json::from_slice::<serde_json::Value>(&generated(7, UNIX_EPOCH, 0)).is_ok());
    }

    #[test]
    fn events_are_due_in_time_at_any_rate() {
        assert_eq!(due(2_500, 1_000), Duration::from_millis(2_500));
        assert_eq!(due(u64::MAX - 1, u64::MAX), Duration::from_nanos(999_999_999));
        assert_eq!(due(30_000_000_001, 40_000_000_000), Duration::from_millis(750));
    }

    #[test]
    fn the_number_of_events_is_known_but_of_lines_only_at_the_end() {
        let mut one = Events::one(Event::new("a", "x"));
        assert_eq!((one.total(), one.by_ref().count(), one.total()), (Some(1), 1, Some(1)));
        let mut load = Events::generated(Load::new("a".into(), 3, None, 60));
        assert_eq!((load.total(), load.by_ref().count(), load.position()), (Some(3), 3, None));
    }
}
