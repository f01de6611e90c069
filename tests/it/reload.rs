//! Settings that are read again while events flow: SIGHUP and `Collector::reload`.

use std::sync::mpsc::{self, TryRecvError};
use std::time::Duration;

use catchment::config::{Mode, RouteConfig};
use catchment::unversioned::store::{Lock, StartPhase};
use catchment::{Collector, Config, Error};
use nix::fcntl::OFlag;
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use serde_json::json;

use crate::support::asking::{self, ENDLESS, ONE, query};
use crate::support::collector::{self, run, signal};
use crate::support::fixture::Fixture;
use crate::support::load::Load;
use crate::support::{eventually, oracle, with};

const SCHEMA: &str =
    "CREATE TABLE lines(id INTEGER PRIMARY KEY, payload TEXT NOT NULL, sequence INTEGER NOT NULL, by TEXT NOT NULL);";

/// Settings whose route names itself in each row.
fn settings(by: &str) -> String {
    format!(
        "unmatched = 'drop'\n[database]\nmigrations = 'sql'\n[[route]]\nname = 'line'\nsubject = 'events.>'\n\
         sql = \"INSERT INTO lines(payload, sequence, by) VALUES (:payload, :sequence, '{by}')\"\n\
         [[query]]\nsubject = 'ask.by'\nsql = \"SELECT '{by}' AS by\"\n"
    )
}

/// A fixture with the settings of `by`, and the command that collects with them.
fn fixture(by: &str) -> (Fixture, std::process::Command) {
    let fixture = Fixture::new();
    std::fs::create_dir(fixture.path("sql")).expect("a folder");
    fixture.file("sql/001_lines.sql", SCHEMA);
    let file = fixture.file("a.toml", settings(by));
    let mut command = run(&fixture.server.url(), &fixture.database());
    command.current_dir(fixture.folder.path()).args(["--config", &file]);
    (fixture, command)
}

/// Sends SIGHUP and waits for one more line of the log with these words.
fn reload(collector: &collector::Collector, words: &str) {
    let count = || collector.log().matches(words).count();
    let before = count();
    signal(collector.pid(), "HUP");
    eventually(&format!("{words:?} in the log"), || (count() > before).then_some(()));
}

#[test]
fn under_load_each_event_is_stored_once_by_one_configuration() {
    const ROUNDS: usize = 6;
    let (fixture, mut command) = fixture("v0");
    command.env("CATCHMENT_DATABASE__WRITERS", "3").env("CATCHMENT_BATCH__MAX_EVENTS", "200");
    let collector = collector::Collector::start(command, &fixture.path("log"));
    collector.said("collecting stream");
    let load = Load::start(&fixture.server, 40_000, 2_000);
    let count = || oracle::number(&fixture.database(), "SELECT count(*) FROM lines");
    for round in 1..=ROUNDS {
        let before = count();
        load.committed(before);
        eventually("events to flow", || {
            let now = count();
            load.committed(now);
            (now > before + 500).then_some(())
        });
        fixture.file("a.toml", format!("{}nonsense = ", settings("bad")));
        reload(&collector, "not reloaded, nothing was changed: ");
        fixture.file("a.toml", settings("bad").replace("INTO lines", "INTO gone"));
        reload(&collector, "no such table: gone");
        fixture.file("a.toml", settings(&format!("v{round}")));
        reload(&collector, "settings: reloaded from ");
        load.committed(count());
    }
    let kept = load.finish();
    eventually("all rows", || (count() == kept.len() as u64).then_some(()));
    let log = collector.log();
    assert!(log.contains("changed route line, query ask.by"), "{log}");
    assert!(collector.stop().success());
    // One row for each event, in the order of the stream, and each configuration takes over at one event.
    let rows = oracle::texts(&fixture.database(), "SELECT payload FROM lines ORDER BY id");
    let expected: Vec<_> = kept.iter().map(|kept| kept.payload.clone()).collect();
    assert!(rows == expected, "{} rows of {} events", rows.len(), expected.len());
    let runs = "SELECT by FROM (SELECT by, id, lag(by) OVER (ORDER BY id) AS before FROM lines) WHERE by IS NOT before ORDER BY id";
    let expected: Vec<String> = (0..=ROUNDS).map(|round| format!("v{round}")).collect();
    assert_eq!(oracle::texts(&fixture.database(), runs), expected);
    assert_eq!(oracle::number(&fixture.database(), "SELECT count(*) FROM catchment_dead_letters"), 0);
}

