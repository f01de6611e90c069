//! Measures queries: the latency of 20 recent rows while 50,000 events per second are written, and while none are.
//!
//! `make bench` runs it. Broker, collector and `catchment publish` are processes of their own. Each request is due at a fixed
//! time, and its latency is counted from that time. So a late answer also adds to the latency of the requests it delays.
//!
//! The events come in three ways. A plain client, a thread of this program, only publishes: it takes little from broker and
//! collector, which are measured. `catchment publish` gives each event an identity and waits for its acknowledgement: that is more
//! work for the broker, and it uses the same cores itself. Over core NATS, it only waits until the server has read the events.
//!
//! Every other request goes to an echo instead: a thread that answers at once with as many bytes, without collector, client
//! library or database. Its latency is that of machine and broker, in the same seconds.
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts become figures"
)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use catchment::unversioned::broker::Server;
use catchment::unversioned::wake_on_time;

/// Events per second, while there are any.
const RATE: u64 = 50_000;
/// How long to measure, after a start that is not measured.
const SECONDS: u64 = 20;
const WARM_UP: u64 = 3;
/// Connections that send requests, and how often each does.
const ASKERS: u32 = 4;
const PAUSE: Duration = Duration::from_millis(20);
const ROWS: usize = 20;
const QUERY: &str = "ask.recent";
const ECHO: &str = "echo.here";

const CONFIGURATION: &str = r#"
[[query]]
subject = "ask.recent"
sql = "SELECT id, subject, published_us, payload FROM events ORDER BY id DESC LIMIT :limit"
"#;

fn main() {
    for load in [Load::Published, Load::Acknowledged, Load::Core] {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("queries-{load:?}-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let program = std::env::var_os("NATS_SERVER_BIN").map_or_else(|| "nats-server".into(), PathBuf::from);
        let server = Server::start_with(&program, &folder.join("nats"), &folder.join("address"), &[])
            .expect("a server; make bench sees to one");
        fs::write(folder.join("a.toml"), CONFIGURATION).expect("writes");
        Bench { folder: folder.clone(), server, load }.measure();
        let _ = fs::remove_dir_all(folder);
    }
}

/// How the events reach the collector.
#[derive(Clone, Copy, Debug)]
enum Load {
    /// Through a stream, from a plain client that does not wait for acknowledgements.
    Published,
    /// Through a stream, from `catchment publish`, which waits for each acknowledgement.
    Acknowledged,
    /// Over core NATS, from `catchment publish`.
    Core,
}

impl Load {
    /// The setting `broker.mode` of collector and publisher.
    fn mode(self) -> &'static str {
        match self {
            Self::Published | Self::Acknowledged => "jetstream",
            Self::Core => "core",
        }
    }

    fn described(self) -> &'static str {
        match self {
            Self::Published => "through a stream, from a plain client that only publishes",
            Self::Acknowledged => "through a stream, each acknowledged to `catchment publish`",
            Self::Core => "over core NATS, from `catchment publish`",
        }
    }
}

fn at(sorted: &[f64], share: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * share).round() as usize]
}

/// How long answers took, in milliseconds, the shortest first.
#[derive(Default)]
struct Took {
    rows: Vec<f64>,
    echo: Vec<f64>,
}

struct Bench {
    folder: PathBuf,
    server: Server,
    load: Load,
}

