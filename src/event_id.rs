//! By what a repeated event is recognised: the identity for the stream, and the number for the database.
//!
//! A stream recognises a repetition by the header `Nats-Msg-Id`, within its duplicate window. A database recognises it for good, by the
//! name of the recorder and the number that the recorder gave the event. The number is in the header `Catchment-Event`, as
//! `<recorder>-<number>`. An identity that a recorder generates for a numbered event contains the same, so that one header serves both.
//! With [`Identity::Payload`] the number is in the payload instead: [`in_payload`].
//!
//! Generated identities and numbers are not stored in the column `headers` of table `events`.

pub(crate) mod in_payload;

use std::sync::Arc;

use data_encoding::BASE32_NOPAD;

/// The header with the identity for the stream.
pub(crate) const HEADER: &str = "Nats-Msg-Id";

/// The header with the number for the database.
pub(crate) const NUMBER_HEADER: &str = "Catchment-Event";

/// How generated identities begin. Then follow the recorder's name, a hyphen and the number.
const NUMBERED: &str = "catchment-";

/// How generated identities begin that are for the stream only.
const UNNUMBERED: &str = "catchment_";

/// The length of a recorder's name: 96 random bits in base 32.
const NAME_DIGITS: usize = 20;

/// No name of a recorder is longer. Recorders of other programs may have names of their own.
const MAX_NAME: usize = 64;

/// No generated identity is longer, and no number with the name of one of our recorders.
pub(crate) const LONGEST: usize = NUMBERED.len() + NAME_DIGITS + 1 + 20;

/// A recorder sends a number only when the one so far below it has an outcome. So a database need not remember more numbers than these.
pub(crate) const WIDTH: u64 = 65_536;

/// [`WIDTH`]. A test may have less on its thread: see [`narrowed`].
#[cfg(not(test))]
pub(crate) const fn width() -> u64 {
    WIDTH
}

#[cfg(test)]
pub(crate) use narrowed::width;

/// A smaller [`WIDTH`], so that a test with few events reaches its end.
#[cfg(test)]
pub(crate) mod narrowed {
    use std::cell::Cell;

    thread_local! {
        static OF_THREAD: Cell<u64> = const { Cell::new(super::WIDTH) };
    }

    pub(crate) fn width() -> u64 {
        OF_THREAD.get()
    }

    /// Runs this with another width: a multiple of 64.
    pub(crate) fn within<T>(width: u64, run: impl FnOnce() -> T) -> T {
        struct Restore;
        impl Drop for Restore {
            fn drop(&mut self) {
                OF_THREAD.set(super::WIDTH);
            }
        }
        OF_THREAD.set(width);
        let _restore = Restore;
        run()
    }
}

/// How an event that a recorder sends twice is recognised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Identity {
    /// By the stream, within its duplicate window, as by every other client of the stream. After that, an event without an answer is
    /// looked for in the stream and given back if it is not found.
    Stream,
    /// By the stream, within its duplicate window, and by the database until it forgets the recorder. An event without an answer is sent again until
    /// there is one, so the stream may have it twice after an outage longer than the window. The database has it once.
    #[default]
    Both,
    /// By the database only, until it forgets the recorder. It costs the server less, and events are sent in batches to a stream that accepts them
    /// (`allow_batched`, nats-server 2.14 and later). After a lost connection the stream may have an event twice. The database has
    /// it once.
    Database,
    /// As [`Database`](Self::Database), but the number is in the payload: it is the first member, `"catchment"`, of a JSON object. The server and
    /// the collector have less to do. The collector removes the member, so the database has the payload that was recorded. Other readers of the
    /// stream see it. An event has a header instead if it has headers or an id, if its payload is no such object or has this member already, or if
    /// its stream renames subjects (`subject_transform`, partitions). Do not use it where an account maps subjects (`mappings`), or where
    /// a program publishes the stream's payloads again to their subjects: that is a repetition.
    Payload,
}

/// Draws a name for a start of a recorder: random, of letters and digits. No other has the same.
pub(crate) fn draw_name() -> String {
    let mut bytes = [0; 12];
    getrandom::fill(&mut bytes).expect("the system has random numbers");
    BASE32_NOPAD.encode(&bytes).to_ascii_lowercase()
}

/// The name that a start of a recorder gave to its events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NameRange {
    /// The position of its first event: that has the number 0.
    pub(crate) first: u64,
    pub(crate) name: String,
}

