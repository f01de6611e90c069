//! The port of a server of our own.
//!
//! The system's own choice is not used: it is one of the ports for outgoing connections. While the server is down, such a port may go to
//! another program, or to a client that tries to connect there again and so connects to itself.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::broker::connection::receive_greeting;

/// Below the ports for outgoing connections, as systems have them by default, and above those of most services.
const RANGE: Range<u16> = 10_000..32_000;

/// How many ports to try before the system chooses one.
const TRIES: u16 = 100;

/// How long the program on a port may take to send its greeting.
const GREETING: Duration = Duration::from_millis(500);

/// Which port of the loopback address a server listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerPort {
    /// Any free port.
    Any,
    /// The port of the last server with the same folder if it is free, else any free port.
    Kept,
    /// This port.
    Fixed(u16),
}

/// Where the port is kept.
pub(super) fn file(folder: &Path) -> PathBuf {
    folder.join("port")
}

/// The port of the last server in this folder.
fn last(folder: &Path) -> Option<u16> {
    std::fs::read_to_string(file(folder)).ok()?.trim().parse().ok()
}

/// Keeps the port for the next server in this folder.
pub(super) fn keep(folder: &Path, port: u16) -> std::io::Result<()> {
    if last(folder) == Some(port) { Ok(()) } else { std::fs::write(file(folder), format!("{port}\n")) }
}

/// Chooses the port. It is free now.
///
/// # Errors
///
/// Why it cannot be used, and what to do.
pub(super) fn choose(port: ServerPort, folder: &Path) -> Result<u16, (String, Option<String>)> {
    let any = || any().map_err(|e| (format!("there is no free port: {e}"), None));
    match port {
        ServerPort::Fixed(port) => listen(port).map(|_| port).map_err(|e| refused(port, &e)),
        ServerPort::Kept => last(folder).filter(|port| is_free(*port)).map_or_else(any, Ok),
        ServerPort::Any => any(),
    }
}

/// Whether a server could listen on this port.
pub(super) fn is_free(port: u16) -> bool {
    port != 0 && listen(port).is_ok()
}

fn listen(port: u16) -> std::io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
}

fn any() -> std::io::Result<u16> {
    // Where in the range to begin: two programs that start at once begin at different places.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let start = u64::from(now.subsec_micros()) + u64::from(std::process::id()) * 7_919;
    let number = u64::try_from(RANGE.len()).unwrap_or(1);
    let ports = (0..TRIES).filter_map(|at| u16::try_from((start + u64::from(at)) % number).ok());
    match ports.map(|offset| RANGE.start + offset).find(|port| is_free(*port)) {
        Some(port) => Ok(port),
        None => Ok(listen(0)?.local_addr()?.port()),
    }
}

fn refused(port: u16, error: &std::io::Error) -> (String, Option<String>) {
    if error.kind() != ErrorKind::AddrInUse {
        return (format!("cannot listen on port {port} of 127.0.0.1: {error}"), Some("choose another port".into()));
    }
    let holder = match receive_greeting("127.0.0.1", port, GREETING) {
        Ok(greeting) => format!("another nats-server (version {})", greeting.version),
        Err(_) => "another program".into(),
    };
    let remedy = format!("end that one (ss -ltnp 'sport = :{port}' shows it), or choose another port");
    (format!("port {port} of 127.0.0.1 is used by {holder}"), Some(remedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_port_is_chosen_again_where_it_is_free() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = choose(ServerPort::Kept, folder.path()).expect("a port");
        assert!(RANGE.contains(&first), "{first}");
        keep(folder.path(), first).expect("writes");
        assert_eq!(choose(ServerPort::Kept, folder.path()), Ok(first));
        let taken = listen(first).expect("is free");
        let other = choose(ServerPort::Kept, folder.path()).expect("a port");
        assert_ne!(other, first);
        drop(taken);
        for nonsense in ["", "0", "many", "99999"] {
            std::fs::write(file(folder.path()), nonsense).expect("writes");
            assert!(choose(ServerPort::Kept, folder.path()).is_ok_and(|port| port != 0), "{nonsense:?}");
        }
    }

    #[test]
    fn a_given_port_that_is_taken_is_refused_by_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let taken = listen(0).expect("a port");
        let port = taken.local_addr().expect("an address").port();
        let (what, remedy) = choose(ServerPort::Fixed(port), folder.path()).expect_err("is taken");
        assert_eq!(what, format!("port {port} of 127.0.0.1 is used by another program"));
        assert!(remedy.is_some_and(|remedy| remedy.contains(&format!("sport = :{port}"))));
    }
}
