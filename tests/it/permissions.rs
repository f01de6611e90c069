//! The permissions that `check --permissions` lists are the least: with them and no others, the server denies nothing, and each of them
//! is used.

mod reading;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::support::collector::{Collector, catchment, output, printed, stderr};
use crate::support::server::{Server, needs};
use crate::support::{eventually, oracle};

/// What a user may publish and subscribe to.
#[derive(Clone, Debug)]
struct Lists {
    publish: Vec<String>,
    subscribe: Vec<String>,
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().expect("a list").iter().map(|one| one.as_str().expect("text").to_owned()).collect()
}

impl Lists {
    /// What the command lists, and of what is needed only sometimes what these words are part of.
    fn of(command: &str, settings: &Path, sometimes: &[&str]) -> Self {
        let listed = listed(command, settings);
        let mut publish = texts(&listed["publish"]);
        for one in listed["sometimes"].as_array().expect("a list") {
            let subject = one["subject"].as_str().expect("text");
            if sometimes.iter().any(|word| subject.contains(word)) {
                publish.push(subject.to_owned());
            }
        }
        Self { publish, subscribe: texts(&listed["subscribe"]) }
    }

    /// The lists with one entry fewer, each with that entry.
    fn with_one_fewer(&self) -> Vec<(String, Self)> {
        let without = |list: &[String], at: usize| [&list[..at], &list[at + 1..]].concat();
        let publish = (0..self.publish.len())
            .map(|at| (self.publish[at].clone(), Self { publish: without(&self.publish, at), ..self.clone() }));
        let subscribe = (0..self.subscribe.len())
            .map(|at| (self.subscribe[at].clone(), Self { subscribe: without(&self.subscribe, at), ..self.clone() }));
        publish.chain(subscribe).collect()
    }

    fn user(&self, name: &str) -> Value {
        // To the server, an empty list allows everything.
        let part = |list: &[String]| if list.is_empty() { json!({ "deny": ">" }) } else { json!({ "allow": list }) };
        let permissions = json!({ "publish": part(&self.publish), "subscribe": part(&self.subscribe) });
        json!({ "user": name, "password": "secret", "permissions": permissions })
    }
}

fn listed(command: &str, settings: &Path) -> Value {
    let mut check = catchment();
    check.args(["check", "--offline", "--json", &format!("--permissions={command}"), "--config"]).arg(settings);
    let listed: Value = serde_json::from_str(&printed(&mut check)).expect("JSON");
    listed["permissions"].clone()
}

/// A server with users whose permissions are limited, and one without limits who needs no password.
struct Fixture {
    folder: tempfile::TempDir,
    settings: PathBuf,
    server: Option<Server>,
}

impl Fixture {
    fn new(settings: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("a.toml");
        std::fs::write(&file, settings).expect("writes");
        Self { folder, settings: file, server: None }
    }

    fn lists(&self, command: &str, sometimes: &[&str]) -> Lists {
        Lists::of(command, &self.settings, sometimes)
    }

    fn serve(&mut self, users: impl IntoIterator<Item = Value>) {
        let admin = json!({ "user": "admin", "password": "secret" });
        let users: Vec<_> = users.into_iter().chain([admin]).collect();
        let settings = json!({ "jetstream": {}, "authorization": { "users": users }, "no_auth_user": "admin" });
        self.server = Some(Server::configured(self.folder.path(), &settings.to_string()));
    }

    fn server(&self) -> &Server {
        self.server.as_ref().expect("it was started")
    }

    fn database(&self) -> PathBuf {
        self.folder.path().join("a.db")
    }

    /// A command with the settings, as this user; without a name as the one without limits.
    fn command(&self, user: Option<&str>, arguments: &[&str]) -> Command {
        let mut command = catchment();
        command.args(arguments).arg("--config").arg(&self.settings).args(["--server", &self.server().url()]);
        command.arg("--database").arg(self.database());
        if let Some(user) = user {
            command.args(["--user", user, "--password", "secret"]);
        }
        command
    }

