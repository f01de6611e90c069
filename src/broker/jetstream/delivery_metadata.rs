//! The metadata of a delivery. Its reply subject contains them.
//!
//! `$JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>`, or with domain and account
//! hash before the stream's name and another token at the end:
//! <https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-15.md>.

use crate::pipeline::Mark;

/// The metadata of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DeliveryMetadata {
    /// How many times this consumer has delivered the message.
    pub(super) delivered: u64,
    /// Its position in the stream.
    pub(super) mark: Mark,
    /// Its number among the consumer's deliveries.
    pub(super) consumer_sequence: u64,
    /// The number of messages that the consumer still has to deliver.
    pub(super) pending: u64,
}

/// Parses a reply subject; `None` if it is not a delivery's. Called for each event, so it finds the tokens
/// with vector instructions.
pub(super) fn parse(reply: &str) -> Option<DeliveryMetadata> {
    /// With domain and account hash. Further tokens are ignored.
    const MAX_TOKENS: usize = 9;
    let mut tokens = reply.strip_prefix("$JS.ACK.")?;
    let mut starts = [0; MAX_TOKENS + 1];
    let mut count = 1;
    for at in memchr::memchr_iter(b'.', tokens.as_bytes()) {
        if count == MAX_TOKENS {
            tokens = &tokens[..at];
            break;
        }
        starts[count] = at + 1;
        count += 1;
    }
    let first = match count {
        7 => 2,
        MAX_TOKENS => 4,
        _ => return None,
    };
    starts[count] = tokens.len() + 1;
    let token = |at: usize| &tokens[starts[first + at]..starts[first + at + 1] - 1];
    Some(DeliveryMetadata {
        delivered: token(0).parse().ok()?,
        mark: Mark { sequence: token(1).parse().ok()?, published_ns: token(3).parse().ok()? },
        consumer_sequence: token(2).parse().ok()?,
        pending: token(4).parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        let expected = DeliveryMetadata {
            delivered: 1,
            mark: Mark { sequence: 20, published_ns: 1_700_000_000_123_456_789 },
            consumer_sequence: 7,
            pending: 3,
        };
        assert_eq!(parse("$JS.ACK.EVENTS.c.1.20.7.1700000000123456789.3"), Some(expected));
        assert_eq!(parse("$JS.ACK._.AbC123.EVENTS.c.1.20.7.1700000000123456789.3"), Some(expected));
        for behind in ["tok", "tok.more", "tok.more.and.more", "."] {
            let reply = format!("$JS.ACK.hub.AbC123.EVENTS.c.1.20.7.1700000000123456789.3.{behind}");
            assert_eq!(parse(&reply), Some(expected), "{reply}");
        }
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