#[test]
fn what_cannot_change_is_named_and_nothing_is_changed() {
    let (fixture, command) = fixture("one");
    let mut collector = collector::Collector::start(command, &fixture.path("log"));
    collector.said("collecting stream");
    let other = settings("two").replace("[database]\n", "[database]\nwriters = 2\nbusy_timeout = '2s'\n");
    fixture.file("a.toml", &other);
    reload(&collector, "a.toml:3: database.writers: needs a restart, and so do database.busy_timeout");
    // A migration that a start would apply.
    fixture.file("a.toml", settings("three"));
    fixture.file("sql/002_more.sql", "CREATE TABLE more(a);");
    reload(&collector, "migration 002_more.sql waits for a restart: a reload applies none");
    let unready = settings("four")
        .replace("INTO lines(payload, sequence, by) VALUES (:payload, :sequence, 'four')", "INTO more VALUES (1)");
    fixture.file("a.toml", unready);
    reload(
        &collector,
        "no such table: more; restart the collector if 002_more.sql makes it fit: a reload applies no migration",
    );
    std::fs::remove_file(fixture.path("a.toml")).expect("removes");
    reload(&collector, "not reloaded, nothing was changed: configuration: ");
    fixture.publish("x", 1);
    let by = || oracle::texts(&fixture.database(), "SELECT by FROM lines");
    eventually("the row", || (by() == ["three"]).then_some(()));
    assert!(collector.ended().is_none());
    fixture.file("a.toml", settings("three"));
    reload(&collector, "settings: reloaded from ");
    assert!(collector.log().contains(": nothing differs"), "{}", collector.log());
    assert!(collector.stop().success());
}

#[test]
fn a_request_is_answered_while_queries_are_replaced() {
    let fixture = asking::Fixture::new();
    let mut config = fixture.config(vec![query("ask.one", ONE)]);
    let collector = Collector::start(&config).expect("starts");
    let client = fixture.client();
    client.until_answered("ask.one");
    let id = client.ask("$SRV.PING", "").expect("an answer")["id"].clone();
    let asked = std::thread::scope(|scope| {
        let (going_on, end) = mpsc::channel::<()>();
        let client = &client;
        let asking = scope.spawn(move || {
            let mut asked = 0;
            while end.try_recv() == Err(TryRecvError::Empty) {
                // One that is on its way while the old queries cease may get no answer.
                if let Ok(replied) = client.try_to_ask("ask.one", "") {
                    assert_eq!(replied, Ok(json!([{ "one": 1 }])));
                    asked += 1;
                }
            }
            asked
        });
        for number in 0..10 {
            config.queries.truncate(1);
            config.queries.push(query(&format!("ask.more.{number}"), &format!("SELECT {number} AS n")));
            let reloaded = collector.reload(&config).expect("reloads");
            let name = format!("query ask.more.{number}");
            assert!(reloaded.changed.contains(&name), "{reloaded:?}");
            let answer = fixture.client().ask(&format!("ask.more.{number}"), "");
            assert_eq!(answer, Ok(json!([{ "n": number }])));
        }
        drop(going_on);
        asking.join().expect("each is answered")
    });
    assert_eq!(collector.status().requests.answered, asked + 11, "counters continue");
    let client = fixture.client();
    assert_eq!(client.ask("$SRV.PING", "").expect("an answer")["id"], id, "it is the same service");
    let stats = client.ask("$SRV.STATS", "").expect("an answer");
    assert_eq!(stats["endpoints"][0]["num_requests"], asked + 1);
    eventually("the replaced services to end", || {
        collector.reload(&config).expect("nothing differs");
        let names = std::fs::read_dir("/proc/self/task").expect("threads").flatten();
        let names = names.filter_map(|thread| std::fs::read_to_string(thread.path().join("comm")).ok());
        (names.filter(|name| name.starts_with("catchment-query")).count() <= 2).then_some(())
    });
    // Without queries there is no service.
    config.queries.clear();
    collector.reload(&config).expect("reloads");
    eventually("no more answers", || client.0.request_timeout("ask.one", "", Duration::from_millis(200)).err());
    asking::stop(&collector);
    assert!(matches!(collector.reload(&config), Err(Error::Ended)));
}

