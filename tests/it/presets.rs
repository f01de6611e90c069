//! What `catchment init` writes, run as it stands: settings, collector, events, rows, queries.

use std::path::{Path, PathBuf};
use std::process::Command;

use rusqlite::types::Value as Cell;
use serde_json::{Value, json};

use crate::support::collector::{Collector, catchment, output, printed, stderr};
use crate::support::server::Server;
use crate::support::{eventually, oracle};

/// A folder that was made by `init`, and a server.
struct Fixture {
    folder: tempfile::TempDir,
    server: Server,
    collector: Collector,
    database: PathBuf,
}

impl Fixture {
    /// Runs what `init` writes for these arguments.
    fn new(arguments: &[&str], database: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        init(folder.path(), arguments);
        let server = Server::start(folder.path());
        let log = folder.path().join("collector.log");
        let collector = Collector::start(command(folder.path(), &["run", "--server", &server.url()]), &log);
        collector.said("collecting stream");
        let database = folder.path().join(database);
        Self { folder, server, collector, database }
    }

    fn publish(&self, subject: &str, payloads: &[Value]) {
        for payload in payloads {
            let arguments = ["publish", "--server", &self.server.url(), subject, &payload.to_string()];
            printed(&mut command(self.folder.path(), &arguments));
        }
    }

    /// What a query answers.
    fn ask(&self, subject: &str, parameters: &[&str]) -> Vec<Value> {
        let mut asking = command(self.folder.path(), &["query", "--json", "--server", &self.server.url(), subject]);
        let answer = printed(asking.args(parameters));
        answer.lines().map(|line| serde_json::from_str(line).expect("a row")).collect()
    }

    /// The error of a query, which is one of the request.
    fn refused(&self, subject: &str, parameters: &[&str]) -> String {
        let mut asking = command(self.folder.path(), &["query", "--server", &self.server.url(), subject]);
        let refused = output(asking.args(parameters));
        let said = stderr(&refused);
        assert!(refused.status.code() == Some(1) && said.contains("(error 400)"), "{said}");
        said
    }

    fn one(&self, sql: &str) -> Cell {
        oracle::open(&self.database).query_row(sql, [], |row| row.get(0)).expect(sql)
    }

    /// Waits until so many events have been committed.
    fn committed(&self, events: u64) {
        eventually("the events", || (oracle::position(&self.database) == events).then_some(()));
    }

    fn ends_well(self) {
        assert!(self.collector.stop().success());
        oracle::sound(&self.database);
    }
}

fn init(folder: &Path, arguments: &[&str]) -> String {
    let done = output(catchment().current_dir(folder).arg("init").args(arguments));
    let said = stderr(&done);
    assert!(done.status.success() && done.stdout.is_empty(), "{said}");
    said
}

/// A command with what `init` wrote as its settings.
fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = catchment();
    // The port of the presets may be in use.
    command.env("CATCHMENT_OBSERVE__LISTEN", "127.0.0.1:0");
    command.current_dir(folder).args(["--config", "catchment.toml"]).args(arguments);
    command
}

#[test]
fn every_preset_passes_its_own_check() {
    for (preset, prefix) in [("events", None), ("chat", None), ("telemetry", None), ("telemetry", Some("site.north.t"))]
    {
        let folder = tempfile::tempdir().expect("a folder");
        let mut arguments = vec!["--preset", preset];
        arguments.extend(prefix.into_iter().flat_map(|prefix| ["--prefix", prefix]));
        init(folder.path(), &arguments);
        let said = printed(&mut command(folder.path(), &["check", "--offline"]));
        assert!(said.ends_with(" ok\n") && !said.contains("warning"), "{said}");
    }
}

