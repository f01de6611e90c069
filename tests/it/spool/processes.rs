//! Recording into a spool in a process of its own: it is killed, and its disk is full.

use std::io::{BufRead, BufReader, Lines, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use catchment::record::Overflow;
use catchment::{Event, Recorder, SpooledRecorder, SpooledRecorderConfig};
use serde_json::json;

use super::{Fixture, LONG};
use crate::support::chance::Chance;
use crate::support::collector::{Collector, run};
use crate::support::{eventually, with};

/// A process that records, and says what is kept.
struct Application {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    /// How many events it has said to be kept.
    kept: u64,
}

impl Application {
    /// It records the events of this life, so many at most.
    fn start(fixture: &Fixture, life: u64, events: u64) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this test"));
        Self::spawn(Self::arguments(&mut command), &fixture.spool(), fixture.port, life, events)
    }

    fn arguments(command: &mut Command) -> &mut Command {
        command.args([
            "--exact",
            "spool::processes::a_process_that_records_until_it_is_killed",
            "--ignored",
            "--nocapture",
        ])
    }

    fn spawn(command: &mut Command, spool: &Path, port: u16, life: u64, events: u64) -> Self {
        command.env("SPOOL_UNTIL_KILLED", spool).env("SPOOL_PORT", port.to_string());
        command.env("SPOOL_LIFE", life.to_string()).env("SPOOL_EVENTS", events.to_string());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("starts");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Self { child, lines, kept: 0 }
    }

    /// Reads a line. Returns what else it says than what is kept; `None` at the end.
    fn line(&mut self) -> Option<String> {
        let line = self.lines.next()?.expect("text");
        match line.rsplit_once("kept ").and_then(|(_, count)| count.parse().ok()) {
            Some(count) => {
                self.kept = count;
                Some(String::new())
            }
            None => Some(line),
        }
    }

    fn has_kept(&mut self, events: u64) {
        while self.kept < events {
            self.line().expect("it goes on");
        }
    }

    fn said(&mut self, words: &str) {
        while !self.line().unwrap_or_else(|| panic!("it ends without {words:?}")).contains(words) {}
    }

    /// Kills it, and returns how many events it had said to be kept.
    fn kill(mut self) -> u64 {
        self.child.kill().expect("kills");
        self.child.wait().expect("ends");
        while self.line().is_some() {}
        self.kept
    }
}

fn of_life(life: u64, number: u64) -> String {
    format!("{life}-{number}")
}

