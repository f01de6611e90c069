//! What the client reports beside messages: the server's errors, and messages that it dropped. Each is parsed here, once.

use std::fmt;

use crate::printable;

/// In the server's remark that a user may not publish to a subject: `Permissions Violation for Publish to "a.b"`.
const PUBLISH_DENIED: &str = "Violation for Publish to ";

/// The same of a subscription: `Permissions Violation for Subscription to "a.b"`.
const SUBSCRIBE_DENIED: &str = "violation for subscription";

/// The beginning of the client's remark that a subscription is over its limit; the subject follows.
const SLOW_CONSUMER: &str = "slow consumer detected for subscription on subject ";

/// Receives each remark of one connection.
///
/// The client calls it on the thread that reads the connection, with its locks held. So it must not call the client, and it must
/// keep a bounded number of remarks: a server may send any number of them.
pub(in crate::broker) trait ErrorListener: Send + Sync + 'static {
    fn remarked(&self, remark: &ServerRemark);
}

impl<F: Fn(&ServerRemark) + Send + Sync + 'static> ErrorListener for F {
    fn remarked(&self, remark: &ServerRemark) {
        self(remark);
    }
}

/// An error that the server or the client reports on a connection that stays open. Displayed as it was reported, on one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerRemark {
    /// This user may not publish to a subject.
    PublishDenied(Denial),
    /// This user may not subscribe to a subject.
    SubscribeDenied(String),
    /// The client dropped a message: its subscription is over its limit.
    SlowConsumer {
        /// The subscription's subject.
        subject: String,
        /// As it was reported.
        line: String,
    },
    /// Anything else.
    Other(String),
}

/// That this user may not publish to a subject. Displayed as the server reported it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    subject: String,
    line: String,
}

impl ServerRemark {
    pub(in crate::broker) fn parse(line: String) -> Self {
        if let Some(subject) = line.strip_prefix(SLOW_CONSUMER) {
            let subject = subject.strip_suffix(". dropping messages").unwrap_or(subject).to_owned();
            return Self::SlowConsumer { subject, line };
        }
        if let Some(denial) = Denial::parse(&line) {
            return Self::PublishDenied(denial);
        }
        if line.to_lowercase().contains(SUBSCRIBE_DENIED) { Self::SubscribeDenied(line) } else { Self::Other(line) }
    }

    /// As it was reported.
    pub(in crate::broker) fn line(&self) -> &str {
        match self {
            Self::PublishDenied(denial) => &denial.line,
            Self::SlowConsumer { line, .. } | Self::SubscribeDenied(line) | Self::Other(line) => line,
        }
    }
}

impl Denial {
    /// Reads a remark of the server; `None` where it is about something else.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let (_, subject) = line.split_once(PUBLISH_DENIED)?;
        Some(Self { subject: subject.to_owned(), line: line.to_owned() })
    }

    /// Whether it is about this subject.
    #[must_use]
    pub fn is_about(&self, subject: &str) -> bool {
        self.subject == quoted(subject)
    }

    /// The subject as the server quotes it.
    pub(in crate::broker) fn quoted_subject(&self) -> &str {
        &self.subject
    }
}

impl fmt::Display for ServerRemark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.line())
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line)
    }
}

/// A subject as the server quotes it, in Go's syntax.
pub(in crate::broker) fn quoted(subject: &str) -> String {
    format!("\"{}\"", subject.replace('\\', "\\\\").replace('"', "\\\""))
}

/// An error's text on one line. It may come from the server and contain a subject that anybody chose.
pub(in crate::broker) fn one_line(error: &std::io::Error) -> String {
    printable(&error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_remark_is_told_from_the_others() {
        let parse = |line: &str| ServerRemark::parse(line.to_owned());
        let ServerRemark::PublishDenied(denial) = parse(r#"Permissions Violation for Publish to "a.\"\\""#) else {
            panic!("a denial")
        };
        assert!(denial.is_about(r#"a."\"#) && !denial.is_about("a"));
        for line in [
            r#"Permissions Violation for Subscription to "a""#,
            r#"permissions violation for subscription to "a" using queue "q""#,
        ] {
            assert_eq!(parse(line), ServerRemark::SubscribeDenied(line.into()));
        }
        let slow = parse("slow consumer detected for subscription on subject a.b. dropping messages");
        assert!(matches!(&slow, ServerRemark::SlowConsumer { subject, .. } if subject == "a.b"), "{slow:?}");
        for line in ["", "Stale Connection", "Permissions Violation for Publish with Reply of \"a\""] {
            assert_eq!(parse(line), ServerRemark::Other(line.into()));
            assert_eq!(parse(line).to_string(), line);
        }
    }
}