#[test]
fn what_is_there_is_not_overwritten_unless_that_is_asked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let said = init(folder.path(), &[]);
    assert!(said.starts_with("wrote catchment.toml\nwrote migrations/001_tables.sql\n"), "{said}");
    assert!(said.contains("run --with-server") && said.contains("publish events.hello"), "{said}");
    assert!(said.contains(" check --offline ") && !said.contains("--config"), "the file is used by default: {said}");
    std::fs::write(folder.path().join("migrations/001_tables.sql"), "-- mine").expect("writes");
    std::fs::remove_file(folder.path().join("catchment.toml")).expect("removes");
    let again = |arguments: &[&str]| output(catchment().current_dir(folder.path()).arg("init").args(arguments));
    let refused = again(&["--preset", "chat"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("001_tables.sql exists already") && stderr(&refused).contains("--force"));
    assert!(!folder.path().join("catchment.toml").exists(), "all or nothing");
    assert!(again(&["--preset", "chat", "--force"]).status.success());
    let tables = std::fs::read_to_string(folder.path().join("migrations/001_tables.sql")).expect("reads");
    assert!(tables.contains("CREATE TABLE messages"), "{tables}");
    let said = stderr(&again(&["--dir", "new/the one"]));
    assert!(folder.path().join("new/the one/migrations/001_tables.sql").exists());
    assert!(said.contains("  cd 'new/the one'\n"), "{said}");
    let with_variable =
        output(catchment().current_dir(folder.path()).args(["init", "--force"]).env("CATCHMENT_CONFIG", "x"));
    let said = stderr(&with_variable);
    assert!(said.contains(" --config catchment.toml run --with-server"), "the variable names another file: {said}");
    let json = again(&["--json", "--dir", "third"]);
    let written = "{\"written\":[\"third/catchment.toml\",\"third/migrations/001_tables.sql\"]}\n";
    assert_eq!((&*json.stdout, &*json.stderr), (written.as_bytes(), &b""[..]));
    for prefix in ["a b", "a.*", "", "a\"b"] {
        assert_eq!(again(&["--dir", "other", "--prefix", prefix]).status.code(), Some(2), "{prefix:?}");
    }
    assert!(!folder.path().join("other").exists());
}

#[test]
fn what_is_in_the_way_of_the_files_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let again = |arguments: &[&str]| output(catchment().current_dir(folder.path()).arg("init").args(arguments));
    std::fs::create_dir_all(folder.path().join("mig/migrations")).expect("makes");
    std::fs::write(folder.path().join("mig/migrations/001_mine.sql"), "-- mine").expect("writes");
    for arguments in [&["--dir", "mig"][..], &["--dir", "mig", "--force"]] {
        let refused = again(arguments);
        let words = "mig/migrations/001_mine.sql has the number of 001_tables.sql; give another --dir";
        assert!(refused.status.code() == Some(1) && stderr(&refused).contains(words), "{}", stderr(&refused));
    }
    assert_eq!(std::fs::read_dir(folder.path().join("mig")).expect("reads").count(), 1, "all or nothing");
    std::fs::rename(folder.path().join("mig/migrations/001_mine.sql"), folder.path().join("mig/migrations/2_mine.sql"))
        .expect("renames");
    assert!(again(&["--dir", "mig"]).status.success(), "it has another number");
    std::fs::write(folder.path().join("afile"), "").expect("writes");
    std::fs::create_dir(folder.path().join("b")).expect("makes");
    std::fs::write(folder.path().join("b/migrations"), "").expect("writes");
    for (dir, file) in [("afile", "afile"), ("afile/sub", "afile"), ("b", "b/migrations")] {
        let refused = again(&["--dir", dir]);
        let words = format!("catchment: {file} is no folder; give another --dir\n");
        assert_eq!((refused.status.code(), stderr(&refused)), (Some(1), words));
    }
    assert!(!folder.path().join("b/catchment.toml").exists());
}

/// What events with these times do, one after the other: the rows of the tables, and how many are dead letters.
fn rows_of(preset: &str, subject: &str, events: &[Value]) -> (Value, usize) {
    let folder = tempfile::tempdir().expect("a folder");
    init(folder.path(), &["--preset", preset]);
    let lines: Vec<String> = events.iter().map(Value::to_string).collect();
    std::fs::write(folder.path().join("lines"), lines.join("\n")).expect("writes");
    let done = output(&mut command(folder.path(), &["test", "--json", "--subject", subject, "lines"]));
    let result: Value = serde_json::from_slice(&done.stdout).unwrap_or_else(|_| panic!("{}", stderr(&done)));
    let letters = result["dead_letters"].as_array().expect("an array").len();
    (result["tables"].clone(), letters)
}