/// Records events in groups, and says after each how many are kept.
#[test]
#[ignore = "the process that other tests start and kill"]
fn a_process_that_records_until_it_is_killed() {
    let Some(spool) = std::env::var_os("SPOOL_UNTIL_KILLED") else { return };
    let number = |name: &str| std::env::var(name).expect("is set").parse::<u64>().expect("a number");
    let (life, events) = (number("SPOOL_LIFE"), number("SPOOL_EVENTS"));
    let config = with(SpooledRecorderConfig::new(spool), |config| {
        config.broker.servers = vec![format!("nats://127.0.0.1:{}", number("SPOOL_PORT"))];
        config.broker.silence = Duration::from_secs(2);
        config.overflow = Overflow::Block(LONG);
    });
    let recorder = SpooledRecorder::open(config).expect("opens");
    for first in (0..events).step_by(50) {
        let record = |number| recorder.record(Event::new("events.a", of_life(life, number))).expect("taken");
        let receipts: Vec<_> = (first..events.min(first + 50)).map(record).collect();
        for receipt in receipts {
            while !receipt.wait_settled(Duration::from_secs(1)) {
                let troubles = recorder.health().troubles;
                println!("waits: {:?}", troubles.iter().map(|trouble| &trouble.reason).collect::<Vec<_>>());
            }
            receipt.wait(Duration::ZERO).expect("is kept");
        }
        println!("kept {}", events.min(first + 50));
    }
    recorder.flush_to_stream(LONG).expect("all are in the stream");
    recorder.close(LONG).expect("all are in the stream");
    println!("closed");
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Victim {
    Application,
    Broker,
    Both,
}

/// Records so many events, or a few more, while these are killed at random moments, and holds the rows against what was said to be kept. A
/// collector runs all the time. Returns how many messages of the stream it has recognised as repetitions.
fn survive(victims: &[Victim], events: u64) -> u64 {
    /// What is recorded at least after a kill.
    const LEAST: u64 = 50;
    let mut chance = Chance::new();
    let fixture = Fixture::new();
    let mut server = fixture.serve();
    let collector = Collector::start(run(&server.url(), &fixture.path("a.db")), &fixture.path("log"));
    let mut moments: Vec<u64> = victims.iter().map(|_| chance.up_to(events)).collect();
    moments.sort_unstable();
    let mut kept = Vec::new();
    let mut application = Application::start(&fixture, 0, u64::MAX);
    for (victim, moment) in victims.iter().zip(moments) {
        let of_earlier_lives: u64 = kept.iter().sum();
        application.has_kept(moment.saturating_sub(of_earlier_lives).max(application.kept + LEAST));
        std::thread::sleep(chance.time(Duration::from_millis(10)));
        if *victim != Victim::Application {
            server.kill();
        }
        if *victim != Victim::Broker {
            kept.push(application.kill());
            application = Application::start(&fixture, kept.len() as u64, u64::MAX);
        }
        if *victim != Victim::Application {
            // It is away for longer than the stream recognises a repetition, and events are kept meanwhile.
            application.has_kept(application.kept + chance.up_to(500));
            std::thread::sleep(Duration::from_millis(150));
            server.restart();
        }
    }
    kept.push(application.kill());
    let rest = events.saturating_sub(kept.iter().sum()).max(1_000);
    let mut last = Application::start(&fixture, kept.len() as u64, rest);
    last.said("closed");
    kept.push(last.kept);
    assert_eq!(kept.last(), Some(&rest));
    let status = fixture.status();
    assert_eq!((&status["events"], &status["dead_letters"]), (&json!(0), &json!(0)));
    // However far it is: the next one continues.
    collector.kill();
    let rows = fixture.collected(&server);
    agrees(&rows, &kept);
    let messages = server.last_sequence("EVENTS");
    println!("{} events in {} lives, {} messages in the stream", rows.len(), kept.len(), messages);
    messages - rows.len() as u64
}

/// The rows of each life are its first events, in order, each once: at least those that were said to be kept.
fn agrees(rows: &[String], kept: &[u64]) {
    let mut next = vec![0; kept.len()];
    for row in rows {
        let (life, number) = row.split_once('-').expect("an event");
        let (life, number): (usize, u64) = (life.parse().expect("a number"), number.parse().expect("a number"));
        assert_eq!(number, next[life], "of life {life}: lost, doubled or out of order");
        next[life] += 1;
    }
    let lost: Vec<_> = kept.iter().zip(&next).filter(|(kept, stored)| kept > stored).collect();
    assert!(lost.is_empty(), "kept and stored: {lost:?}");
    assert!(next.iter().zip(kept).all(|(stored, kept)| *stored <= kept + 50), "{kept:?} kept, {next:?} stored");
}

#[test]
fn what_was_kept_survives_kills_of_the_application_and_the_broker() {
    use Victim::{Application, Both, Broker};
    survive(&[Application, Broker, Application, Both, Application, Broker, Both], 7_000);
}

#[test]
#[ignore = "long; make soak runs it"]
fn soak_a_spool_through_sixty_kills() {
    use Victim::{Application, Both, Broker};
    let mut victims = [vec![Application; 30], vec![Broker; 20], vec![Both; 10]].concat();
    let mut chance = Chance::new();
    for at in (1..victims.len()).rev() {
        let other = usize::try_from(chance.up_to(at as u64 + 1) - 1).expect("small");
        victims.swap(at, other);
    }
    let repeated = survive(&victims, 200_000);
    // The stream recognises none of them: the broker was away for longer than its window. Without any, this would prove little.
    assert!(repeated > 0);
}

#[test]
fn a_full_disk_delays_what_is_recorded_and_loses_nothing() {
    let Some(unshare) = crate::database::own_mounts() else {
        eprintln!("skipped: a_full_disk_delays_what_is_recorded_and_loses_nothing: no mount of its own");
        return;
    };
    let fixture = Fixture::new();
    let disk = fixture.path("disk");
    std::fs::create_dir(&disk).expect("a folder");
    let test = std::env::current_exe().expect("this test");
    let script = format!(
        "mount -t tmpfs -o size=24m tmpfs {0} && head -c 21m /dev/zero >{0}/ballast && exec {1} \"$@\"",
        disk.display(),
        test.display()
    );
    let mut command = Command::new("unshare");
    Application::arguments(command.args(unshare).args(["sh", "-c", &script, "sh"]));
    let mut application = Application::spawn(&mut command, &disk.join("a.spool"), fixture.port, 0, 100_000);
    application.said("database or disk is full");
    let kept = application.kept;
    assert!(kept > 0 && kept < 100_000, "{kept} kept");
    let server = fixture.serve();
    let root = PathBuf::from(format!("/proc/{}/root{}", application.child.id(), disk.display()));
    std::fs::remove_file(root.join("ballast")).expect("makes room");
    application.said("closed");
    assert_eq!(application.kept, 100_000);
    application.child.wait().expect("ends");
    agrees(&fixture.collected(&server), &[100_000]);
}

#[test]
fn a_disk_that_recording_has_filled_is_emptied_by_forwarding() {
    let Some(unshare) = crate::database::own_mounts() else {
        eprintln!("skipped: a_disk_that_recording_has_filled_is_emptied_by_forwarding: no mount of its own");
        return;
    };
    let fixture = Fixture::new();
    let disk = fixture.path("disk");
    std::fs::create_dir(&disk).expect("a folder");
    let test = std::env::current_exe().expect("this test");
    let script = format!("mount -t tmpfs -o size=5m tmpfs {} && exec {} \"$@\"", disk.display(), test.display());
    let mut command = Command::new("unshare");
    Application::arguments(command.args(unshare).args(["sh", "-c", &script, "sh"]));
    let mut application = Application::spawn(&mut command, &disk.join("a.spool"), fixture.port, 0, 100_000);
    application.said("disk is full");
    let kept = application.kept;
    assert!(kept > 0 && kept < 100_000, "{kept} kept");
    // Another program takes the rest of the disk.
    let root = PathBuf::from(format!("/proc/{}/root{}", application.child.id(), disk.display()));
    let mut ballast = std::fs::File::create(root.join("ballast")).expect("makes it");
    while ballast.write(&[0; 4_096]).is_ok_and(|written| written > 0) {}
    drop(ballast);
    let server = fixture.serve();
    eventually("what was kept is in the stream", || (server.messages("EVENTS") >= kept).then_some(()));
    std::fs::remove_file(root.join("ballast")).expect("makes room");
    application.said("closed");
    application.child.wait().expect("ends");
    agrees(&fixture.collected(&server), &[100_000]);
}