    fn collector(&self, user: Option<&str>) -> Collector {
        let log = format!("{}.log", user.unwrap_or("admin"));
        Collector::start(self.command(user, &["run", "-v"]), &self.folder.path().join(log))
    }

    fn publish(&self) {
        let mut publish = catchment();
        publish.args(["publish", "events.a", "--count", "10", "--server", &self.server().url()]);
        publish.arg("--config").arg(&self.settings);
        printed(&mut publish);
    }

    /// What the server has denied so far.
    fn denials(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.folder.path().join("server.log")).expect("reads");
        log.lines().filter(|line| line.contains("iolation")).map(str::to_owned).collect()
    }

    #[track_caller]
    fn nothing_is_denied(&self) {
        assert_eq!(self.denials(), Vec::<String>::new());
    }

    /// Waits until the server has denied what an entry with this subject would allow.
    fn is_denied(&self, entry: &str, before: usize) {
        let start = entry.split(['*', '>']).next().unwrap_or_default();
        eventually(&format!("{entry} to be denied; the server's log: {:?}", self.denials()), || {
            let denials = self.denials();
            denials.get(before..)?.iter().any(|line| line.contains(&format!("Subject \"{start}"))).then_some(())
        });
    }

    /// Runs the command as a user with all permissions, who is denied nothing, and as users with one fewer, who are denied that.
    fn needs_each(&mut self, lists: &Lists, work: impl Fn(&Self, &str)) {
        let fewer = lists.with_one_fewer();
        let users: Vec<Value> = fewer.iter().enumerate().map(|(at, (_, lists))| lists.user(&at.to_string())).collect();
        self.serve(users.into_iter().chain([lists.user("full")]));
        work(self, "full");
        self.nothing_is_denied();
        for (at, (entry, _)) in fewer.iter().enumerate() {
            let before = self.denials().len();
            work(self, &at.to_string());
            self.is_denied(entry, before);
        }
    }
}

fn count(database: &Path) -> u64 {
    if database.exists() { oracle::count(database) } else { 0 }
}

#[test]
fn a_collector_of_a_stream_needs_each_of_its_permissions() {
    let mut fixture = Fixture::new("");
    let lists = fixture.lists("run", &[]);
    let fewer = lists.with_one_fewer();
    let users: Vec<Value> = fewer.iter().enumerate().map(|(at, (_, lists))| lists.user(&at.to_string())).collect();
    fixture.serve(users.into_iter().chain([lists.user("full")]));
    // A database with a position in the stream: the next start compares the two.
    fixture.server().make_stream("EVENTS", &["events.>"]);
    fixture.publish();
    printed(&mut fixture.command(None, &["run", "--drain"]));
    fixture.publish();
    let collector = fixture.collector(Some("full"));
    eventually("the events", || (count(&fixture.database()) == 20).then_some(()));
    assert!(collector.stop().success());
    fixture.nothing_is_denied();
    for (at, (entry, _)) in fewer.iter().enumerate() {
        let before = fixture.denials().len();
        let expected = count(&fixture.database()) + 10;
        fixture.publish();
        let collector = fixture.collector(Some(&at.to_string()));
        if entry.contains("CONSUMER.DELETE") {
            eventually("the events", || (count(&fixture.database()) == expected).then_some(()));
            collector.stop();
            fixture.is_denied(entry, before);
        } else {
            // It may go on without it, or try again for ever.
            fixture.is_denied(entry, before);
            collector.kill();
            printed(&mut fixture.command(None, &["run", "--drain"]));
        }
    }
}

#[test]
fn a_collector_needs_permission_to_create_a_missing_stream() {
    let mut fixture = Fixture::new("[broker]\nstream = 'MINE'\nsubjects = ['events.>']");
    let lists = fixture.lists("run", &["STREAM.CREATE"]);
    assert!(lists.publish.contains(&"$JS.API.STREAM.CREATE.MINE".to_owned()), "{lists:?}");
    let less = fixture.lists("run", &[]);
    fixture.serve([lists.user("full"), less.user("less")]);
    let collector = fixture.collector(Some("less"));
    fixture.is_denied("$JS.API.STREAM.CREATE.MINE", 0);
    collector.kill();
    let before = fixture.denials().len();
    let collector = fixture.collector(Some("full"));
    collector.said("collecting stream MINE");
    assert!(collector.stop().success());
    assert_eq!(fixture.denials().len(), before);
}

