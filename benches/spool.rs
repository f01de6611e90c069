//! Compares a spool with a direct recorder that commits in groups: what `record()` takes, and how long it is until the event is on the
//! disk.
//!
//! One thread records 1,000 events a second, each when it is due. The spool is measured without a server and while it forwards to one.
//! Server and spool then share the cores with the recording thread. The order of the runs changes from round to round.
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts become figures"
)]

mod figures;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use catchment::record::SpooledRecorderConfig;
use catchment::unversioned::broker::Server;
use catchment::{DirectRecorder, DirectRecorderConfig, Event, Receipt, Recorder, SpooledRecorder};
use figures::row;

const ROUNDS: usize = 7;
const EVENTS: u32 = 3_000;
const RATE: u32 = 1_000;
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy)]
enum Arm {
    Direct,
    /// Without a server.
    Kept,
    Forwarded,
}

/// The times of one run, sorted, in milliseconds.
struct Times {
    calls: Vec<f64>,
    kept: Vec<f64>,
}

fn main() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let program = std::env::var_os("NATS_SERVER_BIN").map_or_else(|| "nats-server".into(), PathBuf::from);
    let server = Server::start_with(&program, &folder.path().join("nats"), &folder.path().join("address"), &[])
        .expect("a server; run make bench, which provides one");
    make_stream(&server, folder.path());
    let mut arms = [(Arm::Direct, Vec::new()), (Arm::Kept, Vec::new()), (Arm::Forwarded, Vec::new())];
    for round in 0..=ROUNDS {
        arms.rotate_left(round % 3);
        for (arm, runs) in &mut arms {
            let times = run(*arm, &folder.path().join(format!("{}-{round}.db", *arm as u8)), server.url());
            // The first round warms up.
            if round > 0 {
                runs.push(times);
            }
        }
    }
    arms.sort_by_key(|(arm, _)| *arm as u8);
    let [(_, direct), (_, kept), (_, forwarded)] = arms;
    println!("{EVENTS} events at {RATE} a second, synchronous = full, {ROUNDS} rounds: medians (lowest to highest)");
    for (name, times) in [("record() returns", calls as Part), ("the event is on the disk", until_kept as Part)] {
        println!("\n| {name} after, ms | |\n|---|---|");
        for (share, at) in [("p50", 0.5), ("p99", 0.99)] {
            let figures = |runs: &[Times]| runs.iter().map(|run| quantile(times(run), at)).collect::<Vec<_>>();
            let bare = figures(&direct);
            row(&format!("{share}, direct, grouped"), bare.clone(), 3);
            for (what, runs) in [("a spool without a server", &kept), ("a spool that forwards", &forwarded)] {
                let spooled = figures(runs);
                let ratios = spooled.iter().zip(&bare).map(|(spooled, bare)| spooled / bare).collect();
                row(&format!("{share}, {what}"), spooled, 3);
                row("– times direct", ratios, 2);
            }
        }
    }
}

type Part = fn(&Times) -> &[f64];

fn calls(times: &Times) -> &[f64] {
    &times.calls
}

fn until_kept(times: &Times) -> &[f64] {
    &times.kept
}

fn quantile(sorted: &[f64], at: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * at).round() as usize]
}

/// A collector makes the stream.
fn make_stream(server: &Server, folder: &Path) {
    let mut run = Command::new(env!("CARGO_BIN_EXE_catchment"));
    run.args(["run", "--drain", "-q", "--server", server.url(), "--database"]).arg(folder.join("make.db"));
    assert!(run.stdin(Stdio::null()).stdout(Stdio::null()).status().expect("runs").success());
}

fn run(arm: Arm, file: &Path, server: &str) -> Times {
    if matches!(arm, Arm::Direct) {
        let mut config = DirectRecorderConfig::default();
        config.database.path = file.into();
        return measured(&DirectRecorder::open(config).expect("opens"));
    }
    let mut config = SpooledRecorderConfig::default();
    config.path = file.into();
    // Nothing listens on the first port.
    let nobody = "nats://127.0.0.1:1";
    config.broker.servers = vec![if matches!(arm, Arm::Kept) { nobody } else { server }.to_owned()];
    measured(&SpooledRecorder::open(config).expect("opens"))
}

fn measured(recorder: &dyn Recorder) -> Times {
    let (receipts, waiting) = mpsc::channel::<(Instant, Receipt)>();
    let (calls, kept) = std::thread::scope(|scope| {
        let kept = scope.spawn(move || {
            let times = waiting.iter().map(|(recorded, receipt)| {
                receipt.wait(PATIENCE).expect("kept");
                milliseconds(recorded.elapsed())
            });
            times.collect()
        });
        let began = Instant::now();
        let mut calls = Vec::new();
        for number in 0..EVENTS {
            let due = began + Duration::from_secs(1) * number / RATE;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let event = Event::new("events.bench", format!("{{\"n\":{number},\"text\":\"a line of a chat\"}}"));
            let called = Instant::now();
            let receipt = recorder.record(event).expect("taken");
            calls.push(milliseconds(called.elapsed()));
            let _ = receipts.send((called, receipt));
        }
        drop(receipts);
        (calls, kept.join().expect("no panic"))
    });
    recorder.close(PATIENCE).expect("closes");
    let sorted = |mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times
    };
    Times { calls: sorted(calls), kept: sorted(kept) }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}
