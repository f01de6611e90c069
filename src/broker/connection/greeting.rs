//! A server's greeting, read before the client connects, because the client waits for it without a time-out.
//!
//! A NATS server sends an `INFO` line to each client that connects
//! (<https://docs.nats.io/reference/reference-protocols/nats-protocol#info>). A server that accepts and sends nothing, a stopped
//! process for instance, would hold the client's `connect` for ever.

use std::io::{ErrorKind, Read};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::problem::Problem;
use crate::error::BrokerFault;
use crate::printable;

/// Longer than any `INFO` line; a cluster's addresses are in it.
const LONGEST: usize = 256 << 10;

/// A server with `handshake_first` waits for the client to begin with TLS, which the NATS client cannot do. With
/// `handshake_first: auto` it greets after a moment: <https://docs.nats.io/running-a-nats-service/configuration/securing_nats/tls>.
const TLS_FIRST: &str = "(one with handshake_first must have it set to auto)";

/// The parts of `INFO` that matter before connecting.
#[derive(Debug, Deserialize)]
pub(in crate::broker) struct Greeting {
    /// The server's version, as `2.10.25`.
    pub(in crate::broker) version: String,
    /// The other servers of its cluster, host and port.
    #[serde(default)]
    pub(in crate::broker) connect_urls: Vec<String>,
    /// It takes TLS connections only.
    #[serde(default)]
    pub(in crate::broker) tls_required: bool,
    /// It takes TLS connections and others.
    #[serde(default)]
    pub(in crate::broker) tls_available: bool,
    /// It asks for a client certificate.
    #[serde(default)]
    pub(in crate::broker) tls_verify: bool,
}

/// Connects, reads the greeting, and closes the connection.
pub(in crate::broker) fn receive(host: &str, port: u16, within: Duration) -> Result<Greeting, Problem> {
    let deadline = Instant::now() + within;
    let unreachable = |what: String| {
        Problem::new(BrokerFault::Unreachable, what).with_remedy("check that nats-server runs at this address")
    };
    let addresses = (host, port).to_socket_addrs().map_err(|e| unreachable(e.to_string()))?;
    let mut last = unreachable("the name has no address".into());
    for address in addresses {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        match TcpStream::connect_timeout(&address, left) {
            Ok(stream) => match read(stream, deadline, within) {
                Ok(greeting) => return Ok(greeting),
                Err(problem) => last = problem,
            },
            Err(e) => last = unreachable(e.to_string()),
        }
    }
    Err(last)
}

fn read(mut stream: TcpStream, deadline: Instant, within: Duration) -> Result<Greeting, Problem> {
    let silent = || {
        let what = format!("accepts connections but sent nothing in {:.1} s", within.as_secs_f64());
        Problem::new(BrokerFault::Silent, what)
            .with_remedy(format!("check that the server is not stopped or stuck {TLS_FIRST}"))
    };
    let other = |what: &str| Problem::new(BrokerFault::Silent, what).with_remedy("check the port");
    let mut line = Vec::new();
    let mut chunk = [0; 4096];
    while !line.contains(&b'\n') {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(silent());
        }
        stream.set_read_timeout(Some(left)).map_err(|e| other(&e.to_string()))?;
        match stream.read(&mut chunk) {
            Ok(0) => return Err(other(&format!("closed the connection without a greeting {TLS_FIRST}"))),
            Ok(n) => line.extend_from_slice(&chunk[..n]),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Err(silent()),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(other(&e.to_string())),
        }
        if line.len() > LONGEST {
            return Err(other("answers, but not like a NATS server"));
        }
    }
    let end = line.iter().position(|&byte| byte == b'\n').unwrap_or(line.len());
    let json = line[..end].strip_prefix(b"INFO ").ok_or_else(|| other("does not greet like a NATS server"))?;
    let mut greeting: Greeting = serde_json::from_slice(json)
        .map_err(|e| other(&format!("its greeting cannot be read: {}", printable(&e.to_string()))))?;
    greeting.version = printable(&greeting.version).into_owned();
    Ok(greeting)
}
