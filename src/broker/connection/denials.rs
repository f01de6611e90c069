//! What the server denies on one connection.

use std::sync::{Arc, OnceLock};

use super::remarks::{ErrorListener, ServerRemark};
use crate::pipeline::Signal;

/// Notes the first denial of a connection. A server does not answer what it denies, so a request may stop waiting then.
#[derive(Clone, Debug, Default)]
pub(in crate::broker) struct Denials {
    denied: Signal,
    first: Arc<OnceLock<String>>,
}

impl Denials {
    /// Raised by the first denial.
    pub(in crate::broker) fn signal(&self) -> &Signal {
        &self.denied
    }

    /// What this user may not do, as part of a sentence: `may not publish to "a.b"`.
    pub(in crate::broker) fn first(&self) -> Option<&str> {
        self.first.get().map(String::as_str)
    }
}

impl ErrorListener for Denials {
    fn remarked(&self, remark: &ServerRemark) {
        let what = match remark {
            ServerRemark::PublishDenied(denial) => format!("may not publish to {}", denial.quoted_subject()),
            ServerRemark::SubscribeDenied(line) => format!("may not receive answers ({line})"),
            other => {
                log::warn!(event = "server.remark", remark:% = other; "broker: the server reports: {other}");
                return;
            }
        };
        let _ = self.first.set(what);
        self.denied.raise();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_denial_is_kept_and_other_remarks_are_none() {
        let denials = Denials::default();
        let remarked = |line: &str| denials.remarked(&ServerRemark::parse(line.into()));
        remarked("Stale Connection");
        assert!(!denials.signal().is_raised());
        remarked(r#"Permissions Violation for Publish to "a.b""#);
        remarked(r#"Permissions Violation for Subscription to "c""#);
        assert!(denials.signal().is_raised());
        assert_eq!(denials.first(), Some(r#"may not publish to "a.b""#));
    }
}
