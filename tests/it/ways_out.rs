//! What a start with a server of its own leaves where it fails, and which commands errors name as a way out.

use crate::own_server::Folder;
use crate::support::collector::output;
use crate::support::refusal::{ends, refused};
use crate::support::{eventually, oracle};

#[test]
fn a_failed_start_removes_the_server_that_it_made() {
    let folder = Folder::new();
    let settings = folder.at("a.toml");
    std::fs::create_dir(folder.at("migrations")).expect("a folder");
    std::fs::write(folder.at("migrations/001_t.sql"), "CREATE TABLE t(a);").expect("writes");
    std::fs::write(&settings, "[broker]\nsubjects = ['a.*', '*.b']\n[database]\nmigrations = 'migrations'\n")
        .expect("writes");
    let start = || {
        let mut start = folder.command(&["run", "--with-server"]);
        start.arg("--config").arg(&settings).current_dir(folder.at(""));
        start
    };
    let said = ends(&mut start(), 1, &["a stream cannot have subjects that overlap"]);
    assert!(said.contains("removed again with its 1 migration, because the start failed"), "{said}");
    let names = || {
        let entries =
            std::fs::read_dir(folder.at("")).expect("reads").map(|entry| entry.expect("an entry").file_name());
        let mut names: Vec<_> = entries.map(|name| name.into_string().expect("UTF-8")).collect();
        names.sort();
        names
    };
    assert_eq!(names(), ["a.toml", "migrations"], "nothing is left");
    // The next error is not about a server that nobody has.
    let mut plain = folder.command(&["run", "--server", "nats://127.0.0.1:9"]);
    refused(plain.current_dir(folder.at("")), 1, &["nats://127.0.0.1:9", " starts one"]);

    // A server that has events stays.
    let collector = folder.starting(&[], "run.log");
    folder.succeeds(&["publish", "events.a", "kept"]);
    assert!(collector.stop().success());
    std::fs::remove_file(folder.at("a.db")).expect("is there");
    std::fs::write(&settings, "[broker]\nstream = 'OTHER'\nsubjects = ['a.*', '*.b']\n").expect("writes");
    ends(&mut start(), 1, &["a stream cannot have subjects that overlap"]);
    let collector = folder.starting(&[], "again.log");
    eventually("the event", || (folder.at("a.db").exists() && oracle::count(&folder.at("a.db")) == 1).then_some(()));
    assert!(collector.stop().success());
}

#[test]
fn a_collector_with_queries_that_commits_nothing_leaves_no_log() {
    let folder = Folder::new();
    let settings = folder.at("a.toml");
    std::fs::write(&settings, "[[query]]\nsubject = 'count'\nsql = 'SELECT count(*) FROM events'\n").expect("writes");
    let collector = folder.starting(&["--config", settings.to_str().expect("UTF-8")], "run.log");
    collector.said("collecting stream");
    assert!(collector.stop().success());
    assert!(folder.at("a.db").exists() && !folder.at("a.db-wal").exists() && !folder.at("a.db-shm").exists());
}

#[test]
fn check_and_adopt_may_follow_a_start_at_once() {
    let folder = Folder::new();
    let collector = folder.starting(&[], "run.log");
    let mut check = folder.command(&["check", "--quick", "--json"]);
    let done = output(check.env_remove("NATS_URL"));
    let said = String::from_utf8_lossy(&done.stdout);
    assert_eq!(done.status.code(), Some(0), "{said}");
    assert!(
        said.contains("nats://127.0.0.1:") && said.contains(&format!("process {} collects", collector.pid())),
        "{said}"
    );
    // A collector that has the lock keeps it.
    let uses = format!("process {} uses it already", collector.pid());
    refused(&mut folder.command(&["adopt"]), 1, &[&uses]);
    assert!(collector.stop().success());
}

#[test]
fn commands_name_the_settings_and_the_server_to_use() {
    let folder = Folder::new();
    let settings = folder.at("chat.toml");
    let text = "[broker]\nstream = 'CHAT'\nsubjects = ['chat.>']\n[[query]]\nsubject = 'ask'\nsql = 'SELECT 1'\n";
    std::fs::write(&settings, text).expect("writes");
    let flags = ["--config", settings.to_str().expect("UTF-8")];
    let shown = format!("--config {} --database {}", settings.display(), folder.at("a.db").display());
    let collector = folder.starting(&flags, "run.log");
    let named = folder.at("named.toml");
    std::fs::write(&named, format!("{}servers = ['nats://127.0.0.1:9']\n{}", &text[..9], &text[9..])).expect("writes");
    let said = folder.succeeds(&[&["publish", "chat.a", "x"], &flags[..]].concat());
    assert!(said.contains("1 of stream CHAT"), "{said}");

    // The servers of the settings are others than the one that runs.
    let address = std::fs::read_to_string(folder.at("a.db.server")).expect("an address");
    let address = address.trim();
    for arguments in [&["publish", "chat.a", "x"][..], &["query", "ask"]] {
        let mut command = folder.command(arguments);
        let remedy = format!("a.db has a nats-server of its own at {address}: use --server {address}");
        refused(command.arg("--config").arg(&named), 1, &["nats://127.0.0.1:9", &remedy]);
    }

    // The stream that a flag names, and the subject of a query.
    let other = ["publish", "chat.a", "x", "--stream", "NOPE"];
    let words = ["expected stream does not match", "another stream than NOPE takes its subject"];
    refused(folder.command(&other).args(flags), 1, &words);
    let said = folder.succeeds(&[&["publish", "chat.a", "y", "--stream", "CHAT"], &flags[..]].concat());
    assert!(said.contains("2 of stream CHAT"), "{said}");
    let ask = format!("no stream takes ask, which is the subject of a [[query]]; ask it: catchment query ask {shown}");
    refused(folder.command(&["publish", "ask", "x"]).args(flags), 1, &[&ask]);
    let lines = folder.at("lines.ndjson");
    std::fs::write(&lines, "{\"subject\":\"ask\",\"payload\":{}}\n").expect("writes");
    let mut publish = folder.command(&["publish", "--events", "--timeout", "2s"]);
    let ask = format!("its subject is that of a [[query]]: ask it with catchment query {shown}");
    ends(publish.arg("--file").arg(&lines).args(flags), 1, &[&ask]);
    assert!(collector.stop().success());
    assert_eq!(oracle::payloads(&folder.at("a.db")), ["x", "y"]);

    let start = format!("start it (catchment run --with-server {shown}), or name");
    refused(folder.command(&["publish", "chat.a", "x"]).args(flags).env_remove("NATS_URL"), 1, &[&start]);
    let mut check = folder.command(&["check", "--quick"]);
    let done = output(check.args(flags).env_remove("NATS_URL"));
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(said.contains(&format!("start one: catchment run --with-server {shown}")), "{said}");
}
