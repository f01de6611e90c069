//! Partitions: a stream divided by subject, a collector and a database for each part.

mod reading;

use std::time::Duration;

use catchment::record::Identity;
use catchment::{Event, Recorder};
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::support::collector::{Collector, output, printed, results, stderr};
use crate::support::fixture::Fixture;
use crate::support::health::quick;
use crate::support::load::patient_with;
use crate::support::partitioned::Partitions;
use crate::support::proxy::Proxy;
use crate::support::refusal::{ends, refused};
use crate::support::server::{needs, version};
use crate::support::{eventually, oracle};

/// The first server that partitions by all of the subject, and the first with transforms in streams.
const OF_SUBJECTS: (u32, u32) = (2, 12);
const TRANSFORMS: (u32, u32) = (2, 10);

const CHAT: &str = "stream = 'CHAT'\nsubjects = ['chat.*']\n";

/// `chat.0` to `chat.19` in turn, each payload different.
fn events(numbers: std::ops::Range<usize>) -> Vec<(String, String)> {
    numbers.map(|number| (format!("chat.{}", number % 20), format!("m{number}"))).collect()
}

fn publish(fixture: &Fixture, events: &[(String, String)]) {
    let mut raw = fixture.server.raw();
    for (subject, payload) in events {
        raw.publish(subject, None, payload);
    }
}

fn of_chat(fixture: &Fixture, number: u32) -> Partitions {
    Partitions::new(fixture.folder.path(), &fixture.server.url(), number, CHAT)
}

#[test]
fn each_event_is_in_one_database_under_its_own_subject() {
    if !needs(TRANSFORMS, "subject transforms of streams") {
        return;
    }
    let fixture = Fixture::without_stream();
    let all = of_chat(&fixture, 4);
    all.drain();
    // So many that `verify` reads them through a consumer.
    let published = events(0..1_200);
    publish(&fixture, &published);
    all.drain();
    all.hold_exactly(&published);
    let mut messages = 0;
    for partition in 0..4 {
        let json = |arguments: &[&str]| -> Value {
            let text = printed(&mut all.command(partition, arguments));
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
        };
        let gaps = json(&["gaps", "--json"]);
        assert_eq!((&gaps["lost"], &gaps["gaps"]), (&json!(0), &json!([])), "other partitions are no gaps: {gaps}");
        let compared = json(&["verify", "--json"]);
        assert_eq!(compared["messages"], all.rows(partition).len(), "{compared}");
        assert_eq!((&compared["missing"]["count"], &compared["unaccounted"]), (&json!(0), &json!(0)), "{compared}");
        messages += compared["messages"].as_u64().expect("a number");
        let checked = output(&mut all.command(partition, &["check", "--quick"]));
        let found = String::from_utf8_lossy(&checked.stdout).into_owned();
        assert!(found.contains("all of CHAT is in the database"), "{found}");
        // What is not there yet of other partitions does not count as lag.
        assert!(!found.contains("critical"), "{found}");
        let incoming =
            printed(&mut all.command(partition, &["tail", "--incoming", "--no-follow", "--json", "-n", "1000"]));
        let of_first = all.rows(partition)[0].clone();
        assert_eq!(incoming.lines().count(), all.rows(partition).len());
        let line: Value = serde_json::from_str(incoming.lines().next().expect("a line")).expect("JSON");
        assert_eq!(line["subject"], of_first.subject);
    }
    assert_eq!(messages, 1_200);
    // A collector without `partition` collects all of them.
    let whole = fixture.path("whole.db");
    let done = output(
        all.command(0, &["run", "--drain"])
            .env_remove("CATCHMENT_BROKER__PARTITION")
            .env("CATCHMENT_DATABASE__PATH", &whole),
    );
    assert!(done.status.success() && stderr(&done).contains("all 4 partitions of stream CHAT"), "{}", stderr(&done));
    let payloads: Vec<String> = published.iter().map(|(_, payload)| payload.clone()).collect();
    assert_eq!(oracle::payloads(&whole), payloads);
    assert_eq!(oracle::texts(&whole, "SELECT DISTINCT subject FROM events ORDER BY id LIMIT 1"), ["chat.0"]);
}

