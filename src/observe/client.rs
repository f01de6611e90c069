//! Asks a running collector over its socket.

use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use super::snapshot::Snapshot;
use super::socket::{connect, socket_path};

/// The longest answer that is read.
const LONGEST: u64 = 16 << 20;

/// What a collector answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code of HTTP: 200, 503.
    pub status: u16,
    /// The body.
    pub body: String,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// No collector uses the database, or one that has no socket. The text says where was looked.
    #[error("no collector listens at {0}")]
    NobodyRuns(String),
    /// The collector did not answer in time.
    #[error("{0}")]
    NoAnswer(String),
    /// The collector cannot be asked, or its answer cannot be read.
    #[error("{0}")]
    Failed(String),
}

/// Whether this user may ask the collector of this database, as far as the socket's permissions show. `true` if there is no socket.
pub fn may_ask(database: &Path) -> bool {
    let found = rustix::fs::access(socket_path(database), rustix::fs::Access::WRITE_OK);
    found.map_or_else(|error| error != rustix::io::Errno::ACCESS, |()| true)
}

/// Asks the collector of this database for a path, as `/status`. Blocks at most for about `timeout`.
///
/// # Errors
///
/// [`AskError::NobodyRuns`] if there is no socket or nobody listens on it.
pub fn ask(database: &Path, target: &str, timeout: Duration) -> Result<Answer, AskError> {
    ask_socket(&socket_path(database), target, timeout)
}

/// The figures of the collector of this database. Blocks at most for about `timeout`.
///
/// # Errors
///
/// As [`ask`]; [`AskError::Failed`] also if the answer is of another version that has other fields.
pub fn ask_snapshot(database: &Path, timeout: Duration) -> Result<Snapshot, AskError> {
    let answer = ask(database, "/status", timeout)?;
    if answer.status != 200 {
        return Err(AskError::Failed(format!("the collector answered with status {}", answer.status)));
    }
    let unreadable = |error| format!("the collector's answer cannot be read, it may be of another version: {error}");
    serde_json::from_str(&answer.body).map_err(|error| AskError::Failed(unreadable(error)))
}

fn ask_socket(path: &Path, target: &str, timeout: Duration) -> Result<Answer, AskError> {
    let shown = path.display();
    let mut stream = connect(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused | ErrorKind::NotADirectory => {
            AskError::NobodyRuns(shown.to_string())
        }
        ErrorKind::PermissionDenied => {
            AskError::Failed(format!("{shown}: permission denied; only the user who runs the collector may ask it"))
        }
        _ => AskError::Failed(format!("{shown}: {error}")),
    })?;
    let until = Instant::now() + timeout;
    let asked = stream.set_write_timeout(Some(timeout)).and_then(|()| {
        let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        read_until(&mut stream, until, |stream, left| stream.set_read_timeout(Some(left)))
    });
    let bytes = asked.map_err(|error| match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => AskError::NoAnswer(format!("{shown}: no answer in {timeout:?}")),
        _ => AskError::Failed(format!("{shown}: {error}")),
    })?;
    parse(&bytes).ok_or_else(|| AskError::Failed(format!("{shown}: the answer is not HTTP")))
}

/// Reads to the end, at most until the deadline.
fn read_until<S: Read>(
    stream: &mut S,
    until: Instant,
    limit: impl Fn(&S, Duration) -> io::Result<()>,
) -> io::Result<Vec<u8>> {
    let (mut bytes, mut part) = (Vec::new(), [0; 16 << 10]);
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        limit(stream, left)?;
        match stream.read(&mut part) {
            Ok(0) => return Ok(bytes),
            Ok(read) => bytes.extend_from_slice(&part[..read]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if bytes.len() as u64 > LONGEST {
            return Err(io::Error::new(ErrorKind::InvalidData, "the answer is too long"));
        }
    }
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(begin) = response.parse(bytes).ok()? else { return None };
    let status = response.code?;
    let length = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"))?;
    let length: usize = std::str::from_utf8(length.value).ok()?.parse().ok()?;
    let body = bytes.get(begin..).filter(|body| body.len() == length)?;
    Some(Answer { status, body: String::from_utf8_lossy(body).into_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::socket::OwnSocket;

    #[test]
    fn an_answer_is_whole_or_none() {
        let answer = parse(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 3\r\n\r\nabc");
        assert_eq!(answer, Some(Answer { status: 503, body: "abc".into() }));
        for bad in ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabc", "SSH-2.0\r\n\r\n"] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn nobody_a_silent_one_and_one_that_hangs_up_are_told_apart() {
        let folder = tempfile::tempdir().expect("a folder");
        let database = folder.path().join("a.db");
        let asked = |timeout| ask(&database, "/status", timeout).expect_err("no answer");
        assert!(matches!(asked(Duration::from_secs(9)), AskError::NobodyRuns(_)));
        let socket = OwnSocket::bind(&socket_path(&database)).expect("binds");
        assert!(asked(Duration::from_millis(50)).to_string().contains("no answer in 50ms"));
        std::thread::scope(|scope| {
            scope.spawn(|| (0..2).for_each(|_| drop(socket.listener.accept().expect("accepts"))));
            assert!(matches!(asked(Duration::from_secs(60)), AskError::Failed(_)));
        });
        let path = socket.path.clone();
        let left_behind = folder.path().join("left");
        std::fs::hard_link(&path, &left_behind).expect("a link");
        drop(socket);
        std::fs::rename(left_behind, path).expect("is back");
        assert!(matches!(asked(Duration::from_secs(9)), AskError::NobodyRuns(_)));
    }
}