#[test]
fn a_slow_query_ends_under_the_settings_that_accepted_it() {
    let fixture = asking::Fixture::new();
    let endless = with(query("ask.endless", ENDLESS), |query| query.timeout = Duration::from_secs(3600));
    let mut config = fixture.config(vec![endless]);
    let collector = Collector::start(&config).expect("starts");
    let client = fixture.client();
    let replies = client.0.subscribe("_INBOX.waiting").expect("subscribes");
    client.0.publish_request("ask.endless", "_INBOX.waiting", "").expect("published");
    client.0.flush().expect("the server has it");
    // Taken by a thread of the first service, which nothing but a stop ends.
    eventually("the request", || {
        let stats = client.ask("$SRV.STATS", "").ok()?;
        (stats["endpoints"].as_array()?.len() == 1).then_some(())
    });
    config.queries = vec![query("ask.one", ONE)];
    collector.reload(&config).expect("does not wait for it");
    assert_eq!(client.until_answered("ask.one"), json!([{ "one": 1 }]));
    assert!(replies.try_next().is_none());
    collector.stop(Duration::from_secs(2)).expect("stops");
    let reply = replies.next_timeout(Duration::from_secs(5)).expect("interrupted by the stop");
    assert_eq!(String::from_utf8_lossy(&reply.data), r#"{"code":503,"error":"the collector is stopping"}"#);
}

#[test]
fn routes_may_begin_and_cease_to_confirm() {
    for mode in [Mode::Jetstream, Mode::Core] {
        confirmations_begin_and_cease(mode);
    }
}

fn confirmations_begin_and_cease(mode: Mode) {
    let fixture = asking::Fixture::new();
    let client = fixture.client();
    let insert = "INSERT INTO events(subject, published_us, payload) VALUES (:subject, 1, :payload)";
    let route = |reply| with(RouteConfig::new("events.>", [insert]), |route| route.reply = reply);
    let mut config = fixture.config(Vec::new());
    (config.broker.mode, config.routes) = (mode, vec![route(false)]);
    let collector = Collector::start(&config).expect("starts");
    let reload = |reply| {
        let mut config: Config = config.clone();
        config.routes = vec![route(reply)];
        assert_eq!(collector.reload(&config).expect("reloads").changed, ["route events.>"]);
    };
    for _ in 0..2 {
        reload(true);
        let inbox = client.0.new_inbox();
        let replies = client.0.subscribe(&inbox).expect("subscribes");
        let headers = nats::HeaderMap::from_iter([("Catchment-Reply-To", inbox.as_str())]);
        client.0.publish_with_reply_or_headers("events.a", None, Some(&headers), "x").expect("publishes");
        let reply = replies.next_timeout(Duration::from_secs(10)).expect("a confirmation");
        assert!(String::from_utf8_lossy(&reply.data).contains("\"stored\":true"));
        reload(false);
    }
    eventually("the rows", || (collector.status().committed == 2).then_some(()));
    assert_eq!(collector.status().confirmations_dropped, 0);
    asking::stop(&collector);
}

#[test]
fn a_closed_terminal_stops_it_and_reloads_nothing() {
    let (fixture, mut command) = fixture("one");
    // Neither this collector nor a process of another test may inherit the terminal's other end.
    let terminal = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).expect("a terminal");
    grantpt(&terminal).and_then(|()| unlockpt(&terminal)).expect("opens it");
    let slave = std::fs::File::options().read(true).write(true).open(ptsname_r(&terminal).expect("a name"));
    let slave = slave.expect("opens");
    let end = || std::process::Stdio::from(slave.try_clone().expect("clones"));
    let mut child = command.stdin(end()).stderr(end()).stdout(end()).spawn().expect("starts");
    drop((command, slave));
    eventually("it to run", || (Lock::phase(&fixture.database()) == Some(StartPhase::Running)).then_some(()));
    fixture.file("a.toml", settings("two"));
    // The system hangs the terminal up first, then it sends the signal to the terminal's session.
    drop(terminal);
    signal(child.id(), "HUP");
    let status = eventually("the end", || child.try_wait().expect("can be asked"));
    assert!(status.success(), "{status:?}");
}

