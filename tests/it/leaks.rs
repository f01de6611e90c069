//! Lost connections leave nothing behind: no thread, no file, no memory. The long variants lose a thousand.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::support::collector::{Collector, catchment, drain, run};
use crate::support::load;
use crate::support::oracle;
use crate::support::proxy::{Proxy, Way};
use crate::support::server::Server;
use crate::support::{eventually, eventually_within};

/// What a process has of the system's.
#[derive(Clone, Copy, Debug)]
struct Holds {
    threads: usize,
    files: usize,
    memory_kib: u64,
}

impl Holds {
    fn of(process: &Collector) -> Self {
        Self { threads: process.threads(), files: process.files(), memory_kib: process.memory().0 }
    }

    /// What it has when nothing comes or goes for a while.
    fn settled(process: &Collector) -> Self {
        let (mut holds, mut since) = (Self::of(process), Instant::now());
        let until = since + Duration::from_secs(10);
        while since.elapsed() < Duration::from_millis(500) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(50));
            let now = Self::of(process);
            if (now.threads, now.files) != (holds.threads, holds.files) {
                since = Instant::now();
            }
            holds = now;
        }
        holds
    }

    /// Whether it is what it was, but for what comes and goes: a connection that is being closed or opened. `asleep` threads of the
    /// client cannot be ended.
    fn is_like(self, before: Self, asleep: usize) -> bool {
        self.threads <= before.threads + 4 + asleep
            && self.files <= before.files + 4
            && self.memory_kib <= before.memory_kib + (8 << 10)
    }
}

/// Cuts the connections of a process again and again, each time after it has done some of its work again: sent what begins so.
fn cut_again_and_again(rounds: u64, proxy: &Proxy, works: &'static [&'static [u8]], process: &mut Collector) {
    const WARM_UP: u64 = 50;
    let work = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&work);
    proxy.only(Way::ToServer, move |message| {
        let is_work = works.iter().any(|work| message.starts_with(work));
        counter.fetch_add(u64::from(is_work), Ordering::Relaxed);
        true
    });
    let (mut before, began) = (None, Instant::now());
    for round in 0..rounds + WARM_UP {
        let done = work.load(Ordering::Relaxed);
        proxy.cut();
        let what = format!("work after {round} lost connections and {:?}", began.elapsed());
        eventually_within(Duration::from_secs(10), &what, &mut || {
            assert_eq!(process.ended(), None, "after {round} lost connections: {}", process.log());
            (work.load(Ordering::Relaxed) > done).then_some(())
        });
        if round == WARM_UP {
            before = Some((Holds::settled(process), asleep(process)));
        }
    }
    println!("{rounds} lost connections in {:?}", began.elapsed());
    let (before, slept) = before.expect("warm by now");
    // A flush that was under way may take its time.
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let now = Holds::of(process);
        let asleep = asleep(process) - slept;
        if now.is_like(before, asleep) {
            break println!("{before:?} before, {now:?} now, {asleep} asleep");
        }
        let names = process.thread_names();
        assert!(Instant::now() < until, "{before:?} before, {now:?} now, {asleep} asleep: {names:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// How many threads of the client sleep because their connections were lost while they were made.
fn asleep(process: &Collector) -> usize {
    process.log().matches("a thread of the client sleeps from now on").count()
}

fn restless(mut command: Command, log: &Path) -> Collector {
    command.env("CATCHMENT_LOG", "info,catchment::broker::connection::link=debug");
    command.env("CATCHMENT_BROKER__RETRY", "10ms");
    Collector::start(command, log)
}

#[test]
fn a_collector_leaks_nothing_in_many_lost_connections() {
    collector_loses(200);
}

#[test]
#[ignore = "long; make soak runs it"]
fn soak_a_collector_leaks_nothing_in_a_thousand_losses() {
    collector_loses(1_000);
}

fn collector_loses(connections: u64) {
    let folder = tempfile::tempdir().expect("a folder");
    let (database, log) = (folder.path().join("a.db"), folder.path().join("log"));
    let server = Server::start(folder.path());
    server.make_stream("EVENTS", &["events.>"]);
    let mut kept = load::publish(&server, 100);
    let proxy = Proxy::start(server.port());
    let mut collector = restless(run(&proxy.url(), &database), &log);
    eventually("the rows before", || (oracle::position(&database) == 100).then_some(()));
    cut_again_and_again(connections, &proxy, &[b"PUB $JS.API.CONSUMER.MSG.NEXT."], &mut collector);
    proxy.heal();
    kept.extend(load::publish_from(&server, 100, 100));
    eventually("the rows after", || (oracle::position(&database) == 200).then_some(()));
    assert!(collector.stop().success());
    oracle::is_exactly(&database, &kept);
}

#[test]
fn a_recorder_leaks_nothing_in_many_lost_connections() {
    recorder_loses(200);
}

#[test]
#[ignore = "long; make soak runs it"]
fn soak_a_recorder_leaks_nothing_in_a_thousand_losses() {
    recorder_loses(1_000);
}

/// Without a stream: what was on its way when a connection was lost comes back, and the command says so at its end.
#[test]
fn a_core_recorder_leaks_nothing_in_many_lost_connections() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start_with(folder.path(), &[]);
    let proxy = Proxy::start(server.port());
    let mut command = catchment();
    command.args(["publish", "--server", &proxy.url(), "events.load", "--count", "10000000", "--rate", "500"]);
    command.env("CATCHMENT_BROKER__MODE", "core");
    let mut publisher = restless(command, &folder.path().join("log"));
    cut_again_and_again(200, &proxy, &[b"PUB events."], &mut publisher);
    proxy.heal();
    publisher.stop();
}