/// Times that SQLite reads as others, or not at all.
fn unreadable_times() -> Vec<Value> {
    [
        json!("2026-02-30"),
        json!("2026-02-30T12:00:00Z"),
        json!("12:00"),
        json!("now"),
        json!("2026-01-31T24:00"),
        json!("2026-01-31T24:30:00Z"),
        json!("2026-13-01"),
        json!("2026-01-31T12:00:61Z"),
        json!("31.01.2026"),
        json!("yesterday"),
        json!(""),
        json!(true),
        json!(false),
        json!([1_700_000_000]),
        json!({"s": 1}),
        json!(1_700_000_000_123_i64),
    ]
    .into()
}

/// Times that are read, with their seconds.
fn readable_times() -> Vec<(Value, f64)> {
    [
        (json!(1_700_000_000), 1_700_000_000.0),
        (json!(1_700_000_000.5), 1_700_000_000.5),
        (json!(-86_400), -86_400.0),
        (json!("1700000000"), 1_700_000_000.0),
        (json!("2023-11-14"), 1_699_920_000.0),
        (json!("2024-02-29T00:00"), 1_709_164_800.0),
        (json!("2023-11-14T22:13:20Z"), 1_700_000_000.0),
        (json!("2023-11-14 22:13:20"), 1_700_000_000.0),
        (json!("2023-11-14T23:13:20.250+01:00"), 1_700_000_000.25),
    ]
    .into()
}

#[test]
fn a_reading_with_a_time_that_cannot_be_read_is_a_dead_letter() {
    let readings = |times: Vec<Value>| {
        let readings: Vec<Value> = times.iter().map(|at| json!({"value": at.to_string(), "at": at})).collect();
        rows_of("telemetry", "telemetry.boiler.temperature", &readings)
    };
    let (tables, letters) = readings(unreadable_times());
    assert_eq!((tables, letters), (json!({}), unreadable_times().len()));
    let (tables, letters) = readings(readable_times().into_iter().map(|(at, _)| at).collect());
    assert_eq!((letters, tables["readings"].as_array().expect("rows").len()), (0, readable_times().len()), "{tables}");
    for (number, (at, seconds)) in readable_times().into_iter().enumerate() {
        assert_eq!(tables["readings"][number]["at"], json!(seconds), "{at}");
    }
    assert_eq!(tables["latest"][0]["at"], json!(1_709_164_800.0), "the highest");
}

#[test]
fn an_event_of_a_chat_with_a_time_that_cannot_be_read_has_the_time_of_the_stream() {
    let of_now =
        |value: &Value| value.as_i64().is_some_and(|seconds| (1_750_000_000..99_000_000_000).contains(&seconds));
    for kind in ["message.log", "user.joined", "user.left"] {
        let events = |times: Vec<Value>| {
            let event = |(number, at)| json!({"username": format!("u{number:02}"), "message": "hi", "timestamp": at});
            let events: Vec<Value> = times.into_iter().enumerate().map(event).collect();
            rows_of("chat", &format!("chat.{kind}"), &events)
        };
        let (tables, letters) = events(unreadable_times());
        for (number, at) in unreadable_times().iter().enumerate() {
            let user = &tables["users"][number];
            assert!(letters == 0 && of_now(&user["first_seen"]) && of_now(&user["last_seen"]), "{at}: {user}");
            assert!(kind != "message.log" || of_now(&tables["messages"][number]["timestamp"]), "{at}: {tables}");
        }
        let (tables, letters) = events(readable_times().into_iter().map(|(at, _)| at).collect());
        for (number, (at, seconds)) in readable_times().into_iter().enumerate() {
            let user = &tables["users"][number];
            let is_seen = |key: &str| user[key].as_f64() == Some(seconds.floor());
            assert!(letters == 0 && is_seen("first_seen") && is_seen("last_seen"), "{at}: {user}");
            assert!(kind != "message.log" || tables["messages"][number]["timestamp"] == at, "as it was sent: {tables}");
        }
    }
}