/// Makes the identities and numbers by which repeated events are recognised. An event is known by its position among those that are sent. A
/// recorder that sends only what it was given in this start has one name; one that sends what earlier starts have left has theirs too.
#[derive(Clone, Debug)]
pub(crate) struct EventIds {
    /// In the order of their positions; the last is this start's.
    names: Arc<[NameRange]>,
    identity: Identity,
}

impl EventIds {
    /// Draws a name for the recorder.
    pub(crate) fn new(identity: Identity) -> Self {
        Self::with_names(identity, vec![NameRange { first: 0, name: draw_name() }])
    }

    /// With the names of earlier starts, and at last that of this one.
    pub(crate) fn with_names(identity: Identity, mut names: Vec<NameRange>) -> Self {
        names.sort_by_key(|range| range.first);
        Self { names: names.into(), identity }
    }

    /// The name of this start of the recorder.
    pub(crate) fn recorder(&self) -> &str {
        self.names.last().map_or("", |range| &range.name)
    }

    /// How repetitions are recognised.
    pub(crate) fn identity(&self) -> Identity {
        self.identity
    }

    /// The name and the number of the event at this position.
    fn numbered(&self, position: u64) -> (&str, u64) {
        let after = self.names.partition_point(|range| range.first <= position);
        let range = &self.names[after.saturating_sub(1)];
        (&range.name, position.saturating_sub(range.first))
    }

    /// The identity for the stream of the event at this position, where it has one. `given` is what the application gave.
    pub(crate) fn of_stream(&self, position: u64, given: Option<&str>) -> Option<String> {
        let start = match self.identity {
            // An identity that was given has a meaning for others too.
            _ if given.is_some() => return given.map(str::to_owned),
            Identity::Stream => UNNUMBERED,
            Identity::Both => NUMBERED,
            Identity::Database | Identity::Payload => return None,
        };
        let (name, number) = self.numbered(position);
        Some(format!("{start}{name}-{number}"))
    }

    /// The number for the database, where the identity for the stream does not contain it.
    pub(crate) fn of_database(&self, position: u64, given: Option<&str>) -> Option<String> {
        let is_separate = match self.identity {
            Identity::Stream => false,
            Identity::Both => given.is_some(),
            Identity::Database | Identity::Payload => true,
        };
        let (name, number) = self.numbered(position);
        is_separate.then(|| format!("{name}-{number}"))
    }
}

/// A recorder's name, and the number that it gave to an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EventNumber<'a> {
    pub(crate) recorder: &'a str,
    /// At most `i64::MAX`.
    pub(crate) number: u64,
}

impl<'a> EventNumber<'a> {
    /// The number that an event with these headers has, if any. Header names count exactly as they are: the server compares its own
    /// so.
    pub(crate) fn of(headers: impl Iterator<Item = (&'a str, &'a str)>) -> Option<Self> {
        let mut from_identity = None;
        for (name, value) in headers {
            match name {
                NUMBER_HEADER => return Self::parse(value),
                HEADER => from_identity = Self::in_identity(value),
                _ => {}
            }
        }
        from_identity
    }

    /// Parses `<recorder>-<number>`.
    fn parse(text: &'a str) -> Option<Self> {
        let (recorder, digits) = text.rsplit_once('-')?;
        let is_name_byte = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let is_name = (1..=MAX_NAME).contains(&recorder.len()) && recorder.bytes().all(is_name_byte);
        // One number has one form only. `parse` takes a plus sign.
        let is_plain = digits == "0" || digits.bytes().next().is_some_and(|byte| matches!(byte, b'1'..=b'9'));
        let number = digits.parse().ok().filter(|number| i64::try_from(*number).is_ok())?;
        (is_name && is_plain).then_some(Self { recorder, number })
    }

    /// The number in an identity that a recorder has generated. An identity that an application gave must never look like one, so the
    /// form is strict.
    fn in_identity(id: &'a str) -> Option<Self> {
        let parsed = Self::parse(id.strip_prefix(NUMBERED)?)?;
        let is_digit = |byte: u8| matches!(byte, b'a'..=b'z' | b'2'..=b'7');
        (parsed.recorder.len() == NAME_DIGITS && parsed.recorder.bytes().all(is_digit)).then_some(parsed)
    }
}