#[test]
fn interest_retention_needs_more_permissions() {
    let mut fixture = Fixture::new("");
    let all = fixture.lists("run", &["$JS.ACK", "RESET"]);
    let without = |word: &str| {
        let publish = all.publish.iter().filter(|one| !one.contains(word)).cloned().collect();
        Lists { publish, ..all.clone() }
    };
    fixture.serve([all.user("full"), without("$JS.ACK").user("no-ack"), without("RESET").user("no-reset")]);
    let interest = json!({ "retention": "interest", "max_consumers": 1 });
    fixture.server().make_stream_with("EVENTS", &["events.>"], &interest);
    // The second session takes the consumer over: the stream allows no other.
    for round in 1..=2 {
        let collector = fixture.collector(Some("full"));
        collector.said("collecting stream EVENTS");
        fixture.publish();
        eventually("the events", || (count(&fixture.database()) == 10 * round).then_some(()));
        assert!(collector.stop().success());
    }
    fixture.nothing_is_denied();
    let collector = fixture.collector(Some("no-ack"));
    fixture.publish();
    fixture.is_denied("$JS.ACK.EVENTS.>", 0);
    collector.kill();
    if needs((2, 14), "consumers that are reset") {
        let before = fixture.denials().len();
        let collector = fixture.collector(Some("no-reset"));
        fixture.is_denied("$JS.API.CONSUMER.RESET.EVENTS.*", before);
        collector.kill();
    }
}

/// Queries and confirmations, of a collector of each mode.
#[test]
fn queries_and_confirmations_need_each_of_their_permissions() {
    const QUERY: &str = "[[query]]\nsubject = 'ask.count'\nsql = 'SELECT count(*) AS n FROM events'";
    for mode in ["jetstream", "core"] {
        let plain = Fixture::new(&format!("[broker]\nmode = '{mode}'")).lists("run", &["STREAM.CREATE"]);
        let mut fixture = Fixture::new(&format!("[broker]\nmode = '{mode}'\n{QUERY}"));
        let lists = fixture.lists("run", &["STREAM.CREATE"]);
        let is_more = |(entry, fewer): &(String, Lists)| {
            let is_to_publish = fewer.publish.len() < lists.publish.len();
            !if is_to_publish { &plain.publish } else { &plain.subscribe }.contains(entry)
        };
        let fewer: Vec<_> = lists.with_one_fewer().into_iter().filter(is_more).collect();
        assert_eq!(fewer.len(), if mode == "core" { 5 } else { 6 }, "{fewer:?}");
        let users: Vec<Value> = fewer.iter().enumerate().map(|(at, (_, lists))| lists.user(&at.to_string())).collect();
        fixture.serve(users.into_iter().chain([lists.user("full")]));
        let ask = || output(&mut fixture.command(None, &["query", "ask.count", "--json", "--timeout", "1s"]));
        let collector = fixture.collector(Some("full"));
        eventually("an answer", || ask().status.success().then_some(()));
        assert!(collector.stop().success());
        fixture.nothing_is_denied();
        for (at, (entry, _)) in fewer.iter().enumerate() {
            let before = fixture.denials().len();
            let collector = fixture.collector(Some(&at.to_string()));
            if entry.starts_with("_INBOX") {
                eventually("a reply to be denied", || {
                    ask();
                    (fixture.denials().len() > before).then_some(())
                });
            }
            fixture.is_denied(entry, before);
            collector.kill();
        }
    }
}