#[test]
fn routes_dead_letters_replies_and_replays_have_the_published_subject() {
    if !needs(TRANSFORMS, "subject transforms of streams") {
        return;
    }
    let fixture = Fixture::without_stream();
    let routes = "[database]\nmigrations = 'tables'\n[[route]]\nname = 'line'\nsubject = 'chat.*'\n\
                  sql = 'INSERT INTO lines VALUES (:token_2, :n, :subject)'\n";
    std::fs::create_dir(fixture.path("tables")).expect("a folder");
    let table = "CREATE TABLE lines(room TEXT, n INTEGER NOT NULL, subject TEXT) STRICT;";
    fixture.file("tables/001_lines.sql", table);
    let all = Partitions::new(fixture.folder.path(), &fixture.server.url(), 2, &format!("{CHAT}{routes}"));
    all.drain();
    let mut raw = fixture.server.raw();
    for number in 0..40 {
        let payload = if number % 10 == 9 { "{}".to_owned() } else { format!("{{\"n\": {number}}}") };
        raw.publish(format!("chat.{}", number % 20), None, payload);
    }
    // One that the client cannot read.
    raw.publish("chat.7", Some(b"NATS/1.0\r\nno colon\r\n\r\n"), "broken");
    all.drain();
    let (mut lines, mut letters) = (0, 0);
    for partition in 0..2 {
        let database = all.database(partition);
        lines += oracle::number(database, "SELECT count(*) FROM lines WHERE subject = 'chat.' || room");
        letters += oracle::number(database, "SELECT count(*) FROM catchment_dead_letters WHERE subject LIKE 'chat.%'");
        assert_eq!(oracle::number(database, "SELECT count(*) FROM lines WHERE subject <> 'chat.' || room"), 0);
        let replay = ["replay", "--all", "--into", "new.db", "--swap"];
        let before = oracle::texts(database, "SELECT room || n FROM lines ORDER BY rowid");
        let done = output(&mut all.command(partition, &replay));
        assert!(done.status.success(), "{}", stderr(&done));
        assert_eq!(oracle::texts(database, "SELECT room || n FROM lines ORDER BY rowid"), before);
        // The new database is still of this partition.
        let other = all.command(1 - partition, &["run", "--drain"]).env("CATCHMENT_DATABASE__PATH", database).output();
        assert!(stderr(&other.expect("runs")).contains(&format!("it has partition {partition} of stream CHAT")));
    }
    assert_eq!((lines, letters), (36, 5));
}

#[test]
fn a_partition_that_cannot_be_collected_is_refused_at_the_start_and_by_check() {
    if !needs(TRANSFORMS, "subject transforms of streams") {
        return;
    }
    let fixture = Fixture::without_stream();
    let all = of_chat(&fixture, 4);
    all.drain();
    let run = |partition: &str, partitions: &str, command: &[&str]| {
        let mut command = all.command(0, command);
        command.env("CATCHMENT_BROKER__PARTITION", partition).env("CATCHMENT_BROKER__PARTITIONS", partitions);
        command
    };
    let criticals = |partition: &str, partitions: &str| {
        let checked = output(&mut run(partition, partitions, &["check", "--quick", "--json"]));
        let report: Value = serde_json::from_slice(&checked.stdout).expect("JSON");
        let findings = report["findings"].as_array().expect("findings").clone();
        let critical = findings.into_iter().filter(|finding| finding["level"] == "critical");
        critical.map(|finding| finding["what"].as_str().expect("text").to_owned()).collect::<Vec<_>>()
    };
    refused(
        &mut run("4", "4", &["run"]),
        2,
        &["CATCHMENT_BROKER__PARTITION: is 4; broker.partitions is 4: from 0 to 3"],
    );
    let another = "stream CHAT has 4 partitions, and broker.partitions is 2";
    refused(&mut run("0", "2", &["run"]), 1, &[another, "set broker.partitions = 4", "catchment repartition"]);
    assert_eq!(criticals("0", "2"), [another]);
    let mixed = "it has partition 0 of stream CHAT, and the settings are for partition 1";
    refused(&mut run("1", "4", &["run"]), 1, &[mixed, "each partition needs its own"]);
    assert!(matches!(&criticals("1", "4")[..], [one] if one.contains(mixed)), "{:?}", criticals("1", "4"));
    for command in [&["gaps"][..], &["verify"], &["verify", "--repair"]] {
        refused(&mut run("1", "4", command), 1, &[mixed]);
    }
    // Without the settings, nothing of the stream would be collected.
    let without = fixture.file("without.toml", format!("[broker]\n{CHAT}"));
    let mut plain =
        fixture.command(&["run", "--config", &without, "--server", &fixture.server.url(), "--database", "x.db"]);
    refused(
        &mut plain,
        1,
        &["stream CHAT has 4 partitions, and broker.partitions is not set; set broker.partitions = 4"],
    );
    // All of the stream can be collected, with the numbers before the subjects: that is told.
    let whole = fixture.file("whole.toml", "[broker]\nstream = 'CHAT'\n");
    let whole = |command: &str| {
        fixture.command(&[command, "--config", &whole, "--server", &fixture.server.url(), "--database", "w.db"])
    };
    let told =
        "stream CHAT has 4 partitions, and broker.partitions is not set: each subject is collected with the number";
    assert!(
        String::from_utf8_lossy(&output(&mut whole("check")).stdout)
            .contains(&format!("critical  stream       {told}"))
    );
    let collector = Collector::start(whole("run"), &fixture.path("whole.log"));
    collector.said(told);
    assert!(collector.stop().success());
    // A stream without them.
    fixture.server.make_stream("PLAIN", &["plain.>"]);
    let plain = "stream PLAIN has no partitions, and broker.partitions is 4; remove broker.partitions";
    let mut command = run("0", "4", &["run", "--stream", "PLAIN", "--database", "y.db"]);
    refused(command.env("CATCHMENT_BROKER__SUBJECTS", "plain.>"), 1, &[plain]);
    let renamed = json!({ "subject_transform": { "src": "own.*", "dest": "{{partition(4,1)}}.mine.{{wildcard(1)}}" } });
    fixture.server.make_stream_with("OWN", &["own.*"], &renamed);
    let mut command = run("0", "4", &["run", "--stream", "OWN", "--database", "z.db"]);
    let own = "stream OWN cannot be collected by partitions: its subject_transform";
    refused(command.env("CATCHMENT_BROKER__SUBJECTS", "own.*"), 1, &[own, "changes subjects"]);
}

