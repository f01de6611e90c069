//! A bad network between a client and a server: it swallows, cuts, slows down, refuses, and heals.
//!
//! It passes whole protocol messages on, so that what is let through after a fault is in step again.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use parking_lot::Mutex;

use super::eventually;
use super::server::free_port;

/// Says of a protocol message, its payload included, whether it is passed on.
type Filter = Arc<dyn Fn(&[u8]) -> bool + Send + Sync>;

/// One direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    ToServer,
    ToClient,
}

pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    target: u16,
    over: AtomicBool,
    refuses: AtomicBool,
    connections: AtomicU64,
    faults: Mutex<Faults>,
    pairs: Mutex<Vec<Weak<Pair>>>,
}

#[derive(Clone, Default)]
struct Faults {
    to_server: Option<Filter>,
    to_client: Option<Filter>,
    bytes_per_second: Option<usize>,
    cut_payload_after: Option<usize>,
}

/// Both ends of a connection that goes through here.
struct Pair {
    client: TcpStream,
    server: TcpStream,
    cut: AtomicBool,
}

impl Proxy {
    /// Leads to this port of the loopback address.
    pub fn start(target: u16) -> Self {
        let port = free_port();
        let shared = Arc::new(Shared {
            target,
            over: AtomicBool::new(false),
            refuses: AtomicBool::new(false),
            connections: AtomicU64::new(0),
            faults: Mutex::default(),
            pairs: Mutex::default(),
        });
        let listens = Arc::clone(&shared);
        let first = TcpListener::bind(("127.0.0.1", port)).expect("a free port");
        let thread = std::thread::spawn(move || listens.listen(first, port));
        Self { port, shared, thread: Some(thread) }
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// How many connections there have been.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// How many there are now.
    pub fn open(&self) -> usize {
        self.shared.pairs.lock().iter().filter(|pair| pair.strong_count() > 0).count()
    }

    /// From now on passes on only what `filter` takes; the rest goes nowhere, without a word.
    pub fn only(&self, way: Way, filter: impl Fn(&[u8]) -> bool + Send + Sync + 'static) {
        let mut faults = self.shared.faults.lock();
        match way {
            Way::ToServer => faults.to_server = Some(Arc::new(filter)),
            Way::ToClient => faults.to_client = Some(Arc::new(filter)),
        }
    }

    /// Passes nothing on in this direction. Connections stay open, and new ones are accepted.
    pub fn swallow(&self, way: Way) {
        self.only(way, |_| false);
    }

    /// Drops what a client sends on subjects that begin so.
    pub fn drop_published(&self, prefix: &'static str) {
        self.only(Way::ToServer, move |message| !subject(message).is_some_and(|it| it.starts_with(prefix.as_bytes())));
    }

    /// Drops what a stream says to those who publish.
    pub fn drop_publish_acknowledgements(&self) {
        self.only(Way::ToClient, |message| !is_publish_acknowledgement(message));
    }

    /// Passes on so many bytes a second, each connection and direction.
    pub fn throttle(&self, bytes_per_second: usize) {
        self.shared.faults.lock().bytes_per_second = Some(bytes_per_second);
    }

    /// Cuts the connection after so many bytes of the next payload to a client that is longer.
    pub fn cut_payload_after(&self, bytes: usize) {
        self.shared.faults.lock().cut_payload_after = Some(bytes);
    }

    /// Resets all connections, and returns when they are gone.
    pub fn cut(&self) {
        let pairs = std::mem::take(&mut *self.shared.pairs.lock());
        pairs.iter().filter_map(Weak::upgrade).for_each(|pair| pair.reset());
        eventually("the connections to end", || pairs.iter().all(|pair| pair.strong_count() == 0).then_some(()));
    }

    /// Lets nobody connect any more. What is connected stays.
    pub fn refuse(&self) {
        self.shared.refuses.store(true, Ordering::Relaxed);
        eventually("the port to be closed", || TcpStream::connect(("127.0.0.1", self.port)).err());
    }

    /// Passes everything on again.
    pub fn heal(&self) {
        *self.shared.faults.lock() = Faults::default();
        if self.shared.refuses.swap(false, Ordering::Relaxed) {
            eventually("the port to be open", || TcpStream::connect(("127.0.0.1", self.port)).ok());
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        self.shared.pairs.lock().iter().filter_map(Weak::upgrade).for_each(|pair| pair.reset());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn listen(self: &Arc<Self>, first: TcpListener, port: u16) {
        let mut listener = Some(first);
        while !self.over.load(Ordering::Relaxed) {
            if self.refuses.load(Ordering::Relaxed) {
                listener = None;
            } else if listener.is_none() {
                listener = TcpListener::bind(("127.0.0.1", port)).ok();
            }
            let visitor = listener.as_ref().and_then(|listener| {
                listener.set_nonblocking(true).ok()?;
                listener.accept().ok()
            });
            match visitor {
                Some((client, _)) => self.serve(client),
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    fn serve(self: &Arc<Self>, client: TcpStream) {
        self.connections.fetch_add(1, Ordering::Relaxed);
        let Ok(server) = TcpStream::connect(("127.0.0.1", self.target)) else { return reset(&client) };
        for stream in [&client, &server] {
            stream.set_nonblocking(false).expect("sets");
            stream.set_nodelay(true).expect("sets");
            stream.set_write_timeout(Some(Duration::from_millis(20))).expect("sets");
        }
        let pair = Arc::new(Pair { client, server, cut: AtomicBool::new(false) });
        let mut pairs = self.pairs.lock();
        pairs.retain(|pair| pair.strong_count() > 0);
        pairs.push(Arc::downgrade(&pair));
        for way in [Way::ToServer, Way::ToClient] {
            let (shared, pair) = (Arc::clone(self), Arc::clone(&pair));
            std::thread::spawn(move || shared.pump(&pair, way));
        }
    }

    /// Carries one direction until either end hangs up.
    fn pump(&self, pair: &Pair, way: Way) {
        let (from, to) = match way {
            Way::ToServer => (&pair.client, &pair.server),
            Way::ToClient => (&pair.server, &pair.client),
        };
        let mut from = BufReader::with_capacity(64 << 10, from);
        let (mut message, mut out) = (Vec::new(), Vec::new());
        while read_message(&mut from, &mut message) {
            let faults = self.faults.lock().clone();
            let filter = if way == Way::ToServer { &faults.to_server } else { &faults.to_client };
            if filter.as_ref().is_none_or(|filter| filter(&message)) {
                let payload = message.len() - line_length(&message);
                if let Some(bytes) = faults.cut_payload_after.filter(|bytes| way == Way::ToClient && payload > *bytes) {
                    self.faults.lock().cut_payload_after = None;
                    out.extend_from_slice(&message[..message.len() - payload + bytes]);
                    pair.send(to, &out, &Mutex::default());
                    return pair.reset();
                }
                out.extend_from_slice(&message);
            }
            if from.buffer().is_empty() || out.len() > 64 << 10 {
                if !pair.send(to, &out, &self.faults) {
                    break;
                }
                out.clear();
            }
        }
        if !pair.cut.load(Ordering::Relaxed) {
            let _ = pair.client.shutdown(Shutdown::Both);
            let _ = pair.server.shutdown(Shutdown::Both);
        }
    }
}

impl Pair {
    /// `false` when the other end is gone.
    fn send(&self, mut to: &TcpStream, mut bytes: &[u8], faults: &Mutex<Faults>) -> bool {
        /// Portions a second of a slow connection.
        const PORTIONS: u32 = 20;
        while !bytes.is_empty() && !self.cut.load(Ordering::Relaxed) {
            let rate = faults.lock().bytes_per_second;
            let portion = rate.map_or(bytes.len(), |rate| bytes.len().min(rate / PORTIONS as usize).max(1));
            match to.write(&bytes[..portion]) {
                Ok(0) => return false,
                Ok(written) => bytes = &bytes[written..],
                // Its reader does not read; the connection may be cut meanwhile.
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {}
                Err(_) => return false,
            }
            if rate.is_some() {
                std::thread::sleep(Duration::from_secs(1) / PORTIONS);
            }
        }
        bytes.is_empty()
    }

    /// Ends it with a reset to both sides, sent when its two threads have let go of it.
    fn reset(&self) {
        self.cut.store(true, Ordering::Relaxed);
        for stream in [&self.client, &self.server] {
            reset(stream);
            // Wakes whoever reads and tells the other end nothing.
            let _ = stream.shutdown(Shutdown::Read);
        }
    }
}

/// Has the connection end with a reset instead of an orderly word when it is closed.
fn reset(stream: &TcpStream) {
    let _ = setsockopt(stream, sockopt::Linger, &nix::libc::linger { l_onoff: 1, l_linger: 0 });
}

/// Reads a protocol line and the payload it announces; `false` at the end.
pub fn read_message(from: &mut impl BufRead, message: &mut Vec<u8>) -> bool {
    message.clear();
    if from.read_until(b'\n', message).is_err() || message.last() != Some(&b'\n') {
        return false;
    }
    if !has_payload(message) {
        return true;
    }
    let line = String::from_utf8_lossy(message);
    let Some(length) = line.split_ascii_whitespace().last().and_then(|length| length.parse::<usize>().ok()) else {
        return true;
    };
    let start = message.len();
    message.resize(start + length + 2, 0);
    from.read_exact(&mut message[start..]).is_ok()
}

fn has_payload(message: &[u8]) -> bool {
    [&b"PUB "[..], b"HPUB ", b"MSG ", b"HMSG "].iter().any(|verb| message.starts_with(verb))
}

fn line_length(message: &[u8]) -> usize {
    message.iter().position(|&byte| byte == b'\n').map_or(message.len(), |at| at + 1)
}

/// What a message with a payload is about.
fn subject(message: &[u8]) -> Option<&[u8]> {
    let mut words = message.split(|byte| *byte == b' ');
    words.next()?;
    words.next().filter(|_| has_payload(message))
}

/// `{"stream":"EVENTS","seq":1}`, `{"stream":…,"domain":…}`: nothing else that a server answers begins so.
pub fn is_publish_acknowledgement(message: &[u8]) -> bool {
    has_payload(message) && message[line_length(message)..].starts_with(b"{\"stream\":")
}
