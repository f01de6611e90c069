//! A nats-server that a test can kill, stop and start again on the same port and store.

use std::io::{ErrorKind, Read};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use catchment::config::BrokerConfig;
use serde_json::{Value, json};

use super::raw::Raw;
use super::{eventually, with};

pub struct Server {
    child: Option<Child>,
    port: u16,
    folder: PathBuf,
    arguments: Vec<String>,
}

/// The server's program.
pub fn program() -> String {
    std::env::var("NATS_SERVER_BIN").unwrap_or_else(|_| "nats-server".into())
}

/// Its version: major and minor number.
pub fn version() -> (u32, u32) {
    let said = Command::new(program()).arg("--version").output().expect("nats-server runs");
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let (_, version) = said.rsplit_once('v').expect("nats-server: v2.10.25");
    let mut numbers = version.split('.').filter_map(|number| number.parse().ok());
    (numbers.next().expect("a major number"), numbers.next().expect("a minor number"))
}

/// Whether the server is at least this version; says what is skipped where it is not.
pub fn needs(least: (u32, u32), what: &str) -> bool {
    let version = version();
    if version < least {
        eprintln!("skipped: {what}: server {}.{} has none, {}.{} has", version.0, version.1, least.0, least.1);
    }
    version >= least
}

/// A free port below those that the system gives to outgoing connections: such a one must not take the place of a server
/// that is down for a moment, nor meet itself there (a connection to its own port).
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = std::process::id().wrapping_mul(61).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = 10_000 + u16::try_from(number % 20_000).expect("small");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

impl Server {
    /// With JetStream, its streams in `folder`.
    pub fn start(folder: &Path) -> Self {
        Self::start_with(folder, &["--jetstream"])
    }

    /// With arguments of the test's own.
    pub fn start_with(folder: &Path, arguments: &[&str]) -> Self {
        Self::start_at_with(folder, free_port(), arguments)
    }

    /// As [`Server::start`], on this port, which was free before.
    pub fn start_at(folder: &Path, port: u16) -> Self {
        Self::start_at_with(folder, port, &["--jetstream"])
    }

    /// As [`Server::start_with`], on this port.
    pub fn start_at_with(folder: &Path, port: u16, arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let mut server = Self { child: None, port, folder: folder.to_owned(), arguments };
        server.restart();
        server
    }

    /// With these lines as its configuration file.
    pub fn configured(folder: &Path, text: &str) -> Self {
        let file = folder.join("server.conf");
        std::fs::write(&file, text).expect("writes");
        Self::start_with(folder, &["--config", file.to_str().expect("UTF-8")])
    }

    /// A server in a folder of its own, which is removed when it is dropped.
    pub fn in_new_folder() -> (tempfile::TempDir, Self) {
        let folder = tempfile::tempdir().expect("a folder");
        let server = Self::start(folder.path());
        (folder, server)
    }

    /// Has a server that was [`Server::configured`] take other lines, at once where it can without a restart.
    pub fn configure(&self, text: &str) {
        std::fs::write(self.folder.join("server.conf"), text).expect("writes");
        if self.is_running() {
            self.signal("HUP");
        }
    }

    /// Starts it again after a kill, on the same port and streams.
    pub fn restart(&mut self) {
        self.child = None;
        eventually("the server to greet", || {
            let log = || std::fs::read_to_string(self.folder.join("server.log")).unwrap_or_default();
            let mut child = self.child.take().unwrap_or_else(|| self.spawn());
            if child.try_wait().expect("can be asked").is_some() {
                // A process that another test is about to start still has a copy of a listener that was closed here, until it
                // executes its program.
                assert!(log().contains("address already in use"), "the server ended at once:\n{}", log());
                return None;
            }
            self.child = Some(child);
            greets(self.port).then_some(())
        });
    }