impl Bench {
    fn measure(&self) {
        let mut collector = self.collector();
        self.publish(10_000, 10_000).end();
        let rows = Client::connect(self.server.url()).question(QUERY, ROWS).expect("rows");
        Client::echo(self.server.url(), rows);
        let idle = self.ask();
        let publisher = self.publish(RATE * (2 * WARM_UP + SECONDS), RATE);
        thread::sleep(Duration::from_secs(WARM_UP));
        let (before, began) = (self.rows(), Instant::now());
        let busy = self.ask();
        let rate = (self.rows() - before) as f64 / began.elapsed().as_secs_f64();
        publisher.end();
        assert!(rate > 0.0, "nothing was stored meanwhile");
        collector.kill().and_then(|()| collector.wait()).expect("ends");
        let (times, load) = (idle.rows.len(), self.load.described());
        println!("{ROWS} rows, {times} times each, from due to there, ms; events {load}\n");
        println!("| | no events | an echo | {rate:.0} events/s | an echo |");
        println!("|---|---|---|---|---|");
        for (name, share) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)] {
            let [idle, idle_echo, busy, busy_echo] =
                [&idle.rows, &idle.echo, &busy.rows, &busy.echo].map(|sorted| at(sorted, share));
            println!("| {name} | {idle:.2} | {idle_echo:.2} | {busy:.2} | {busy_echo:.2} |");
        }
        println!();
        if rate < 0.9 * RATE as f64 {
            println!("This machine was too slow for the load that was meant, {RATE} events/s.\n");
        }
    }

    fn database(&self) -> PathBuf {
        self.folder.join("a.db")
    }

    fn catchment(&self, command: &str) -> Command {
        let mut catchment = Command::new(env!("CARGO_BIN_EXE_catchment"));
        catchment.args([command, "--server", self.server.url(), "-q", "--database"]).arg(self.database());
        catchment.env("CATCHMENT_BROKER__MODE", self.load.mode());
        catchment.stdin(Stdio::null()).stdout(Stdio::null()).stderr(self.log());
        catchment
    }

    /// For the standard error of a child process, whose progress must not be drawn between the figures.
    fn log(&self) -> Stdio {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.folder.join("catchment.log"));
        log.expect("a log").into()
    }

    /// A collector that answers queries.
    fn collector(&self) -> Child {
        let collector = self.catchment("run").arg("--config").arg(self.folder.join("a.toml")).spawn().expect("starts");
        let until = Instant::now() + Duration::from_secs(30);
        let mut asker = Client::connect(self.server.url());
        while asker.ask(QUERY, 0).is_none() {
            assert!(Instant::now() < until, "there is no answer; see catchment.log in {}", self.folder.display());
            thread::sleep(Duration::from_millis(50));
        }
        collector
    }

    fn publish(&self, events: u64, rate: u64) -> Publisher {
        if let Load::Published = self.load {
            let mut client = Client::connect(self.server.url());
            return Publisher::Client(thread::spawn(move || client.publish(events, rate)));
        }
        let (events, rate) = (events.to_string(), rate.to_string());
        let mut publish = self.catchment("publish");
        Publisher::Program(publish.args(["events.bench", "--count", &events, "--rate", &rate]).spawn().expect("starts"))
    }

    /// The number of rows so far: ids have no gaps.
    fn rows(&self) -> u64 {
        let connection = rusqlite::Connection::open(self.database()).expect("opens");
        connection.query_row("SELECT max(id) FROM events", [], |row| row.get(0)).expect("a number")
    }

    /// Sends requests while the measurement lasts.
    fn ask(&self) -> Took {
        let start = Instant::now() + Duration::from_millis(100);
        let askers = (0..ASKERS).map(|number| {
            let mut asker = Client::connect(self.server.url());
            // Queries and echo take turns.
            let first = start + PAUSE * number / ASKERS;
            thread::spawn(move || {
                wake_on_time();
                let mut took = Took::default();
                let due = (0..).map(|turn| first + PAUSE * turn);
                for (turn, due) in due.take_while(|due| *due < first + Duration::from_secs(SECONDS)).enumerate() {
                    let (subject, took) = if turn % 2 == 0 { (QUERY, &mut took.rows) } else { (ECHO, &mut took.echo) };
                    thread::sleep(due.saturating_duration_since(Instant::now()));
                    assert_eq!(asker.ask(subject, ROWS), Some(ROWS), "an answer to what was not asked");
                    took.push(due.elapsed().as_secs_f64() * 1_000.0);
                }
                took
            })
        });
        let askers: Vec<_> = askers.collect();
        let mut all = Took::default();
        for took in askers.into_iter().map(|asker| asker.join().expect("no panic")) {
            all.rows.extend(took.rows);
            all.echo.extend(took.echo);
        }
        all.rows.sort_by(f64::total_cmp);
        all.echo.sort_by(f64::total_cmp);
        all
    }
}

/// What publishes the load.
enum Publisher {
    Client(JoinHandle<()>),
    Program(Child),
}

impl Publisher {
    /// Waits until everything is published.
    fn end(self) {
        match self {
            Self::Client(thread) => thread.join().expect("publishes"),
            Self::Program(mut child) => assert!(child.wait().expect("publishes").success()),
        }
    }
}

/// A client that writes at once. The client of the nats crate may delay a request by 5 ms.
struct Client {
    from: BufReader<TcpStream>,
}

