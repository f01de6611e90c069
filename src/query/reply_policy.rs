//! Where we may publish for somebody else: who asks chooses the subject of the answer, and must not reach by that what they may
//! not publish to themselves.

use crate::broker::answerable;
use crate::config::BrokerConfig;
use crate::pipeline::Confirmation;
use crate::subject::Filter;

/// What the usual inboxes begin with.
const INBOX: &str = "_INBOX.";

#[derive(Clone, Debug)]
pub(super) struct Inboxes {
    prefixes: Vec<String>,
    /// What is collected.
    events: Vec<Filter>,
}

impl Inboxes {
    pub(super) fn of(broker: &BrokerConfig) -> Self {
        let own = broker.inbox_prefix.iter().map(|prefix| format!("{prefix}."));
        let prefixes = std::iter::once(INBOX.to_owned()).chain(own).collect();
        Self { prefixes, events: broker.subjects.iter().filter_map(|subject| subject.parse().ok()).collect() }
    }

    /// Whether a request may be answered there: anywhere but where an answer would become an event.
    pub(super) fn answer(&self, subject: &str) -> Result<(), String> {
        answerable(subject)?;
        if !self.has(subject) && self.events.iter().any(|events| events.matches(subject)) {
            return Err(format!("the subject {subject:?} is one of events"));
        }
        Ok(())
    }

    /// Whether an event may be confirmed there: in inboxes alone, for anybody may set the header that asks for it.
    pub(super) fn confirm(&self, subject: &str) -> Result<(), String> {
        answerable(subject)?;
        if self.has(subject) {
            return Ok(());
        }
        let (prefixes, header) = (self.prefixes.join(" or "), Confirmation::HEADER);
        Err(format!("the subject {subject:?} in its header {header} does not begin with {prefixes}"))
    }

    fn has(&self, subject: &str) -> bool {
        self.prefixes.iter().any(|prefix| subject.starts_with(prefix.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inboxes(prefix: Option<&str>, events: &str) -> Inboxes {
        let (inbox_prefix, subjects) = (prefix.map(str::to_owned), vec![events.to_owned()]);
        Inboxes::of(&BrokerConfig { inbox_prefix, subjects, ..BrokerConfig::default() })
    }

    #[test]
    fn events_are_confirmed_to_inboxes_only() {
        let (plain, own) = (inboxes(None, "events.>"), inboxes(Some("in.me"), "events.>"));
        assert!(
            plain.confirm("_INBOX.a.b").is_ok() && own.confirm("_INBOX.a").is_ok() && own.confirm("in.me.a").is_ok()
        );
        for subject in ["in.me.a", "events.a", "_INBOX", "_INBOXES.a", "_INBOX.*", "_INBOX.a b", "$JS.API.INFO", ""] {
            assert!(plain.confirm(subject).is_err(), "{subject}");
        }
        // A longer one fits no line of the protocol, and the server would end the connection.
        let long = format!("_INBOX.{}", "a".repeat(2_048));
        assert!(plain.confirm(&long[..2_048]).is_ok() && plain.confirm(&long).is_err() && plain.answer(&long).is_err());
        let why = plain.confirm("private.a").expect_err("must be refused");
        assert!(why.contains("\"private.a\" in its header Catchment-Reply-To does not begin with _INBOX."), "{why}");
    }

    #[test]
    fn no_answer_becomes_an_event() {
        let events = inboxes(None, "events.>");
        assert!(events.answer("_INBOX.a").is_ok() && events.answer("somebody.else").is_ok());
        assert!(events.answer("events.a").is_err() && events.answer("$JS.API.INFO").is_err());
        assert!(inboxes(None, ">").answer("_INBOX.a").is_ok(), "who collects everything collects answers too");
    }
}
