//! An HTTP client that shows everything: the status, the head and the body, over TCP or a unix socket.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::eventually;
use super::server::free_port;

/// What a server answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    /// The answer in these bytes; `None` if it is not whole.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let text = String::from_utf8(bytes.to_vec()).ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        let answer = Self { status, head: head.to_owned(), body: body.to_owned() };
        let length: usize = answer.header("content-length")?.parse().ok()?;
        (length == body.len()).then_some(answer)
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let pairs = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        pairs.filter(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

/// Where a collector serves HTTP.
#[derive(Clone, Copy, Debug)]
pub struct Observed(pub u16);

impl Observed {
    /// Has the collector of this command serve HTTP on a free port, and count as not ready after a second of trouble.
    pub fn on(command: &mut Command) -> Self {
        let port = free_port();
        command.env("CATCHMENT_OBSERVE__LISTEN", format!("127.0.0.1:{port}"));
        command.env("CATCHMENT_OBSERVE__UNREADY_AFTER", "1s");
        Self(port)
    }

    pub fn connect(self) -> std::io::Result<TcpStream> {
        let stream = TcpStream::connect(("127.0.0.1", self.0))?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(stream)
    }

    /// What is answered to these bytes, if anything.
    pub fn send(self, bytes: impl AsRef<[u8]>) -> Option<Answer> {
        let mut stream = self.connect().ok()?;
        stream.write_all(bytes.as_ref()).ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        Answer::parse(&answer)
    }

    pub fn try_get(self, target: &str) -> Option<Answer> {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"))
    }

    /// Waits until there is an answer.
    pub fn get(self, target: &str) -> Answer {
        eventually(&format!("an answer to {target}"), || self.try_get(target))
    }

    /// Waits until `/readyz` says this, for one of these reasons; the body.
    #[track_caller]
    pub fn ready(self, is_ready: bool, words: &[&str]) -> String {
        let mut last = String::new();
        eventually(&format!("readiness {is_ready} that says {words:?}"), || {
            let answer = self.try_get("/readyz")?;
            let found = answer.status == if is_ready { 200 } else { 503 };
            last = answer.body;
            let says = words.is_empty() || words.iter().any(|word| last.contains(word));
            (found && says).then_some(())
        });
        last
    }
}

/// What is answered on a unix socket.
pub fn on_socket(path: &Path, target: &str) -> Option<Answer> {
    let mut stream = UnixStream::connect(path).ok()?;
    stream.write_all(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    Answer::parse(&answer)
}
