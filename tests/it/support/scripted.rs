//! A server that does as a test says, for what a real one cannot be made to do.

use std::io::{BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::proxy::read_message;
use super::server::free_port;

pub struct Scripted {
    port: u16,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    over: AtomicBool,
    visits: AtomicU64,
    streams: Mutex<Vec<TcpStream>>,
}

/// What a client said: `PUB subject reply 5`, with its headers and payload.
pub struct Line {
    words: Vec<String>,
    headers: usize,
    body: Vec<u8>,
}

/// The server's side of one connection.
pub struct Talk {
    stream: TcpStream,
    /// Subjects and their numbers.
    subscriptions: Vec<(String, String)>,
    /// We have hung up.
    over: bool,
}

impl Scripted {
    /// Greets with an ordinary INFO. Then `script` is asked for each line and says whether it has dealt with it; what it has
    /// not is answered as a server without JetStream would: pings, and nothing else.
    pub fn start(script: impl Fn(&mut Talk, &Line) -> bool + Send + Sync + 'static) -> Self {
        let greeting = |port: u16| {
            let info = json!({
                "server_id": "SCRIPTED", "server_name": "scripted", "version": "2.10.25", "go": "go1", "proto": 1,
                "host": "127.0.0.1", "port": port, "headers": true, "max_payload": 1 << 20, "client_id": 1,
                "client_ip": "127.0.0.1", "jetstream": true,
            });
            format!("INFO {info}\r\n")
        };
        Self::greeting_with(greeting, script)
    }

    /// As [`Scripted::start`], with a first word of the test's own, which may be none.
    pub fn greeting_with(
        greeting: impl Fn(u16) -> String,
        script: impl Fn(&mut Talk, &Line) -> bool + Send + Sync + 'static,
    ) -> Self {
        let port = free_port();
        let greeting = greeting(port);
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("a free port");
        let shared = Arc::new(Shared::default());
        let (listens, script) = (Arc::clone(&shared), Arc::new(script));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().filter_map(Result::ok) {
                if listens.over.load(Ordering::Relaxed) {
                    return;
                }
                listens.visits.fetch_add(1, Ordering::Relaxed);
                stream.set_nodelay(true).expect("sets");
                listens.streams.lock().push(stream.try_clone().expect("clones"));
                let (greeting, script) = (greeting.clone(), Arc::clone(&script));
                std::thread::spawn(move || {
                    let mut talk = Talk { stream, subscriptions: Vec::new(), over: false };
                    talk.say(greeting);
                    talk.go_on(&*script);
                });
            }
        });
        Self { port, shared, thread: Some(thread) }
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// How many have connected.
    pub fn visits(&self) -> u64 {
        self.shared.visits.load(Ordering::Relaxed)
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        for stream in self.shared.streams.lock().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Line {
    /// `PUB`, `SUB`, `PING`, ... A message with headers is a `PUB` too.
    pub fn verb(&self) -> &str {
        self.words.first().map_or("", |verb| if verb == "HPUB" { "PUB" } else { verb })
    }

    pub fn subject(&self) -> &str {
        self.words.get(1).map_or("", String::as_str)
    }

    /// Where the answer to a `PUB` is to go.
    pub fn reply(&self) -> &str {
        let sizes = if self.words[0] == "HPUB" { 2 } else { 1 };
        if self.words.len() == 3 + sizes { &self.words[2] } else { "" }
    }

    pub fn payload(&self) -> &[u8] {
        &self.body[self.headers..]
    }
}

impl Talk {
    /// Writes these bytes. One who has hung up does not hear them.
    pub fn say(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref());
    }

    /// Ends the connection. What has come and was not read is lost.
    pub fn hang_up(&mut self) {
        self.over = true;
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Sends a message to whoever subscribed to its subject.
    pub fn tell(&mut self, subject: &str, payload: impl AsRef<[u8]>) {
        self.deliver(subject, subject, "", b"", payload);
    }

    /// Sends a message to whoever subscribed to `inbox`, under another subject: so a consumer's deliveries come.
    pub fn deliver(&mut self, subject: &str, inbox: &str, reply: &str, headers: &[u8], payload: impl AsRef<[u8]>) {
        let Some((_, number)) = self.subscriptions.iter().find(|(filter, _)| takes(filter, inbox)) else { return };
        let reply = if reply.is_empty() { String::new() } else { format!("{reply} ") };
        let (payload, total) = (payload.as_ref(), headers.len() + payload.as_ref().len());
        let mut message = if headers.is_empty() {
            format!("MSG {subject} {number} {reply}{total}\r\n").into_bytes()
        } else {
            format!("HMSG {subject} {number} {reply}{} {total}\r\n", headers.len()).into_bytes()
        };
        message.extend([headers, payload, b"\r\n"].concat());
        self.say(message);
    }

    fn go_on(&mut self, script: &dyn Fn(&mut Self, &Line) -> bool) {
        let mut from = BufReader::new(self.stream.try_clone().expect("clones"));
        let mut message = Vec::new();
        while !self.over && read_message(&mut from, &mut message) {
            let end = message.iter().position(|&byte| byte == b'\n').unwrap_or(0);
            let words: Vec<String> =
                String::from_utf8_lossy(&message[..end]).split_whitespace().map(str::to_owned).collect();
            let has_headers = words.first().is_some_and(|verb| verb == "HPUB");
            let headers = if has_headers { words[words.len() - 2].parse().unwrap_or(0) } else { 0 };
            let body = message[(end + 1)..].strip_suffix(b"\r\n").unwrap_or_default().to_vec();
            let line = Line { words, headers, body };
            if line.verb() == "SUB" {
                let number = line.words.last().cloned().unwrap_or_default();
                self.subscriptions.push((line.subject().to_owned(), number));
            }
            if !script(self, &line) && line.verb() == "PING" {
                self.say("PONG\r\n");
            }
        }
    }
}

/// Whether a subscription takes a subject.
fn takes(filter: &str, subject: &str) -> bool {
    let (mut wanted, mut given) = (filter.split('.'), subject.split('.'));
    loop {
        match (wanted.next(), given.next()) {
            (Some(">"), Some(_)) | (None, None) => return true,
            (Some(wanted), Some(given)) if wanted == "*" || wanted == given => {}
            _ => return false,
        }
    }
}

/// Answers what is asked about stream `EVENTS` on `events.>` with `messages` messages, but not pulls: `false` for those and
/// for all else that is not of JetStream.
pub fn stream(talk: &mut Talk, line: &Line, messages: u64) -> bool {
    let Some(request) = line.subject().strip_prefix("$JS.API.").filter(|_| line.verb() == "PUB") else {
        return false;
    };
    let created = "2026-01-02T03:04:05.000000006Z";
    let asked: Value = serde_json::from_slice(line.payload()).unwrap_or_default();
    let config = json!({
        "name": "EVENTS", "subjects": ["events.>"], "retention": "limits", "storage": "file", "max_consumers": -1,
        "max_msgs": -1, "max_bytes": -1, "max_age": 0, "num_replicas": 1, "duplicate_window": 120_000_000_000_u64,
        "discard": "old", "max_msg_size": -1,
    });
    let answer = match request.split('.').take(2).collect::<Vec<_>>()[..] {
        ["STREAM", "INFO" | "CREATE"] => json!({
            "config": config, "created": created,
            "state": {
                "messages": messages, "bytes": 100 * messages, "first_seq": 1, "last_seq": messages, "consumer_count": 0,
                "first_ts": created, "last_ts": created,
            },
        }),
        ["CONSUMER", "CREATE"] => json!({
            "stream_name": "EVENTS", "name": request.rsplit('.').next(), "config": asked["config"], "created": created,
            "delivered": { "consumer_seq": 0, "stream_seq": 0 }, "ack_floor": { "consumer_seq": 0, "stream_seq": 0 },
            "num_pending": messages, "num_waiting": 0, "num_ack_pending": 0, "num_redelivered": 0,
        }),
        ["CONSUMER", "NAMES"] => json!({ "total": 0, "offset": 0, "limit": 1024, "consumers": [] }),
        ["CONSUMER", "LIST"] => json!({ "total": 0, "offset": 0, "limit": 256, "consumers": [] }),
        ["CONSUMER" | "STREAM", "DELETE"] => json!({ "success": true }),
        ["STREAM", "MSG"] => {
            json!({ "error": { "code": 404, "err_code": 10037, "description": "no message found" } })
        }
        _ => return false,
    };
    talk.tell(line.reply(), answer.to_string());
    true
}
