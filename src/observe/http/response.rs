//! An answer, and its bytes.

use std::fmt::Write;
use std::sync::Arc;

use time::OffsetDateTime;

use super::request::BadRequest;

/// Headers of every answer: it is not cached, and not shown inside other pages.
const HEADERS: &str = "Connection: close\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nX-Frame-Options: DENY\r\nReferrer-Policy: no-referrer\r\nCross-Origin-Resource-Policy: same-origin\r\nCross-Origin-Opener-Policy: same-origin\r\n";

/// What an answer that is no page may do: nothing.
const NOTHING: &str = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox";

/// An answer.
#[derive(Clone, Debug)]
pub(in crate::observe) struct Response {
    pub(in crate::observe) status: u16,
    content_type: &'static str,
    body: Arc<str>,
    policy: Option<Arc<str>>,
    /// A further header, with its line end.
    extra: &'static str,
}

impl Response {
    /// An answer with this body.
    pub(in crate::observe) fn new(status: u16, content_type: &'static str, body: impl Into<Arc<str>>) -> Self {
        Self { status, content_type, body: body.into(), policy: None, extra: "" }
    }

    /// Plain text.
    pub(in crate::observe) fn text(status: u16, body: impl Into<Arc<str>>) -> Self {
        Self::new(status, "text/plain; charset=utf-8", body)
    }

    /// With this Content-Security-Policy.
    pub(in crate::observe) fn with_policy(self, policy: Arc<str>) -> Self {
        Self { policy: Some(policy), ..self }
    }

    /// The answer to a request without the token.
    pub(in crate::observe) fn unauthorized() -> Self {
        let extra = "WWW-Authenticate: Bearer realm=\"catchment\"\r\nWWW-Authenticate: Basic realm=\"catchment\"\r\n";
        Self { extra, ..Self::text(401, "the token is missing or wrong\n") }
    }

    /// The answer to a request that cannot be served.
    pub(super) fn refused(why: BadRequest) -> Self {
        match why {
            BadRequest::Malformed => Self::text(400, "this is not a request that is understood\n"),
            BadRequest::Method => Self { extra: "Allow: GET, HEAD\r\n", ..Self::text(405, "only GET and HEAD\n") },
            BadRequest::TooLarge => Self::text(431, "the request is too large\n"),
        }
    }

    /// The answer to a client that took too long.
    pub(super) fn too_slow() -> Self {
        Self::text(408, "the request took too long\n")
    }

    /// The bytes to send.
    pub(in crate::observe) fn bytes(&self, is_head: bool) -> Vec<u8> {
        let mut text = String::with_capacity(1024 + if is_head { 0 } else { self.body.len() });
        let _ = write!(
            text,
            "HTTP/1.1 {} {}\r\nDate: {}\r\nContent-Type: {}\r\nContent-Length: {}\r\n{HEADERS}{}Content-Security-Policy: {}\r\n\r\n",
            self.status,
            reason(self.status),
            date(OffsetDateTime::now_utc()),
            self.content_type,
            self.body.len(),
            self.extra,
            self.policy.as_deref().unwrap_or(NOTHING),
        );
        if !is_head {
            text.push_str(&self.body);
        }
        text.into_bytes()
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        421 => "Misdirected Request",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        _ => "",
    }
}

/// A date as HTTP writes it: <https://www.rfc-editor.org/rfc/rfc9110#section-5.6.7>.
fn date(at: OffsetDateTime) -> String {
    let (weekday, month) = (at.weekday().to_string(), at.month().to_string());
    let (day, year) = (at.day(), at.year());
    let (hour, minute, second) = (at.hour(), at.minute(), at.second());
    format!("{}, {day:02} {} {year:04} {hour:02}:{minute:02}:{second:02} GMT", &weekday[..3], &month[..3])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_bounded_closed_and_not_kept() {
        let text = String::from_utf8(Response::text(200, "hello\n").bytes(false)).expect("UTF-8");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        assert_eq!(body, "hello\n");
        for line in ["HTTP/1.1 200 OK", "Content-Length: 6", "Connection: close", "Cache-Control: no-store"] {
            assert!(head.lines().any(|other| other == line), "{line}: {head}");
        }
        assert!(head.contains("\r\nContent-Security-Policy: default-src 'none'; "), "{head}");
        let only_head = String::from_utf8(Response::text(200, "hello\n").bytes(true)).expect("UTF-8");
        assert!(only_head.contains("Content-Length: 6\r\n") && only_head.ends_with("\r\n\r\n"), "{only_head}");
        assert_eq!(
            date(OffsetDateTime::from_unix_timestamp(784_111_777).expect("a time")),
            "Sun, 06 Nov 1994 08:49:37 GMT"
        );
    }
}
