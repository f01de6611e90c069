//! A client that is not ours, and knows nothing of us: nats-py as a bot of the chat preset.
//!
//! `PYTHON_WITH_NATS` is a Python that has nats-py; `make test` sees to one. Without it the tests are skipped by name.

use std::io::Write;
use std::process::Command;

use crate::support::collector::{Collector, catchment, output, stderr};
use crate::support::oracle;
use crate::support::server::Server;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/chat.py");
const LINES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/chat.ndjson");

/// Runs the script with its arguments; `None`, and a word on it, where there is no Python for it.
fn script(arguments: &[&str]) -> Option<String> {
    let Some(python) = std::env::var_os("PYTHON_WITH_NATS").filter(|python| !python.is_empty()) else {
        // To be seen also where the output of tests is not.
        let why = "skipped: a bot in Python: PYTHON_WITH_NATS names no Python with nats-py; scripts/nats-py makes one";
        writeln!(std::io::stderr(), "{why}").expect("writes");
        return None;
    };
    let done = Command::new(python).arg(SCRIPT).args(arguments).output().expect("Python runs");
    let (said, failed) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{said}{failed}");
    eprint!("{said}");
    Some(said.into_owned())
}

#[test]
fn a_python_client_publishes_asks_and_gets_confirmations() {
    let folder = tempfile::tempdir().expect("a folder");
    let made = output(catchment().current_dir(folder.path()).args(["init", "--preset", "chat", "--prefix", "bots.py"]));
    assert!(made.status.success(), "{}", stderr(&made));
    let server = Server::start(folder.path());
    let mut command = catchment();
    // The port of the preset may be in use.
    command.env("CATCHMENT_OBSERVE__LISTEN", "127.0.0.1:0");
    command.current_dir(folder.path()).args(["--config", "catchment.toml", "run", "--server", &server.url()]);
    let collector = Collector::start(command, &folder.path().join("collector.log"));
    collector.said("collecting stream BOTS_PY");
    // Other lines may be given: CHAT_LINES=… cargo test --test it -- python
    let lines = std::env::var("CHAT_LINES").unwrap_or_else(|_| LINES.into());
    let Some(said) = script(&[&server.url(), "bots.py", &lines]) else { return };
    assert!(said.contains("the service tells of its queries"), "{said}");
    assert!(collector.stop().success());
    let database = folder.path().join("chat.db");
    oracle::sound(&database);
    let count = |sql| -> usize { oracle::open(&database).query_row(sql, [], |row| row.get(0)).expect(sql) };
    let published = std::fs::read_to_string(&lines).expect("reads").lines().count();
    assert_eq!(count("SELECT count(*) FROM messages"), published);
    assert_eq!(count("SELECT count(*) FROM catchment_dead_letters WHERE route = 'message'"), 1);
    assert_eq!(server.last_sequence("BOTS_PY"), published as u64 + 3, "questions and answers are no events");
}