#[test]
fn a_collector_of_core_nats_needs_each_of_its_permissions() {
    let mut fixture = Fixture::new("[broker]\nmode = 'core'\nsubjects = ['events.>', 'b']\ncore.overflow = 'block'");
    let lists = fixture.lists("run", &[]);
    assert_eq!((&lists.publish[..], lists.subscribe.len()), (&["_INBOX.>".to_owned()][..], 3), "{lists:?}");
    let events = std::cell::Cell::new(0);
    fixture.needs_each(&lists, |fixture, user| {
        let before = fixture.denials().len();
        let collector = fixture.collector(Some(user));
        if user == "full" {
            collector.said("collecting");
            fixture.publish();
            events.set(events.get() + 10);
            eventually("the events", || (count(&fixture.database()) == events.get()).then_some(()));
            assert!(collector.stop().success());
        } else {
            eventually("a denial", || (fixture.denials().len() > before).then_some(()));
            collector.kill();
        }
    });
}

#[test]
fn publish_needs_each_of_its_permissions() {
    for mode in ["jetstream", "core"] {
        let mut fixture = Fixture::new(&format!("[broker]\nmode = '{mode}'"));
        let lists = fixture.lists("publish", &[]);
        assert_eq!(lists.publish.len(), if mode == "core" { 1 } else { 2 }, "{lists:?}");
        let is_stream = mode == "jetstream";
        fixture.needs_each(&lists, |fixture, user| {
            if is_stream && user == "full" {
                fixture.server().make_stream("EVENTS", &["events.>"]);
            }
            let mut publish = catchment();
            publish.args(["publish", "events.a", "x", "--timeout", "1s", "--user", user, "--password", "secret"]);
            publish.args(["--server", &fixture.server().url()]).arg("--config").arg(&fixture.settings);
            let done = output(&mut publish);
            assert!(user != "full" || done.status.success(), "{}", stderr(&done));
        });
    }
}

#[test]
fn query_needs_each_of_its_permissions() {
    for mode in ["jetstream", "core"] {
        let query = "[[query]]\nsubject = 'ask.count'\nsql = 'SELECT count(*) AS n FROM events'";
        let mut fixture = Fixture::new(&format!("[broker]\nmode = '{mode}'\n{query}"));
        let lists = fixture.lists("query", &[]);
        assert_eq!(lists.publish.len(), if mode == "core" { 3 } else { 2 }, "{lists:?}");
        let answering = std::cell::OnceCell::new();
        fixture.needs_each(&lists, |fixture, user| {
            let ask = |user| output(&mut fixture.command(user, &["query", "ask.count", "--json", "--timeout", "1s"]));
            answering.get_or_init(|| {
                let collector = fixture.collector(None);
                eventually("an answer", || ask(None).status.success().then_some(()));
                collector
            });
            let done = ask(Some(user));
            assert!(user != "full" || done.status.success(), "{}", stderr(&done));
        });
    }
}

#[test]
fn check_needs_each_of_its_permissions() {
    let mut fixture = Fixture::new("");
    let lists = fixture.lists("check", &[]);
    let collecting = std::cell::OnceCell::new();
    fixture.needs_each(&lists, |fixture, user| {
        collecting.get_or_init(|| {
            let collector = fixture.collector(None);
            collector.said("collecting stream EVENTS");
            fixture.publish();
            eventually("the events", || (count(&fixture.database()) == 10).then_some(()));
            collector
        });
        let done = output(&mut fixture.command(Some(user), &["check", "--quick", "--timeout", "1s"]));
        assert!(user != "full" || done.status.code().is_some_and(|code| code < 2), "{done:?}");
    });
}

/// What `check --permissions` found: level and text of each finding.
fn findings(check: &mut Command) -> (Option<i32>, Vec<(String, String)>) {
    let done = output(check.arg("--json"));
    let report: Value = serde_json::from_slice(&done.stdout).expect("JSON");
    let text = |finding: &Value, key: &str| finding[key].as_str().expect("text").to_owned();
    let findings = report["findings"].as_array().expect("a list").iter();
    (done.status.code(), findings.map(|one| (text(one, "level"), text(one, "what"))).collect())
}

