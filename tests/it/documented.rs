//! README.md and the pages of docs/ show what happens: their files are written, their commands run, their output compared.

mod contents;
mod names;
mod pages;

use std::path::Path;
use std::process::Command;

use crate::support::collector::{Collector, catchment};
use crate::support::server::{needs, program};
use pages::{blocks, commands};

/// The same with every digit of a time, and of a number as long as one, as `0`.
fn timeless(text: &str) -> String {
    let is_of_a_time = |word: &str| {
        let digits = word.bytes().filter(u8::is_ascii_digit).count();
        let others = word.bytes().filter(|byte| !byte.is_ascii_digit() && !b"-:.TZ".contains(byte)).count();
        digits >= 14 && others == 0
    };
    let mut timeless = String::new();
    for word in text.split_inclusive(|c: char| !(c.is_ascii_digit() || "-:.TZ".contains(c))) {
        let end = word.trim_end_matches(|c: char| !(c.is_ascii_digit() || "-:.TZ".contains(c)));
        if is_of_a_time(end.trim_start_matches(':')) {
            timeless.extend(word.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }));
        } else {
            timeless.push_str(word);
        }
    }
    timeless
}

/// Somebody who pastes the blocks of a page, one after the other, into one folder.
struct Reader {
    folder: tempfile::TempDir,
    /// Started with `&`.
    collectors: Vec<Collector>,
    ran: usize,
}

impl Reader {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self { folder, collectors: Vec::new(), ran: 0 }
    }

    /// Ours, with the settings and the brokers of nobody. A page that needs a broker starts one.
    fn environment(command: &mut Command) {
        for (name, value) in catchment().get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.env("NATS_URL", "nats://127.0.0.1:9").env("NATS_SERVER_BIN", program());
    }

    /// `sh` in the folder, where `catchment` is ours; what it prints.
    fn shell(&self, command: &str) -> String {
        let ours = catchment();
        let program = Path::new(ours.get_program()).parent().expect("a folder").to_owned();
        let path = format!("{}:{}", program.display(), std::env::var("PATH").expect("a path"));
        let mut shell = Command::new("sh");
        Self::environment(&mut shell);
        shell.args(["-c", &format!("exec 2>&1\n{command}")]).current_dir(self.folder.path());
        let done = shell.env("PATH", path).output().expect("sh runs");
        let text = String::from_utf8(done.stdout).expect("UTF-8");
        // A wait of more than a second is logged. On a busy machine there may be one.
        text.split_inclusive('\n').filter(|line| !line.contains("its collector is starting")).collect()
    }

    /// A collector. Nothing waits for it here: the next command has to.
    fn in_the_background(&mut self, command: &str) {
        let mut words = command.split(' ');
        assert_eq!((words.next(), words.next()), (Some("catchment"), Some("run")), "{command}");
        let mut run = catchment();
        Self::environment(&mut run);
        run.arg("run").args(words).current_dir(self.folder.path());
        let log = self.folder.path().join("run.log");
        self.collectors.push(Collector::start(run, &log));
    }

    fn does(&mut self, command: &str, said: &str) {
        let command = command.replace("target/release/catchment", "catchment");
        self.ran += 1;
        if let Some(command) = command.strip_suffix(" &") {
            self.in_the_background(command);
        } else if command == "kill $!; wait $!" {
            let collector = self.collectors.pop().expect("one was started");
            assert!(collector.stop().success());
        } else {
            assert_eq!(timeless(&self.shell(&command)), timeless(said), "{command}\n{}", self.log());
        }
    }

    fn log(&self) -> String {
        self.collectors.last().map(Collector::log).unwrap_or_default()
    }

    fn reads(&mut self, page: &str) {
        for block in blocks(page) {
            match block.info.split_once(' ') {
                Some((_, file)) => {
                    let file = self.folder.path().join(file);
                    std::fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
                    std::fs::write(file, block.text).expect("writes");
                }
                None if block.info == "console" => {
                    for (command, said) in commands(&block.text) {
                        self.does(command, &said);
                    }
                }
                // A part of a configuration, or the library; see below.
                None if ["toml", "rust", "rust,no_run"].contains(&block.info) => {}
                // What a terminal shows without being asked.
                None if block.info == "text" => {}
                None => panic!("neither a file nor a console: {}", block.info),
            }
        }
        assert!(self.ran > 0, "no command");
    }
}

