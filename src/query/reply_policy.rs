//! The subjects that replies may be published on. A requester chooses the reply subject, so the service must not publish where the
//! requester itself may not.

use crate::broker::answerable;
use crate::config::BrokerConfig;
use crate::pipeline::Confirmation;
use crate::subject::Filter;

/// The usual inbox prefix.
const INBOX: &str = "_INBOX.";

/// Decides whether a reply subject is allowed.
#[derive(Clone, Debug)]
pub(super) struct ReplyPolicy {
    prefixes: Vec<String>,
    /// The subjects that are collected.
    events: Vec<Filter>,
}

impl ReplyPolicy {
    pub(super) fn of(broker: &BrokerConfig) -> Self {
        let own = broker.inbox_prefix.iter().map(|prefix| format!("{prefix}."));
        let prefixes = std::iter::once(INBOX.to_owned()).chain(own).collect();
        Self { prefixes, events: broker.filters().iter().filter_map(|subject| subject.parse().ok()).collect() }
    }

    /// Checks the reply subject of a request: every subject is allowed on which the answer would not become an event.
    pub(super) fn check_answer(&self, subject: &str) -> Result<(), String> {
        answerable(subject)?;
        if !self.has(subject) && self.events.iter().any(|events| events.matches(subject)) {
            return Err(format!("the subject {subject:?} is collected"));
        }
        Ok(())
    }

    /// Checks the reply subject of an event: only inboxes are allowed, because every publisher can set its header.
    pub(super) fn check_confirmation(&self, subject: &str) -> Result<(), String> {
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

    fn policy(prefix: Option<&str>, events: &str) -> ReplyPolicy {
        let (inbox_prefix, subjects) = (prefix.map(str::to_owned), vec![events.to_owned()]);
        ReplyPolicy::of(&BrokerConfig { inbox_prefix, subjects, ..BrokerConfig::default() })
    }

    #[test]
    fn events_are_confirmed_to_inboxes_only() {
        let (plain, own) = (policy(None, "events.>"), policy(Some("in.me"), "events.>"));
        assert!(
            plain.check_confirmation("_INBOX.a.b").is_ok()
                && own.check_confirmation("_INBOX.a").is_ok()
                && own.check_confirmation("in.me.a").is_ok()
        );
        for subject in ["in.me.a", "events.a", "_INBOX", "_INBOXES.a", "_INBOX.*", "_INBOX.a b", "$JS.API.INFO", ""] {
            assert!(plain.check_confirmation(subject).is_err(), "{subject}");
        }
        // A longer one exceeds a line of the protocol, and the server would close the connection.
        let long = format!("_INBOX.{}", "a".repeat(2_048));
        assert!(
            plain.check_confirmation(&long[..2_048]).is_ok()
                && plain.check_confirmation(&long).is_err()
                && plain.check_answer(&long).is_err()
        );
        let error = plain.check_confirmation("private.a").expect_err("must be refused");
        assert!(
            error.contains("\"private.a\" in its header Catchment-Reply-To does not begin with _INBOX."),
            "{error}"
        );
    }

    #[test]
    fn no_answer_goes_to_a_collected_subject() {
        let events = policy(None, "events.>");
        assert!(events.check_answer("_INBOX.a").is_ok() && events.check_answer("somebody.else").is_ok());
        assert!(events.check_answer("events.a").is_err() && events.check_answer("$JS.API.INFO").is_err());
        assert!(
            policy(None, ">").check_answer("_INBOX.a").is_ok(),
            "with every subject collected, inboxes stay allowed"
        );
    }
}
