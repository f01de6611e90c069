//! The reply subject of a delivery, which carries its place in the stream.
//!
//! `$JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>`, or with domain and account hash
//! before the stream's name and a token behind: <https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-15.md>.

use crate::pipeline::Mark;

/// What a delivery's reply subject says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Metadata {
    /// How many times this consumer has delivered it.
    pub(super) delivered: u64,
    /// Its place in the stream.
    pub(super) mark: Mark,
    /// Its place among the consumer's deliveries.
    pub(super) consumer_sequence: u64,
    /// How many more the consumer has.
    pub(super) pending: u64,
}

/// Reads it; `None` for anything that is no delivery.
pub(super) fn parse(reply: &str) -> Option<Metadata> {
    let tokens = reply.strip_prefix("$JS.ACK.")?;
    let mut fields = [""; 9];
    let mut count = 0;
    for token in tokens.split('.').take(9) {
        fields[count] = token;
        count += 1;
    }
    let numbers = match count {
        7 => &fields[2..7],
        9 => &fields[4..9],
        _ => return None,
    };
    let [delivered, sequence, consumer_sequence, time, pending] = numbers else { return None };
    Some(Metadata {
        delivered: delivered.parse().ok()?,
        mark: Mark { sequence: sequence.parse().ok()?, published_ns: time.parse().ok()? },
        consumer_sequence: consumer_sequence.parse().ok()?,
        pending: pending.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        let expected = Metadata {
            delivered: 1,
            mark: Mark { sequence: 20, published_ns: 1_700_000_000_123_456_789 },
            consumer_sequence: 7,
            pending: 3,
        };
        assert_eq!(parse("$JS.ACK.EVENTS.c.1.20.7.1700000000123456789.3"), Some(expected));
        assert_eq!(parse("$JS.ACK._.AbC123.EVENTS.c.1.20.7.1700000000123456789.3"), Some(expected));
        assert_eq!(parse("$JS.ACK.hub.AbC123.EVENTS.c.1.20.7.1700000000123456789.3.tok"), Some(expected));
    }

    #[test]
    fn anything_else_is_no_delivery() {
        for reply in
            ["", "_INBOX.x", "$JS.ACK.", "$JS.ACK.a.b.c.d.e.f.g", "$JS.ACK.a.b.1.2.3.4", "$JS.ACK.a.b.1.2.3.-.5"]
        {
            assert_eq!(parse(reply), None, "{reply}");
        }
    }
}