fn holds(page: &str) {
    Reader::new().reads(page);
}

#[test]
fn the_readme_is_as_documented() {
    let mut reader = Reader::new();
    // What `make run` does.
    let run = "run --with-server";
    assert!(include_str!("../../Makefile").contains(&format!("$(target)/release/catchment {run}\n")));
    reader.in_the_background(&format!("catchment {run}"));
    let page = include_str!("../../README.md");
    let shown = blocks(page).into_iter().find(|block| block.info == "text" && block.text.contains("collecting stream"));
    let shown = shown.expect("what it prints").text;
    let (log, hints) = shown.split_once("\n\n").expect("a log, then what to type");
    reader.collectors[0].said("collecting stream EVENTS");
    assert_eq!(without_port(&timeless(&reader.log())).trim_end(), without_port(&timeless(log)));
    // What it says to type is what is typed next.
    for command in hints.lines().filter_map(|line| line.find("target/release/").map(|at| &line[at..])) {
        assert!(page.contains(&format!("\n$ {command}\n")), "{command}");
    }
    reader.reads(page);
}

/// The same without the number after `127.0.0.1:`.
fn without_port(text: &str) -> String {
    let mut parts = text.split("127.0.0.1:");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + "127.0.0.1:" + part.trim_start_matches(|c: char| c.is_ascii_digit()))
}

#[test]
fn migrations_are_as_documented() {
    holds(include_str!("../../docs/migrations.md"));
}

#[test]
fn dead_letters_are_as_documented() {
    holds(include_str!("../../docs/dead-letters.md"));
}

#[test]
fn configuration_is_as_documented() {
    holds(include_str!("../../docs/configuration.md"));
}

#[test]
fn permissions_are_as_documented() {
    holds(include_str!("../../docs/permissions.md"));
}

#[test]
fn replay_gaps_and_verify_are_as_documented() {
    holds(include_str!("../../docs/replay.md"));
}

#[test]
fn operations_are_as_documented() {
    holds(include_str!("../../docs/operations.md"));
}

#[test]
fn backups_are_as_documented() {
    holds(include_str!("../../docs/backup.md"));
}

#[test]
fn exports_are_as_documented() {
    holds(include_str!("../../docs/export.md"));
}

#[test]
fn monitoring_is_as_documented() {
    holds(include_str!("../../docs/monitoring.md"));
}

#[test]
fn the_log_is_as_documented() {
    holds(include_str!("../../docs/logs.md"));
}

#[test]
fn retention_is_as_documented() {
    holds(include_str!("../../docs/retention.md"));
}

#[test]
fn partitions_are_as_documented() {
    if needs((2, 12), "partitions of whole subjects") {
        holds(include_str!("../../docs/scaling.md"));
    }
}

#[test]
fn the_spool_is_as_documented() {
    if Command::new("python3").arg("--version").output().is_err() {
        eprintln!("skipped: the_spool_is_as_documented: no python3");
        return;
    }
    holds(include_str!("../../docs/spool.md"));
}

#[test]
fn queries_are_as_documented() {
    holds(include_str!("../../docs/queries.md"));
}

#[test]
fn only_times_are_left_out_of_a_comparison() {
    assert_eq!(
        timeless("at 2026-11-23T16:54:59Z; 17, x 2026-11-23T16:54:59.491847Z"),
        "at 0000-00-00T00:00:00Z; 17, x 0000-00-00T00:00:00.000000Z"
    );
    assert_eq!(timeless("\"published_us\":1795452899430223,\"n\":3"), "\"published_us\":0000000000000000,\"n\":3");
    assert_eq!(timeless("stored 1 of 2; line 1:17"), "stored 1 of 2; line 1:17");
}