/// Each connection must have answered before the next one is cut: the server is asked without an end.
#[test]
fn a_service_leaks_nothing_in_many_lost_connections() {
    let (folder, server) = Server::in_new_folder();
    server.make_stream("EVENTS", &["events.>"]);
    let proxy = Proxy::start(server.port());
    let settings = folder.path().join("a.toml");
    std::fs::write(&settings, "[[query]]\nsubject = \"ask.one\"\nsql = \"SELECT 1 AS one\"\n").expect("writes");
    let mut command = run(&proxy.url(), &folder.path().join("a.db"));
    command.arg("--config").arg(&settings);
    let mut collector = restless(command, &folder.path().join("log"));
    let client = server.client();
    eventually("an answer", || client.request_timeout("ask.one", "", Duration::from_secs(1)).ok());
    let over = Arc::new(AtomicBool::new(false));
    let asks = Arc::clone(&over);
    let asking = std::thread::spawn(move || {
        while !asks.load(Ordering::Relaxed) {
            client.publish_request("ask.one", "_INBOX.nobody", "").expect("published");
            std::thread::sleep(Duration::from_millis(2));
        }
    });
    cut_again_and_again(200, &proxy, &[b"PUB _INBOX.nobody"], &mut collector);
    over.store(true, Ordering::Relaxed);
    asking.join().expect("no panic");
    proxy.heal();
    assert!(collector.stop().success());
}

fn recorder_loses(connections: u64) {
    let folder = tempfile::tempdir().expect("a folder");
    let (database, log) = (folder.path().join("a.db"), folder.path().join("log"));
    let server = Server::start(folder.path());
    server.make_stream("EVENTS", &["events.>"]);
    let proxy = Proxy::start(server.port());
    let mut command = catchment();
    command.args(["publish", "--server", &proxy.url(), "events.load", "--count", "10000000", "--rate", "500"]);
    let mut publisher = restless(command, &log);
    cut_again_and_again(connections, &proxy, &[b"PUB events.", b"HPUB events."], &mut publisher);
    proxy.heal();
    assert_eq!(publisher.stop().code(), Some(143), "it was interrupted, and ended in order");
    drain(&server.url(), &database);
    // Its events carry their numbers: each is there, once, in order.
    let rows: u64 = server.last_sequence("EVENTS");
    let sql = "SELECT count(*) FROM events WHERE payload ->> '$.n' = sequence - 1";
    let in_order: u64 = oracle::open(&database).query_row(sql, [], |row| row.get(0)).expect("SQL");
    assert!(rows > connections, "{rows}");
    assert_eq!((oracle::count(&database), in_order), (rows, rows));
    oracle::sound(&database);
}