    fn spawn(&self) -> Child {
        let log = std::fs::File::create(self.folder.join("server.log")).expect("a log");
        Command::new(program())
            .args(["--addr", "127.0.0.1", "--port", &self.port.to_string(), "--store_dir"])
            .arg(self.folder.join("streams"))
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("nats-server starts; set NATS_SERVER_BIN or run make test")
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        let ended = self.child.as_mut().is_none_or(|child| child.try_wait().expect("can be asked").is_some());
        if ended {
            self.child = None;
        }
        ended
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("kills");
            child.wait().expect("ends");
        }
    }

    /// SIGTERM, and waits: its store is as it will be found again.
    pub fn stop(&mut self) {
        self.signal("TERM");
        if let Some(mut child) = self.child.take() {
            child.wait().expect("ends");
        }
    }

    /// SIGSTOP, SIGCONT, ...
    pub fn signal(&self, signal: &str) {
        super::collector::signal(self.pid(), signal);
    }

    /// A broker configuration that leads here, quick to notice trouble.
    pub fn config(&self) -> BrokerConfig {
        with(BrokerConfig::default(), |config| {
            config.servers = vec![self.url()];
            config.timeout = Duration::from_secs(5);
            config.silence = Duration::from_secs(2);
            config.retry = Duration::from_millis(200);
        })
    }

    /// A client of the test's own.
    pub fn client(&self) -> nats::Connection {
        let name = self.url();
        eventually("a connection", || {
            nats::Options::new().reconnect_delay_callback(|_| Duration::ZERO).connect(&name).ok()
        })
    }

    /// A request to JetStream (`null`: one without a body), tried until it is answered: a server that has just started recovers its streams first.
    pub fn ask(&self, subject: &str, body: &Value) -> Value {
        let client = self.client();
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = eventually(subject, || {
            let reply = client.request_timeout(subject, &body, Duration::from_secs(2)).ok()?;
            serde_json::from_slice::<Value>(&reply.data).ok()
        });
        client.close();
        answer
    }

    /// Makes stream `name` on these subjects and returns its description.
    pub fn make_stream(&self, name: &str, subjects: &[&str]) -> Value {
        self.make_stream_with(name, subjects, &json!({}))
    }

    /// As [`Server::make_stream`], with these settings beside the usual ones, or in their place.
    pub fn make_stream_with(&self, name: &str, subjects: &[&str], settings: &Value) -> Value {
        let mut body = json!({ "name": name, "subjects": subjects, "storage": "file", "retention": "limits" });
        for (setting, value) in settings.as_object().expect("settings") {
            body[setting] = value.clone();
        }
        let answer = self.ask(&format!("$JS.API.STREAM.CREATE.{name}"), &body);
        assert!(answer["error"].is_null(), "{answer}");
        answer
    }

    /// How many messages the stream has.
    pub fn messages(&self, stream: &str) -> u64 {
        let info = self.ask(&format!("$JS.API.STREAM.INFO.{stream}"), &Value::Null);
        info["state"]["messages"].as_u64().expect("a number")
    }

    pub fn delete_stream(&self, name: &str) {
        let answer = self.ask(&format!("$JS.API.STREAM.DELETE.{name}"), &Value::Null);
        assert!(answer["error"].is_null(), "{answer}");
    }

    /// How many messages of a stream its one consumer has been sent.
    pub fn delivered(&self, stream: &str) -> u64 {
        let answer = self.ask(&format!("$JS.API.CONSUMER.LIST.{stream}"), &Value::Null);
        let consumers = answer["consumers"].as_array().unwrap_or_else(|| panic!("{answer}"));
        assert_eq!(consumers.len(), 1, "{answer}");
        consumers[0]["delivered"]["consumer_seq"].as_u64().unwrap_or_else(|| panic!("{answer}"))
    }

    /// A publisher of any bytes.
    pub fn raw(&self) -> Raw {
        Raw::connect(&self.url())
    }

    /// The names of a stream's consumers.
    pub fn consumers(&self, stream: &str) -> Vec<String> {
        let answer = self.ask(&format!("$JS.API.CONSUMER.NAMES.{stream}"), &Value::Null);
        assert!(answer["error"].is_null(), "{answer}");
        let names = answer["consumers"].as_array().cloned().unwrap_or_default();
        names.iter().map(|name| name.as_str().expect("a name").to_owned()).collect()
    }

    /// The last sequence of a stream.
    pub fn last_sequence(&self, name: &str) -> u64 {
        let answer = self.ask(&format!("$JS.API.STREAM.INFO.{name}"), &Value::Null);
        answer["state"]["last_seq"].as_u64().unwrap_or_else(|| panic!("{answer}"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &self.child {
            // A stopped process is killed all the same.
            let _ = Command::new("kill").args(["-KILL", &child.id().to_string()]).status();
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.wait();
        }
    }
}

/// Whether a server of NATS says its first word there. That somebody takes the connection would not do: what listened on the
/// port before may live on for a moment, in a process that another test is just starting.
fn greets(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    let mut word = [0; 4];
    stream.set_read_timeout(Some(Duration::from_secs(1))).expect("a time-out");
    match stream.read_exact(&mut word) {
        Ok(()) => word == *b"INFO",
        // One that wants TLS first waits for us.
        Err(e) => matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
    }
}