impl Client {
    fn connect(url: &str) -> Self {
        let stream = TcpStream::connect(url.rsplit_once("//").expect("a URL").1).expect("connects");
        stream.set_nodelay(true).expect("sets");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("sets");
        let inbox = inbox(&stream);
        let mut client = Self { from: BufReader::new(stream) };
        let options = r#"{"verbose":false,"headers":true,"no_responders":true,"protocol":1}"#;
        client.write(&format!("CONNECT {options}\r\nSUB {inbox} 1\r\n"));
        client
    }

    /// Answers requests on [`ECHO`] with these bytes, on its own thread, until the server ends.
    fn echo(url: &str, body: Vec<u8>) {
        let mut echo = Self::connect(url);
        echo.from.get_ref().set_read_timeout(None).expect("sets");
        echo.write(&format!("SUB {ECHO} 2\r\n"));
        thread::spawn(move || {
            while let Some((reply, _)) = echo.message() {
                let reply = reply.expect("the request has a reply subject");
                let head = format!("PUB {reply} {}\r\n", body.len()).into_bytes();
                let whole = [&head, body.as_slice(), b"\r\n"].concat();
                echo.from.get_mut().write_all(&whole).expect("the server listens");
            }
        });
    }

    /// Publishes this many events at this rate, all events of a millisecond in one write, and waits until the server has read them.
    fn publish(&mut self, events: u64, rate: u64) {
        let (began, mut published) = (Instant::now(), 0);
        while published < events {
            let due = (began.elapsed().as_secs_f64() * rate as f64) as u64;
            let mut tick = Vec::new();
            while published < due.min(events) {
                // As large as the events of `catchment publish`.
                let event = format!("{{\"number\":{published:>9},\"text\":\"{:<70}\"}}", "a line of a chat");
                write!(tick, "PUB events.bench {}\r\n{event}\r\n", event.len()).expect("there is memory");
                published += 1;
            }
            self.from.get_mut().write_all(&tick).expect("the server listens");
            thread::sleep(Duration::from_millis(1));
        }
        self.write("PING\r\n");
        for line in self.from.by_ref().lines() {
            let line = line.expect("the server speaks");
            assert!(!line.starts_with("-ERR"), "the server says {line}");
            if line == "PONG" {
                return;
            }
        }
        panic!("the server hung up");
    }

    /// Requests this many rows. Returns how many came, or `None` if there was no answer.
    fn ask(&mut self, subject: &str, rows: usize) -> Option<usize> {
        let body = self.question(subject, rows)?;
        let answer: Vec<serde_json::Value> = serde_json::from_slice(&body).expect("rows");
        Some(answer.len())
    }

    /// Requests this many rows. Returns the answer, if there was one.
    fn question(&mut self, subject: &str, rows: usize) -> Option<Vec<u8>> {
        let body = format!("{{\"limit\":{rows}}}");
        let inbox = inbox(self.from.get_ref());
        self.write(&format!("PUB {subject} {inbox} {}\r\n{body}\r\n", body.len()));
        self.message().map(|(_, body)| body)
    }

    /// The reply subject and the payload of the next message. `None` where the server reports no responders or closes the connection.
    fn message(&mut self) -> Option<(Option<String>, Vec<u8>)> {
        loop {
            let mut line = String::new();
            if self.from.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let words: Vec<_> = line.split_whitespace().collect();
            let length = words.last().and_then(|length| length.parse().ok()).unwrap_or(0);
            match words.first().copied() {
                Some("MSG") => {
                    let reply = (words.len() == 5).then(|| words[3].to_owned());
                    return Some((reply, self.read(length)));
                }
                Some("HMSG") => {
                    let received = self.read(length);
                    let no_responders = received.starts_with(b"NATS/1.0 503");
                    assert!(no_responders, "no answer: {}", String::from_utf8_lossy(&received));
                    return None;
                }
                Some("PING") => self.write("PONG\r\n"),
                Some("INFO" | "PONG" | "+OK") => {}
                _ => panic!("the server says {line:?}"),
            }
        }
    }

    fn read(&mut self, length: usize) -> Vec<u8> {
        let mut body = vec![0; length + 2];
        self.from.read_exact(&mut body).expect("the server speaks");
        body.truncate(length);
        body
    }

    fn write(&mut self, text: &str) {
        self.from.get_mut().write_all(text.as_bytes()).expect("the server listens");
    }
}

/// Unique on its server: made of the local port.
fn inbox(stream: &TcpStream) -> String {
    format!("_INBOX.bench.{}", stream.local_addr().expect("connected").port())
}
