//! Which path has which answer, and who may ask.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use sha2::{Digest, Sha256};

use super::http::{Request, Response};
use super::metrics;
use super::observer::Observer;
use super::page;
use super::snapshot::{Snapshot, Trouble};
use super::summary::seconds;

/// How long an answer is given again, so that many requests cost no more than a few.
const FRESH: Duration = Duration::from_millis(100);

const JSON: &str = "application/json; charset=utf-8";

/// Who may ask over TCP.
#[derive(Debug)]
pub(super) struct Access {
    /// The SHA-256 of the token: comparing two of them takes the same time for every wrong token.
    token: Option<[u8; 32]>,
}

impl Access {
    pub(super) fn new(token: Option<String>) -> Self {
        Self { token: token.map(|token| Sha256::digest(token).into()) }
    }

    /// `None` if the request may be answered.
    fn refusal(&self, request: &Request) -> Option<Response> {
        if request.is_of_owner {
            return None;
        }
        if let Some(token) = &self.token {
            let given = request.authorization.as_deref().and_then(secret_of);
            let is_right = given.is_some_and(|given| <[u8; 32]>::from(Sha256::digest(given)) == *token);
            return (!is_right && request.path != "/healthz").then(Response::unauthorized);
        }
        // A name that leads to loopback can be anybody's: a page elsewhere could read the answers under it (DNS rebinding).
        let is_known = request.host.as_deref().is_none_or(names_an_address);
        (!is_known).then(|| Response::text(421, "ask for an IP address or localhost, or set observe.token\n"))
    }
}

/// The token of a bearer, or the password of basic authentication.
fn secret_of(authorization: &str) -> Option<Vec<u8>> {
    let (scheme, rest) = authorization.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.trim().as_bytes().to_vec());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = data_encoding::BASE64.decode(rest.trim().as_bytes()).ok()?;
    let colon = pair.iter().position(|byte| *byte == b':')?;
    Some(pair[colon + 1..].to_vec())
}

/// Whether a header `Host` has an IP address or localhost, with or without a port.
fn names_an_address(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

/// Answers requests.
pub(super) struct Site {
    observer: Observer,
    access: Access,
    last: Option<Last>,
}

/// The last answers.
struct Last {
    made: Instant,
    snapshot: Snapshot,
    page: Option<Arc<str>>,
    metrics: Option<Arc<str>>,
}

impl Site {
    pub(super) fn new(observer: Observer, access: Access) -> Self {
        Self { observer, access, last: None }
    }

    /// The answer to a request. Does not block.
    pub(super) fn answer(&mut self, request: &Request) -> Response {
        if let Some(refusal) = self.access.refusal(request) {
            return refusal;
        }
        match request.path.as_str() {
            "/" => {
                let observer = self.observer.clone();
                let last = self.last();
                let html = last.page.get_or_insert_with(|| page::html(&last.snapshot, &observer.samples()).into());
                Response::new(200, "text/html; charset=utf-8", Arc::clone(html)).with_policy(page::policy())
            }
            "/metrics" => {
                let last = self.last();
                let is_old = metrics::wants_old(&request.accept);
                if is_old {
                    let (content_type, text) = metrics::old_text(last.snapshot.clone());
                    return Response::new(200, content_type, text);
                }
                let text = last.metrics.get_or_insert_with(|| metrics::text(last.snapshot.clone()).into());
                Response::new(200, metrics::OPEN_METRICS, Arc::clone(text))
            }
            "/healthz" => Response::text(200, "ok\n"),
            "/readyz" => ready(self.snapshot(), request.wants_json()),
            "/status" => {
                let text = serde_json::to_string(self.snapshot()).unwrap_or_default();
                Response::new(200, JSON, text + "\n")
            }
            _ => Response::text(404, "there are /, /metrics, /healthz, /readyz and /status\n"),
        }
    }

    fn snapshot(&mut self) -> &Snapshot {
        &self.last().snapshot
    }

    fn last(&mut self) -> &mut Last {
        let now = Instant::now();
        self.last.take_if(|last| now - last.made >= FRESH);
        self.last.get_or_insert_with(|| Last {
            made: now,
            snapshot: self.observer.snapshot(),
            page: None,
            metrics: None,
        })
    }
}

fn ready(snapshot: &Snapshot, wants_json: bool) -> Response {
    let status = if snapshot.ready { 200 } else { 503 };
    if wants_json {
        let body = json!({ "ready": snapshot.ready, "state": snapshot.state, "reasons": snapshot.reasons });
        return Response::new(status, JSON, body.to_string() + "\n");
    }
    if snapshot.ready {
        return Response::text(200, "ready\n");
    }
    let line =
        |Trouble { part, reason, for_seconds }: &Trouble| format!("{part}, for {}: {reason}\n", seconds(*for_seconds));
    Response::text(503, "not ready\n".to_owned() + &snapshot.reasons.iter().map(line).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    fn request(path: &str) -> Request {
        Request { path: path.into(), host: Some("127.0.0.1:9464".into()), ..Request::default() }
    }

    fn site(token: Option<&str>) -> Site {
        Site::new(Observer::new(&Config::default()), Access::new(token.map(str::to_owned)))
    }

    #[test]
    fn with_a_token_only_its_holder_gets_more_than_a_sign_of_life() {
        let mut site = site(Some("0123456789abcdef"));
        let mut status = |authorization: Option<&str>| {
            let authorization = authorization.map(str::to_owned);
            site.answer(&Request { authorization, ..request("/status") }).status
        };
        for wrong in [None, Some("Bearer 0123456789abcdeg"), Some("0123456789abcdef"), Some("Basic x"), Some("Bearer ")]
        {
            assert_eq!(status(wrong), 401, "{wrong:?}");
        }
        let basic = format!("Basic {}", data_encoding::BASE64.encode(b"me:0123456789abcdef"));
        for right in ["Bearer 0123456789abcdef", "bearer 0123456789abcdef", &basic] {
            assert_eq!(status(Some(right)), 200, "{right}");
        }
        assert_eq!(site.answer(&request("/healthz")).status, 200);
        assert_eq!(site.answer(&request("/nothing")).status, 401);
        assert_eq!(site.answer(&Request { is_of_owner: true, ..request("/status") }).status, 200);
    }

    #[test]
    fn without_a_token_no_other_name_leads_here() {
        let mut site = site(None);
        let mut status =
            |host: Option<&str>| site.answer(&Request { host: host.map(str::to_owned), ..request("/healthz") }).status;
        for host in [None, Some("localhost:9464"), Some("127.0.0.1"), Some("[::1]:9464"), Some("LOCALHOST")] {
            assert_eq!(status(host), 200, "{host:?}");
        }
        for host in ["evil.example:9464", "", "localhost.evil.example", "127.0.0.1.evil.example"] {
            assert_eq!(status(Some(host)), 421, "{host:?}");
        }
    }

    #[test]
    fn a_collector_that_has_not_started_is_not_ready() {
        let mut site = site(None);
        let answer = String::from_utf8(site.answer(&request("/readyz")).bytes(false)).expect("UTF-8");
        assert!(
            answer.starts_with("HTTP/1.1 503 ") && answer.contains("\r\n\r\nnot ready\ncollector, for 0 s: "),
            "{answer}"
        );
        let json = Request { query: "format=json".into(), ..request("/readyz") };
        let answer = String::from_utf8(site.answer(&json).bytes(false)).expect("UTF-8");
        let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
        let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(
            (&body["ready"], &body["state"], &body["reasons"][0]["part"]),
            (&json!(false), &json!("starting"), &json!("collector"))
        );
    }
}
