//! How much has been asked for and not come yet: the bound of what the client holds in memory.

use crate::config::AheadConfig;

/// Requests outstanding, counted in events. The server answers a request with messages, or ends it with a status that
/// says how many of its messages will not come.
#[derive(Debug)]
pub(super) struct Pulls {
    ahead: AheadConfig,
    outstanding: usize,
    /// The next message is larger than a request's limit in bytes.
    oversize: Oversize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Oversize {
    No,
    /// To be asked for by itself once nothing else is outstanding.
    Ahead,
    /// Asked for.
    Asked,
}

/// A request to send.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pull {
    pub(super) events: usize,
    /// `None`: however large.
    pub(super) bytes: Option<u64>,
}

impl Pulls {
    pub(super) fn new(ahead: AheadConfig) -> Self {
        Self { ahead, outstanding: 0, oversize: Oversize::No }
    }

    /// A message came.
    pub(super) fn arrived(&mut self) {
        self.outstanding = self.outstanding.saturating_sub(1);
        if self.outstanding == 0 || self.oversize == Oversize::Asked {
            self.oversize = Oversize::No;
        }
    }

    /// A request ended without this many of its messages; `None` when the server did not say how many.
    pub(super) fn ended(&mut self, missing: Option<usize>) {
        self.outstanding = self.outstanding.saturating_sub(missing.unwrap_or(self.ahead.events));
        if self.oversize == Oversize::Asked {
            self.oversize = Oversize::No;
        }
    }

    /// A request ended before its first message because that is larger than the request's limit.
    pub(super) fn too_large(&mut self, missing: Option<usize>) {
        self.ended(missing);
        // Some of it may have come before: then the next request has all its bytes for the large one.
        if missing.is_none_or(|missing| missing >= self.ahead.events) {
            self.oversize = Oversize::Ahead;
        }
    }

    /// Whether something that was asked for has not come.
    pub(super) fn are_outstanding(&self) -> bool {
        self.outstanding > 0
    }

    /// The next request to send, if there is room for one.
    pub(super) fn next(&mut self) -> Option<Pull> {
        if self.oversize != Oversize::No {
            if self.oversize == Oversize::Asked || self.outstanding > 0 {
                return None;
            }
            self.oversize = Oversize::Asked;
            self.outstanding = 1;
            return Some(Pull { events: 1, bytes: None });
        }
        if !self.has_room() {
            return None;
        }
        self.outstanding += self.ahead.events;
        Some(Pull { events: self.ahead.events, bytes: Some(self.ahead.bytes.as_u64()) })
    }

    /// Whether another usual request would stay within the bound.
    pub(super) fn has_room(&self) -> bool {
        self.outstanding + self.ahead.events <= self.ahead.events * self.ahead.requests
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytesize::ByteSize;

    fn pulls() -> Pulls {
        Pulls::new(AheadConfig { events: 10, bytes: ByteSize::kib(1), requests: 2 })
    }

    #[test]
    fn no_more_is_asked_for_than_there_is_room_for() {
        let mut pulls = pulls();
        let usual = Pull { events: 10, bytes: Some(1024) };
        assert_eq!((pulls.next(), pulls.next()), (Some(usual), Some(Pull { events: 10, bytes: Some(1024) })));
        assert_eq!(pulls.next(), None);
        (0..9).for_each(|_| pulls.arrived());
        assert_eq!(pulls.next(), None);
        pulls.arrived();
        assert!(pulls.next().is_some());
        pulls.ended(Some(10));
        assert!(pulls.next().is_some());
    }

    #[test]
    fn a_message_over_the_limit_is_fetched_alone() {
        let mut pulls = pulls();
        assert!(pulls.next().is_some() && pulls.next().is_some());
        pulls.too_large(Some(10));
        assert_eq!(pulls.next(), None, "the other request comes first");
        pulls.too_large(Some(10));
        assert_eq!(pulls.next(), Some(Pull { events: 1, bytes: None }));
        assert_eq!(pulls.next(), None);
        pulls.arrived();
        assert_eq!(pulls.next(), Some(Pull { events: 10, bytes: Some(1024) }));
    }
}