#[test]
fn the_events_preset_keeps_everything_as_it_comes() {
    let fixture = Fixture::new(&[], "events.db");
    fixture.publish("events.door.front", &[json!({"open": true})]);
    fixture.publish("events.x", &[json!("text")]);
    fixture.committed(2);
    let Cell::Text(newest) = fixture.one("SELECT subject || ' ' || payload FROM latest LIMIT 1") else {
        panic!("text")
    };
    assert_eq!(newest, "events.x \"text\"");
    let now = fixture.one("SELECT abs(unixepoch(published) - unixepoch()) < 60 FROM latest LIMIT 1");
    assert_eq!(now, Cell::Integer(1));
    fixture.ends_well();
}

#[test]
fn the_chat_preset_serves_a_bot() {
    let fixture = Fixture::new(&["--preset", "chat"], "chat.db");
    assert_eq!(fixture.ask("chat.messages.recent", &[]), Vec::<Value>::new());
    let nobody = json!({"messages": 0, "users": 0, "present": 0, "first_seen": null, "last_seen": null});
    assert_eq!(fixture.ask("chat.channel.stats", &[]), [nobody]);
    fixture.publish(
        "chat.message.log",
        &[
            json!({"username": "ada", "message": "one", "timestamp": 1_700_000_000}),
            json!({"username": "bob", "message": "two", "timestamp": 1_700_000_001.5}),
            json!({"username": "ada", "message": "three", "timestamp": "2023-11-14T22:13:30Z"}),
            json!({"username": "ada", "message": "four"}),
            json!({"message": "from nobody"}),
            json!({"username": "", "message": "from nobody either"}),
            json!({"username": "ada"}),
        ],
    );
    fixture.publish(
        "chat.user.joined",
        &[json!({"username": "eve", "timestamp": 1_699_999_999}), json!({"username": "ada"})],
    );
    fixture.publish("chat.user.left", &[json!({"username": "ada", "timestamp": 1_700_000_100})]);
    fixture.publish("chat.user.banned", &[json!({"username": "eve"})]);
    fixture.committed(11);

    let recent = fixture.ask("chat.messages.recent", &["limit=3"]);
    let parts = |row: &Value| (row["username"].clone(), row["message"].clone());
    let expected = [("ada", "four"), ("ada", "three"), ("bob", "two")].map(|(who, what)| (json!(who), json!(what)));
    assert_eq!(recent.iter().map(parts).collect::<Vec<_>>(), expected);
    // Times stay as they were sent; one that was not is that of the stream.
    assert_eq!(
        (&recent[1]["timestamp"], &recent[2]["timestamp"]),
        (&json!("2023-11-14T22:13:30Z"), &json!(1_700_000_001.5))
    );
    assert!(recent[0]["timestamp"].as_i64().expect("whole seconds") > 1_700_001_000);
    for (limit, rows) in [("limit=0", 0), ("limit=\"2\"", 2), ("limit=3.0", 3), ("limit=1000", 4), ("limit=null", 4)] {
        assert_eq!(fixture.ask("chat.messages.recent", &[limit]).len(), rows, "{limit}");
    }
    for limit in ["limit=-1", "limit=2.5", "limit=true", "limit=many", "limit=[1]", "limit=1001", "limt=1"] {
        let said = fixture.refused("chat.messages.recent", &[limit]);
        assert!(
            said.contains("must be an integer from 0 to 1000") || said.contains("the only parameter is limit"),
            "{said}"
        );
    }
    assert!(fixture.refused("chat.users.stats", &[]).contains("username is missing; it must be text"));
    assert!(fixture.refused("chat.channel.stats", &["user=ada"]).contains("\"user\" is not a parameter"));

    let [ada] = &fixture.ask("chat.users.stats", &["username=ada"])[..] else { panic!("one row") };
    assert_eq!((&ada["lines"], &ada["joins"], &ada["present"]), (&json!(3), &json!(1), &json!(0)));
    assert_eq!((&ada["first_seen"], &ada["last_message"]), (&json!(1_700_000_000), &json!("four")));
    let [eve] = &fixture.ask("chat.users.stats", &["username=eve"])[..] else { panic!("one row") };
    assert_eq!((&eve["lines"], &eve["present"], &eve["last_message"]), (&json!(0), &json!(1), &Value::Null));
    assert_eq!(fixture.ask("chat.users.stats", &["username=nobody"]), Vec::<Value>::new());
    let [channel] = &fixture.ask("chat.channel.stats", &[])[..] else { panic!("one row") };
    assert_eq!((&channel["messages"], &channel["users"], &channel["present"]), (&json!(4), &json!(3), &json!(1)));
    assert_eq!(channel["first_seen"], 1_699_999_999);

    assert_eq!(fixture.one("SELECT count(*) FROM catchment_dead_letters"), Cell::Integer(3));
    assert_eq!(fixture.one("SELECT group_concat(subject) FROM events"), Cell::Text("chat.user.banned".into()));
    fixture.ends_well();
}