#[test]
fn check_finds_what_is_denied_and_changes_nothing() {
    const SETTINGS: &str = "[[query]]\nsubject = 'ask.count'\nsql = 'SELECT count(*) AS n FROM events'";
    let mut fixture = Fixture::new(SETTINGS);
    let full = fixture.lists("run", &["STREAM.CREATE", "$JS.ACK", "RESET"]);
    let lacking = ["$JS.API.CONSUMER.DELETE.EVENTS.*", "ask.count", "$JS.API.CONSUMER.RESET.EVENTS.*"];
    let keep = |list: &[String]| list.iter().filter(|one| !lacking.contains(&one.as_str())).cloned().collect();
    let less = Lists { publish: keep(&full.publish), subscribe: keep(&full.subscribe) };
    fixture.serve([full.user("full"), less.user("less")]);
    fixture.server().make_stream("EVENTS", &["events.>"]);
    fixture.publish();
    let (status, found) = findings(&mut fixture.command(Some("full"), &["check", "--permissions"]));
    assert!(status == Some(0) && found.len() == full.publish.len() + full.subscribe.len(), "{found:?}");
    assert!(found.iter().all(|(level, what)| level == "ok" && what.contains(": allowed (")), "{found:?}");
    fixture.nothing_is_denied();
    let (status, found) = findings(&mut fixture.command(Some("less"), &["check", "--permissions"]));
    let denied: Vec<_> = found.iter().filter(|(_, what)| what.contains(": denied (")).collect();
    assert_eq!((status, denied.len()), (Some(2), 3), "{found:?}");
    for (level, subject) in [("critical", lacking[0]), ("critical", lacking[1]), ("ok", lacking[2])] {
        let is_it = |(found, what): &&&(String, String)| found == level && what.contains(&format!(" {subject}: "));
        assert!(denied.iter().any(|one| is_it(&one)), "{subject}: {denied:?}");
    }
    // Neither a message nor a consumer nor another stream.
    assert_eq!(fixture.server().messages("EVENTS"), 10);
    assert_eq!(fixture.server().consumers("EVENTS"), Vec::<String>::new());
    let names = fixture.server().ask("$JS.API.STREAM.NAMES", &Value::Null);
    assert_eq!(names["streams"], json!(["EVENTS"]));
    assert!(!fixture.database().exists());
    // What would be an event is not tried.
    let (status, found) = findings(&mut fixture.command(Some("less"), &["check", "--permissions=publish"]));
    assert!(found.iter().any(|(_, what)| what.starts_with("publish events.>: not tested, because")), "{found:?}");
    // The less user of a collector may publish no events, and has the rest.
    assert_eq!(status, Some(0), "{found:?}");
}

#[test]
fn the_printed_block_is_configuration_of_the_server() {
    let fixture = Fixture::new("[broker]\nsubjects = ['events.>']");
    let block = |command: &str| {
        let mut check = catchment();
        check.args(["check", "--offline", &format!("--permissions={command}"), "--config"]).arg(&fixture.settings);
        printed(&mut check)
    };
    let user = |command: &str| format!("{{ user: {command}, password: secret\n{} }}\n", block(command));
    let users: String = ["run", "publish", "query", "check"].iter().map(|command| user(command)).collect();
    let admin = "{ user: admin, password: secret }";
    let file = format!("jetstream {{}}\nauthorization {{ users: [ {users} {admin} ] }}\nno_auth_user: admin\n");
    let server = Server::configured(fixture.folder.path(), &file);
    server.make_stream("EVENTS", &["events.>"]);
    let mut publish = catchment();
    publish.args(["publish", "events.a", "x", "--user", "publish", "--password", "secret", "--server", &server.url()]);
    assert!(printed(&mut publish).starts_with("published 1 event"));
    let mut refused = catchment();
    refused.args(["publish", "other.a", "x", "--user", "publish", "--password", "secret", "--server", &server.url()]);
    let said = stderr(&output(&mut refused));
    assert!(said.contains("Permissions Violation"), "{said}");
}
