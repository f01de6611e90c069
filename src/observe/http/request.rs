//! A request: its method, its path and the few headers that count.

use httparse::Status;

/// The most headers of a request.
const MAX_HEADERS: usize = 64;

/// A request for a path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::observe) struct Request {
    /// Only the headers of the answer are needed.
    pub(in crate::observe) is_head: bool,
    /// The path, without the query.
    pub(in crate::observe) path: String,
    /// What follows the question mark, or nothing.
    pub(in crate::observe) query: String,
    pub(in crate::observe) host: Option<String>,
    pub(in crate::observe) accept: String,
    pub(in crate::observe) authorization: Option<String>,
    /// It came over a socket that only its owner can use.
    pub(in crate::observe) is_of_owner: bool,
}

/// Why a request is not answered as it asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadRequest {
    /// It is not HTTP, or not a form of it that is served.
    Malformed,
    /// Another method than GET or HEAD.
    Method,
    /// It has too many headers.
    TooLarge,
}

impl Request {
    /// The request at the beginning of these bytes; `None` if it is not complete.
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<Self>, BadRequest> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut parsed = httparse::Request::new(&mut headers);
        match parsed.parse(bytes) {
            Ok(Status::Complete(_)) => {}
            Ok(Status::Partial) => return Ok(None),
            Err(httparse::Error::TooManyHeaders) => return Err(BadRequest::TooLarge),
            Err(_) => return Err(BadRequest::Malformed),
        }
        let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
            return Err(BadRequest::Malformed);
        };
        if method != "GET" && method != "HEAD" {
            return Err(BadRequest::Method);
        }
        let mut request = Self { is_head: method == "HEAD", ..Self::default() };
        let target = path_of(target).ok_or(BadRequest::Malformed)?;
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        (request.path, request.query) = (path.to_owned(), query.to_owned());
        for header in parsed.headers.iter() {
            let Ok(value) = std::str::from_utf8(header.value) else { return Err(BadRequest::Malformed) };
            let value = value.trim().to_owned();
            match header.name.to_ascii_lowercase().as_str() {
                // With two of them, two programs could take different ones.
                "host" if request.host.is_some() => return Err(BadRequest::Malformed),
                "authorization" if request.authorization.is_some() => return Err(BadRequest::Malformed),
                "host" => request.host = Some(value),
                "authorization" => request.authorization = Some(value),
                "accept" => request.accept = value,
                _ => {}
            }
        }
        // HTTP/1.1 requires it: <https://www.rfc-editor.org/rfc/rfc9112#section-3.2>.
        if version == 1 && request.host.is_none() {
            return Err(BadRequest::Malformed);
        }
        Ok(Some(request))
    }

    /// Whether JSON is asked for, with `?format=json` or in the header `Accept`.
    pub(in crate::observe) fn wants_json(&self) -> bool {
        self.query.split('&').any(|pair| pair == "format=json")
            || self.accept.split(',').any(|kind| kind.trim().starts_with("application/json"))
    }
}

/// The path of a target, which may be a whole address: <https://www.rfc-editor.org/rfc/rfc9112#section-3.2.2>.
fn path_of(target: &str) -> Option<&str> {
    if target.starts_with('/') {
        return Some(target);
    }
    let rest = target.strip_prefix("http://")?;
    Some(rest.find('/').map_or("/", |at| &rest[at..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_its_path_and_a_few_headers() {
        let text =
            "GET /readyz?format=json HTTP/1.1\r\nHost: a:1\r\nauthorization: Bearer x\r\nACCEPT: text/html\r\n\r\n";
        let request = Request::parse(text.as_bytes()).expect("well-formed").expect("whole");
        assert_eq!((&*request.path, request.is_head, request.host.as_deref()), ("/readyz", false, Some("a:1")));
        assert_eq!((request.authorization.as_deref(), &*request.accept), (Some("Bearer x"), "text/html"));
        assert!(request.wants_json());
        let path = |line: &str| {
            let request = Request::parse(format!("{line} HTTP/1.0\r\n\r\n").as_bytes());
            request.map(|request| request.map(|request| request.path))
        };
        assert_eq!(path("HEAD http://a:1/b"), Ok(Some("/b".into())));
        assert_eq!(path("GET http://a"), Ok(Some("/".into())));
        for prefix in 0..text.len() {
            assert_eq!(Request::parse(&text.as_bytes()[..prefix]), Ok(None), "{prefix}");
        }
    }

    #[test]
    fn what_is_not_such_a_request_is_refused() {
        let refused = |text: &str| Request::parse(text.as_bytes()).expect_err("must be refused");
        for text in [
            "\x16\x03\x01\x02",
            "GET  HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET a HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/2.0\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
            "GET / HTTP/1.0\r\nAuthorization: a\r\nAuthorization: b\r\n\r\n",
        ] {
            assert_eq!(refused(text), BadRequest::Malformed, "{text:?}");
        }
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "CONNECT", "get"] {
            assert_eq!(refused(&format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n")), BadRequest::Method);
        }
        let many = "A: b\r\n".repeat(MAX_HEADERS + 1);
        assert_eq!(refused(&format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n")), BadRequest::TooLarge);
    }
}