#[test]
fn a_chat_keeps_the_subjects_of_a_bot_that_is_there_already() {
    let fixture = Fixture::new(&["--preset", "chat", "--prefix", "bots.echo"], "chat.db");
    fixture.publish("bots.echo.message.log", &[json!({"username": "ada", "message": "hi"})]);
    fixture.committed(1);
    assert_eq!(fixture.ask("bots.echo.messages.recent", &["limit=5"])[0]["message"], "hi");
    assert_eq!(fixture.server.last_sequence("BOTS_ECHO"), 1, "requests are no events");
    fixture.ends_well();
}

#[test]
fn the_telemetry_preset_answers_latest_and_history() {
    let fixture = Fixture::new(&["--preset", "telemetry", "--prefix", "site.north"], "telemetry.db");
    fixture.publish(
        "site.north.boiler.temperature",
        &[
            json!({"value": 60.5, "unit": "°C", "at": 1_700_000_000}),
            json!({"value": 61, "unit": "°C", "at": "2023-11-14T22:14:20.250Z"}),
            // Late: history has it, the latest stays.
            json!({"value": 59, "unit": "°C", "at": 1_699_990_000}),
            json!({"value": 1, "at": "yesterday"}),
            json!({"unit": "°C"}),
        ],
    );
    fixture.publish("site.north.door.open", &[json!({"value": true})]);
    fixture.committed(6);

    let [latest] = &fixture.ask("site.north.latest", &["device=boiler"])[..] else { panic!("one row") };
    let expected = json!({
        "device": "boiler", "metric": "temperature", "at": 1_700_000_060.25, "value": 61, "unit": "°C",
    });
    assert_eq!(*latest, expected);
    assert_eq!(fixture.ask("site.north.latest", &[]).len(), 2);
    assert_eq!(fixture.ask("site.north.latest", &["metric=open"])[0]["value"], 1);

    let of_boiler = ["device=boiler", "metric=temperature"];
    let history = |more: &[&str]| -> Vec<Value> {
        let rows = fixture.ask("site.north.history", &[&of_boiler, more].concat());
        rows.into_iter().map(|row| row["value"].clone()).collect()
    };
    assert_eq!(history(&[]), [json!(61), json!(60.5), json!(59)]);
    assert_eq!(history(&["limit=1"]), [json!(61)]);
    let unlimited = fixture.refused("site.north.history", &["device=boiler", "metric=temperature", "limit=-1"]);
    assert!(unlimited.contains("limit is -1; it must be an integer from 0 to 1000"), "{unlimited}");
    assert!(fixture.refused("site.north.history", &["device=boiler"]).contains("metric is missing"));
    assert_eq!(history(&["from=1700000000"]), [json!(61), json!(60.5)]);
    assert_eq!(history(&["from=2023-11-14", "to=2023-11-14T22:14:20"]), [json!(60.5), json!(59)]);
    let yesterday = fixture.refused("site.north.history", &["device=boiler", "metric=temperature", "from=yesterday"]);
    assert!(yesterday.contains("from is \"yesterday\"; it must be a time, as 2026-01-31"), "{yesterday}");
    assert_eq!(history(&["to=1699990000"]), Vec::<Value>::new());

    let letters = "SELECT group_concat(error, '; ') FROM catchment_dead_letters";
    let expected = "NOT NULL constraint failed: readings.at; NOT NULL constraint failed: readings.value";
    assert_eq!(fixture.one(letters), Cell::Text(expected.into()));
    fixture.ends_well();
}