#[test]
fn a_server_that_cannot_divide_these_subjects_says_so_in_one_line() {
    let fixture = Fixture::without_stream();
    let start = |name: &str, subjects: &str| {
        let settings = format!("stream = '{name}'\nsubjects = {subjects}\n");
        Partitions::new(fixture.folder.path(), &fixture.server.url(), 3, &settings)
    };
    if version() < TRANSFORMS {
        let what = "stream CHAT cannot have partitions: nats-server 2.9";
        refused(&mut start("CHAT", "['chat.*']").command(0, &["run"]), 1, &[what, "use nats-server 2.12 or later"]);
        let checked = output(&mut start("CHAT", "['chat.*']").command(0, &["check"]));
        assert!(String::from_utf8_lossy(&checked.stdout).contains(what));
        return;
    }
    // Subjects of every kind, each on a stream of its own, and what is published on them.
    let kinds = [
        ("LITERAL", "['one']", vec!["one"], false),
        ("SEVERAL", "['two', 'three.*', 'four.>']", vec!["two", "three.a", "four.a.b", "four.c"], false),
        ("REST", "['five.>']", vec!["five.a", "five.b.c"], false),
        ("WILD", "['six.*.a.*']", vec!["six.x.a.y", "six.z.a.y"], true),
        ("BOTH", "['seven.*.>']", vec!["seven.x.a.y", "seven.z.b"], true),
        ("EVENTS", "[]", vec!["events.a", "events.b.c"], false),
    ];
    for (name, subjects, published, has_wildcards) in kinds {
        let all = start(name, subjects);
        if version() < OF_SUBJECTS && !has_wildcards {
            refused(&mut all.command(0, &["run"]), 1, &["partitions one subject, by its *", "2.12 or later"]);
            continue;
        }
        for partition in 0..3 {
            results(output(
                all.command(partition, &["run", "--drain"])
                    .env("CATCHMENT_DATABASE__PATH", format!("{name}{partition}.db")),
            ));
        }
        let mut raw = fixture.server.raw();
        for subject in &published {
            raw.publish(subject, None, "x");
        }
        let mut found: Vec<String> = Vec::new();
        for partition in 0..3 {
            let database = fixture.path(&format!("{name}{partition}.db"));
            results(output(all.command(partition, &["run", "--drain"]).env("CATCHMENT_DATABASE__PATH", &database)));
            found.extend(oracle::texts(&database, "SELECT subject FROM events"));
        }
        found.sort();
        let mut expected: Vec<String> = published.iter().map(|&subject| subject.to_owned()).collect();
        expected.sort();
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn partitions_of_an_interest_stream_keep_what_no_collector_has_stored() {
    if !needs(OF_SUBJECTS, "partitions of whole subjects") {
        return;
    }
    let fixture = Fixture::without_stream();
    let settings =
        json!({ "retention": "interest", "subject_transform": { "src": ">", "dest": "{{partition(2)}}.>" } });
    fixture.server.make_stream_with("CHAT", &["chat.*"], &settings);
    let all = of_chat(&fixture, 2);
    all.drain();
    let published = events(0..100);
    publish(&fixture, &published);
    assert_eq!(fixture.server.messages("CHAT"), 100);
    all.drain();
    all.hold_exactly(&published);
    eventually("the stream to drop what both have", || (fixture.server.messages("CHAT") == 0).then_some(()));
    let interest = "stream CHAT has interest retention: it would drop events of a partition without a collector";
    refused(
        all.command(0, &["repartition"]).env("CATCHMENT_BROKER__PARTITIONS", "3"),
        1,
        &[interest, "limits retention"],
    );
    assert_eq!(printed(&mut all.command(0, &["repartition"])), "stream CHAT has 2 partitions already\n");
}

#[test]
fn an_event_that_is_sent_twice_is_in_its_partition_once() {
    if !needs(OF_SUBJECTS, "partitions of whole subjects") {
        return;
    }
    let fixture = Fixture::without_stream();
    let all = of_chat(&fixture, 3);
    all.drain();
    let proxy = Proxy::start(fixture.server.port());
    // The stream recognises nothing: the numbers alone tell a repetition, and each database has every third or so.
    let recorder = patient_with(quick(proxy.url()), Identity::Database);
    let published = events(0..3_000);
    let record = |part: &[(String, String)]| {
        let event = |(subject, payload): &(String, String)| Event::new(subject.as_str(), payload.as_str());
        part.iter().map(|one| recorder.record(event(one)).expect("taken")).collect::<Vec<_>>()
    };
    for receipt in record(&published[..1_000]) {
        receipt.wait(Duration::from_secs(60)).expect("stored");
    }
    proxy.drop_publish_acknowledgements();
    let receipts = record(&published[1_000..]);
    eventually("some to be there twice", || (fixture.server.last_sequence("CHAT") > 3_000).then_some(()));
    proxy.heal();
    for receipt in receipts {
        receipt.wait(Duration::from_secs(60)).expect("stored");
    }
    recorder.close(Duration::from_secs(60)).expect("all are in the stream");
    let repeated = fixture.server.last_sequence("CHAT") - 3_000;
    all.drain();
    all.hold_exactly(&published);
    // All are read again by new databases: each knows its repetitions.
    for partition in 0..3 {
        let before = all.rows(partition);
        std::fs::remove_file(all.database(partition)).expect("removes");
        results(output(&mut all.command(partition, &["run", "--drain"])));
        let payloads =
            |rows: &[crate::support::partitioned::Row]| rows.iter().map(|row| row.payload.clone()).collect::<Vec<_>>();
        assert_eq!(payloads(&all.rows(partition)), payloads(&before));
        let sql = "SELECT max(length(stored)) FROM catchment_recorders";
        assert!(
            oracle::number(all.database(partition), sql) <= 8_200,
            "what a database remembers of a recorder is bounded"
        );
    }
    assert!(repeated > 0);
}

#[test]
fn what_was_published_before_there_were_partitions_is_not_passed_over() {
    if !needs(OF_SUBJECTS, "partitions of whole subjects") {
        return;
    }
    let fixture = Fixture::without_stream();
    fixture.server.make_stream("CHAT", &["chat.*"]);
    let plain = fixture.file("plain.toml", format!("[broker]\n{CHAT}[database]\npath = 'p0.db'\n"));
    let alone = || fixture.command(&["run", "--drain", "--config", &plain, "--server", &fixture.server.url()]);
    let before = events(0..30);
    publish(&fixture, &before[..20]);
    results(output(&mut alone()));
    publish(&fixture, &before[20..]);
    let all = of_chat(&fixture, 2);
    let said = printed(&mut all.command(0, &["repartition"]));
    assert_eq!(said, "stream CHAT has 2 partitions now (before: none): events after 30 are divided by 2\n");
    let after = events(30..60);
    publish(&fixture, &after);
    // The old database continues as that of a partition, once it has what is in none.
    let missing = "message 21 of stream CHAT is from before it had partitions, and the database does not have it";
    ends(&mut all.command(0, &["run", "--drain"]), 1, &[missing, "run --drain without broker.partitions"]);
    let done = output(&mut alone());
    assert!(done.status.success(), "{}", stderr(&done));
    assert_eq!(oracle::count(all.database(0)), 30);
    for partition in 0..2 {
        let done = output(&mut all.command(partition, &["run", "--drain"]));
        let (log, is_new) = (stderr(&done), partition == 1);
        assert!(done.status.success(), "{log}");
        assert_eq!(log.contains("message 1 of stream CHAT is from before it had partitions"), is_new, "{log}");
    }
    let mut found: Vec<String> = (0..2).flat_map(|partition| all.rows(partition)).map(|row| row.payload).collect();
    found.sort();
    let mut expected: Vec<String> = before.iter().chain(&after).map(|(_, payload)| payload.clone()).collect();
    expected.sort();
    assert_eq!(found, expected);
    // A replay of the partition does not read what was stored before, and verify does not say that it is gone.
    let compared = printed(&mut all.command(0, &["verify"]));
    assert!(
        compared.contains("30 rows whose message the stream no longer has, or has from before it had partitions"),
        "{compared}"
    );
    let replay = ["replay", "--all", "--into", "new.db", "--swap"];
    let lost = "it has what new.db lacks: events of stream CHAT from before it had partitions, up to 30";
    ends(&mut all.command(0, &replay), 1, &[lost]);
    assert!(oracle::count(all.database(0)) > 30, "the database is unchanged");
    // The other database never had them.
    let replayed = output(&mut all.command(1, &["replay", "--all", "--into", "other.db", "--swap"]));
    assert!(replayed.status.success(), "{}", stderr(&replayed));
    // Nor is it forgotten which partition it is.
    refused(&mut alone(), 1, &["it has partition 0 of stream CHAT, and the settings are without partitions"]);
}

#[test]
fn a_running_collector_goes_on_while_the_number_changes() {
    if !needs(OF_SUBJECTS, "partitions of whole subjects") {
        return;
    }
    let fixture = Fixture::without_stream();
    let few = of_chat(&fixture, 2);
    few.drain();
    let collectors: Vec<Collector> = (0..2)
        .map(|partition| Collector::start(few.command(partition, &["run"]), &fixture.path(&format!("{partition}.log"))))
        .collect();
    let first = events(0..50);
    publish(&fixture, &first);
    few.reaches(50);
    let more = of_chat(&fixture, 4);
    let said = printed(more.command(0, &["repartition", "--json"]).env_remove("CATCHMENT_BROKER__PARTITION"));
    assert_eq!(said, "{\"before\":2,\"last\":50,\"now\":4,\"stream\":\"CHAT\"}\n");
    collectors[0].said("stream CHAT has 4 partitions, and broker.partitions is 2");
    let second = events(50..200);
    publish(&fixture, &second);
    for collector in collectors {
        assert!(collector.stop().success());
    }
    more.drain();
    let all: Vec<Vec<_>> = (0..4).map(|partition| more.rows(partition)).collect();
    assert!(all.iter().all(|rows| !rows.is_empty()), "every partition has events");
    let mut rows: Vec<_> = all.into_iter().flatten().collect();
    rows.sort_by_key(|row| row.sequence);
    let found: Vec<_> = rows.iter().map(|row| (row.subject.clone(), row.payload.clone())).collect();
    assert_eq!(found, [first, second].concat(), "each once");
    let unchanged = printed(&mut more.command(0, &["repartition"]));
    assert_eq!(unchanged, "stream CHAT has 4 partitions already\n");
    let info = fixture.server.ask("$JS.API.STREAM.INFO.CHAT", &Value::Null);
    assert_eq!(info["config"]["subject_transform"]["dest"], "{{partition(4)}}.>");
    let connection = Connection::open(more.database(3)).expect("opens");
    let noted: String = connection
        .query_row("SELECT value FROM catchment_meta WHERE key = 'partition of CHAT'", [], |row| row.get(0))
        .expect("a note");
    assert_eq!(noted, "3");
}
