//! Three servers that keep a stream together.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::eventually;
use super::server::{Server, free_port};

pub struct Cluster {
    servers: Vec<Server>,
}

impl Cluster {
    /// Starts three servers and makes stream `EVENTS` on `events.>` with three replicas.
    pub fn start(folder: &Path) -> Self {
        let cluster = Self::start_with(folder, &json!({ "storage": "file", "num_replicas": 3 }));
        cluster.is_in_step();
        cluster
    }

    /// As [`Cluster::start`], with so many partitions.
    pub fn start_partitioned(folder: &Path, partitions: u32) -> Self {
        let transform = json!({ "src": ">", "dest": format!("{{{{partition({partitions})}}}}.>") });
        let settings = json!({ "storage": "file", "num_replicas": 3, "subject_transform": transform });
        let cluster = Self::start_with(folder, &settings);
        cluster.is_in_step();
        cluster
    }

    /// Waits until all replicas have the same.
    pub fn is_in_step(&self) {
        eventually("three replicas in step", || {
            let answer = self.ask_any("$JS.API.STREAM.INFO.EVENTS", &Value::Null)?;
            let replicas = answer["cluster"]["replicas"].as_array()?;
            (replicas.len() == 2 && replicas.iter().all(|one| one["current"] == true)).then_some(())
        });
    }

    /// Starts three servers and makes stream `EVENTS` on `events.>` with these settings.
    pub fn start_with(folder: &Path, settings: &Value) -> Self {
        let routes: Vec<u16> = (0..3).map(|_| free_port()).collect();
        let servers = (0..3).map(|at| start(folder, at, &routes)).collect();
        let cluster = Self { servers };
        let mut config = json!({ "name": "EVENTS", "subjects": ["events.>"], "retention": "limits" });
        for (name, value) in settings.as_object().expect("settings") {
            config[name] = value.clone();
        }
        eventually("a stream", || {
            let answer = cluster.ask_any("$JS.API.STREAM.CREATE.EVENTS", &config)?;
            answer["error"].is_null().then_some(())
        });
        cluster.leader();
        cluster
    }

    pub fn server(&mut self, at: usize) -> &mut Server {
        &mut self.servers[at]
    }

    /// All addresses, separated by commas.
    pub fn urls(&self) -> Vec<String> {
        self.servers.iter().map(Server::url).collect()
    }

    /// Which server leads the stream.
    pub fn leader(&self) -> usize {
        eventually("a leader of the stream", || {
            let answer = self.ask_any("$JS.API.STREAM.INFO.EVENTS", &Value::Null)?;
            let leader = answer["cluster"]["leader"].as_str()?;
            leader.strip_prefix("node-")?.parse().ok()
        })
    }

    /// Has another server lead the stream.
    pub fn step_down(&self) -> usize {
        let before = self.leader();
        eventually("the leader to step down", || {
            let answer = self.ask_any("$JS.API.STREAM.LEADER.STEPDOWN.EVENTS", &Value::Null)?;
            (answer["success"] == true).then_some(())
        });
        eventually("another leader", || Some(self.leader()).filter(|now| *now != before))
    }

    /// A request to JetStream by any of the servers that run; `None` when none answers.
    pub fn ask_any(&self, subject: &str, body: &Value) -> Option<Value> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.servers.iter().filter(|server| server.is_running()).find_map(|server| {
            let client =
                nats::Options::new().reconnect_delay_callback(|_| Duration::ZERO).connect(server.url()).ok()?;
            let reply = client.request_timeout(subject, &body, Duration::from_secs(1));
            let answer = reply.ok().and_then(|reply| serde_json::from_slice(&reply.data).ok());
            client.close();
            answer
        })
    }
}

fn start(folder: &Path, at: usize, routes: &[u16]) -> Server {
    let folder = folder.join(format!("node-{at}"));
    std::fs::create_dir_all(&folder).expect("a folder");
    let all: Vec<String> = routes.iter().map(|port| format!("\"nats://127.0.0.1:{port}\"")).collect();
    let config = format!(
        "server_name: node-{at}\njetstream: enabled\nlame_duck_duration: \"30s\"\nlame_duck_grace_period: \"500ms\"\n\
         cluster {{ name: three, listen: \"127.0.0.1:{}\", routes: [{}] }}\n",
        routes[at],
        all.join(", ")
    );
    Server::configured(&folder, &config)
}