/// Whether a header serves only to recognise a repetition: a number, or an identity that a recorder has generated.
pub(crate) fn is_generated(name: &str, value: &str) -> bool {
    match name {
        NUMBER_HEADER => EventNumber::parse(value).is_some(),
        HEADER => {
            let of_stream = value.strip_prefix(UNNUMBERED).map(|rest| format!("{NUMBERED}{rest}"));
            EventNumber::in_identity(of_stream.as_deref().unwrap_or(value)).is_some()
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "abcdefghijklmnopq234";

    fn number(recorder: &str, number: u64) -> EventNumber<'_> {
        EventNumber { recorder, number }
    }

    #[test]
    fn names_differ_and_what_they_make_is_recognised() {
        let names = [EventIds::new(Identity::Both), EventIds::new(Identity::Both)].map(|ids| ids.recorder().to_owned());
        assert_ne!(names[0], names[1]);
        let last = u64::try_from(i64::MAX).expect("positive");
        for identity in [Identity::Both, Identity::Database, Identity::Payload, Identity::Stream] {
            let ids = EventIds::new(identity);
            for (n, given) in [(0, None), (7, Some("order-1")), (7, None), (last, None), (last, Some("order-1"))] {
                let (id, own) = (ids.of_stream(n, given), ids.of_database(n, given));
                let headers = [(HEADER, &id), (NUMBER_HEADER, &own)];
                let headers = headers.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?)));
                let number =
                    (identity != Identity::Stream).then_some(EventNumber { recorder: ids.recorder(), number: n });
                assert_eq!(EventNumber::of(headers.clone()), number, "{identity:?} {given:?}");
                let is_of_stream = matches!(identity, Identity::Both | Identity::Stream);
                assert_eq!(id.is_some(), is_of_stream || given.is_some(), "{identity:?} {given:?}");
                assert!(given.is_none() || id.as_deref() == given);
                assert!(
                    headers
                        .clone()
                        .all(|(name, value)| value.len() <= LONGEST
                            && (is_generated(name, value) || given == Some(value)))
                );
            }
        }
    }

    #[test]
    fn an_event_keeps_the_name_and_the_number_of_the_start_that_took_it() {
        let range = |first, name: &str| NameRange { first, name: name.into() };
        let names = vec![range(500, "third"), range(1, "first"), range(42, "second")];
        let ids = EventIds::with_names(Identity::Database, names);
        let of = |position| ids.of_database(position, None).expect("has a number");
        let numbers = [1, 41, 42, 499, 500, 70_000].map(of);
        assert_eq!(numbers, ["first-0", "first-40", "second-0", "second-457", "third-0", "third-69500"]);
        assert_eq!(ids.recorder(), "third");
    }

    #[test]
    fn the_number_of_another_program_is_read_exactly() {
        let of = |value| EventNumber::of([("A", "1"), (NUMBER_HEADER, value)].into_iter());
        assert_eq!(of("gate-7.north_1-0"), Some(number("gate-7.north_1", 0)));
        assert_eq!(of("r-9223372036854775807"), Some(number("r", 9_223_372_036_854_775_807)));
        for wrong in
            ["", "r", "r-", "-1", "r-01", "r-+1", "r--", "r-1 ", "r-9223372036854775808", "r r-1", "r-1x", "ü-1"]
        {
            assert_eq!(of(wrong), None, "{wrong}");
        }
        assert_eq!(of(&format!("{}-1", "r".repeat(65))), None);
        let lower_case = EventNumber::of([("catchment-event", "r-1")].into_iter());
        assert_eq!(lower_case, None);
        let id = format!("catchment-{NAME}-3");
        assert_eq!(EventNumber::of([(HEADER, &*id)].into_iter()), Some(number(NAME, 3)));
        assert_eq!(EventNumber::of([(HEADER, &*id), (NUMBER_HEADER, "r-1")].into_iter()), Some(number("r", 1)));
    }

    #[test]
    fn an_identity_of_an_application_is_none() {
        for id in [
            "",
            "17",
            "catchment-",
            "catchment-1",
            "catchment-order-17",
            "catchment_order-17",
            "abcdefghijklmnopq234-17",
            "Catchment-abcdefghijklmnopq234-17",
            "catchment-abcdefghijklmnopq234",
            "catchment-abcdefghijklmnopq234-",
            "catchment-abcdefghijklmnopq234-017",
            "catchment-abcdefghijklmnopq234-17-1",
            "catchment-abcdefghijklmnopq23-17",
            "catchment-Abcdefghijklmnopq234-17",
            "catchment-abcdefghijklmnopq239-17",
        ] {
            assert!(!is_generated(HEADER, id), "{id}");
            assert_eq!(EventNumber::of([(HEADER, id)].into_iter()), None, "{id}");
        }
        assert!(is_generated(HEADER, &format!("catchment_{NAME}-17")));
        assert_eq!(EventNumber::of([(HEADER, &*format!("catchment_{NAME}-17"))].into_iter()), None);
    }
}