#[test]
fn the_command_reports_the_outcome() {
    let (fixture, command) = fixture("one");
    let reload = |more: &[&str]| {
        let done =
            collector::output(fixture.command(&["reload", "--config", "a.toml", "--database", "a.db"]).args(more));
        (done.status.code(), String::from_utf8(done.stdout.clone()).expect("UTF-8"), collector::stderr(&done))
    };
    let (status, _, said) = reload(&[]);
    assert_eq!(status, Some(1));
    assert!(said.contains("database a.db: no collector uses it; start one with catchment run"), "{said}");
    let collector = collector::Collector::start(command, &fixture.path("log"));
    collector.said("collecting stream");
    eventually("reloads to be taken", || Lock::reloads(&fixture.database()));
    assert_eq!(reload(&[]), (Some(0), "reloaded: nothing differs\n".into(), String::new()));
    fixture.file("a.toml", settings("two"));
    let (status, printed, _) = reload(&["--json"]);
    let printed: serde_json::Value = serde_json::from_str(&printed).expect("JSON");
    let expected = json!({ "reloaded": true, "text": "changed route line, query ask.by", "process": collector.pid() });
    assert_eq!((status, printed), (Some(0), expected));
    // The collector does not read this one.
    let other = fixture.file("other.toml", settings("three"));
    let done = collector::output(&mut fixture.command(&["reload", "--config", &other, "--database", "a.db"]));
    let said = collector::stderr(&done);
    assert!(
        done.status.code() == Some(1) && said.contains("/a.toml, not from ") && said.contains("other.toml; "),
        "{said}"
    );
    // It can be read, and does not fit the database.
    fixture.file("a.toml", settings("three").replace("INTO lines", "INTO gone"));
    let (status, printed, said) = reload(&[]);
    assert_eq!((status, &*printed), (Some(1), ""));
    let words = "not reloaded, nothing was changed: ";
    assert!(said.contains(words) && said.contains("a.toml:4: route line, statement 1: no such table: gone"), "{said}");
    fixture.file("a.toml", "nonsense = 1\n");
    let (status, _, said) = reload(&[]);
    assert!(status == Some(1) && said.contains(words) && said.contains("nonsense"), "{said}");
    // A program of its own does not expect the signal.
    let lock = Lock::take(&fixture.path("b.db")).expect("is free");
    fixture.file("a.toml", settings("two"));
    let done = collector::output(&mut fixture.command(&["reload", "--database", "b.db", "--no-config"]));
    let (status, said) = (done.status.code(), collector::stderr(&done));
    let process = std::process::id();
    assert!(status == Some(1) && said.contains(&format!("process {process} takes no reloads")), "{said}");
    drop(lock);
    assert!(collector.stop().success());
}
