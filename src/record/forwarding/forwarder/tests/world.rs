//! Recorders, the network, a stream and a collector, and what happens to them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::PathBuf;

use proptest::prelude::*;

use super::collector::{Backup, Collector, Trouble};
use super::site::{Flight, Kind, Site};
use crate::event_id::EventNumber;
use crate::store::Editor;

/// The most recorders at a time.
const MOST_SITES: usize = 3;

/// The start of the model's time, in microseconds since 1970.
const START_US: i64 = 1_700_000_000_000_000;

pub(super) struct Stream {
    /// Counts the streams that there were.
    pub(super) epoch: u32,
    pub(super) messages: Vec<Message>,
}

pub(super) struct Message {
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) payload: String,
    pub(super) published_us: i64,
}

/// Something that happens. Indices are taken modulo the number of what is there.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// The application records events.
    Record {
        at: usize,
        events: usize,
        kind: &'static str,
    },
    /// The forwarder reads events.
    Forward {
        at: usize,
    },
    /// The connection sends what it may.
    Send {
        at: usize,
    },
    /// Messages that are on their way, from this one on, come to their end.
    Arrive {
        from: usize,
        messages: usize,
        end: End,
    },
    /// The forwarder removes what is done.
    Mark {
        at: usize,
    },
    /// All of this in turn, for all that waits: without it, few events would ever be done.
    Flow {
        at: usize,
    },
    Reconnect {
        at: usize,
    },
    CrashRecorder {
        at: usize,
    },
    CopySpool {
        at: usize,
    },
    /// A copy takes the place of the spool.
    RestoreSpool {
        at: usize,
        copy: usize,
    },
    /// A copy is used beside its original.
    UseCopy {
        copy: usize,
    },
    Collect {
        messages: usize,
        writer: usize,
        trouble: Trouble,
    },
    RestartCollector,
    BackUpDatabase,
    RestoreDatabase {
        backup: usize,
    },
    Days {
        days: i64,
    },
    /// The stream is deleted with what it has, and made anew.
    NewStream,
}

/// What becomes of a message on its way to the stream.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    Stored,
    StoredWithoutAnswer,
    StoredTwice,
    Lost,
    Refused,
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let (at, which) = (0..MOST_SITES, 0_usize..1_000);
    let kind = prop_oneof![
        12 => Just("good"), 1 => Just("abort"), 1 => Just("rollback"), 1 => Just("deferred")
    ];
    let end = prop_oneof![
        6 => Just(End::Stored), 3 => Just(End::StoredWithoutAnswer), 1 => Just(End::StoredTwice),
        2 => Just(End::Lost), 1 => Just(End::Refused)
    ];
    let trouble = prop_oneof![6 => Just(Trouble::None), 1 => Just(Trouble::Locked), 2 => Just(Trouble::Crash)];
    prop_oneof![
        8 => (at.clone(), 1_usize..50, kind).prop_map(|(at, events, kind)| Step::Record { at, events, kind }),
        4 => at.clone().prop_map(|at| Step::Forward { at }),
        5 => at.clone().prop_map(|at| Step::Send { at }),
        8 => (which.clone(), 1_usize..60, end)
            .prop_map(|(from, messages, end)| Step::Arrive { from, messages, end }),
        3 => at.clone().prop_map(|at| Step::Mark { at }),
        6 => at.clone().prop_map(|at| Step::Flow { at }),
        2 => at.clone().prop_map(|at| Step::Reconnect { at }),
        3 => at.clone().prop_map(|at| Step::CrashRecorder { at }),
        2 => at.clone().prop_map(|at| Step::CopySpool { at }),
        1 => (at, which.clone()).prop_map(|(at, copy)| Step::RestoreSpool { at, copy }),
        1 => which.clone().prop_map(|copy| Step::UseCopy { copy }),
        8 => (1_usize..80, 0_usize..2, trouble)
            .prop_map(|(messages, writer, trouble)| Step::Collect { messages, writer, trouble }),
        1 => Just(Step::RestartCollector),
        1 => Just(Step::BackUpDatabase),
        1 => which.prop_map(|backup| Step::RestoreDatabase { backup }),
        1 => (1_i64..40).prop_map(|days| Step::Days { days }),
        1 => Just(Step::NewStream),
    ]
}

pub(super) struct World {
    kind: Kind,
    sites: Vec<Site>,
    copies: Vec<PathBuf>,
    flights: Vec<Flight>,
    stream: Stream,
    collector: Collector,
    backups: Vec<Backup>,
    now_us: i64,
    /// The events that were kept: what they say, by their names and numbers.
    kept: BTreeMap<String, String>,
    /// Those that need not be in the database: they were refused or dropped, or were only in a stream or a spool that was lost.
    excused: BTreeSet<String>,
    /// Counts what needs a name of its own: files, connections.
    counter: u64,
    // Dropped last.
    folder: tempfile::TempDir,
}

impl World {
    pub(super) fn new(kind: Kind) -> Self {
        // In memory where that is possible: nothing here depends on a disk, and each spool syncs every commit.
        let in_memory = tempfile::tempdir_in("/dev/shm");
        let folder = in_memory.or_else(|_| tempfile::tempdir()).expect("a folder");
        Self {
            kind,
            sites: vec![Site::start(&folder.path().join("first.spool"), kind, 0)],
            copies: Vec::new(),
            flights: Vec::new(),
            stream: Stream { epoch: 1, messages: Vec::new() },
            collector: Collector::new(folder.path().join("first.db")),
            backups: Vec::new(),
            now_us: START_US,
            kept: BTreeMap::new(),
            excused: BTreeSet::new(),
            counter: 0,
            folder,
        }
    }

    fn count(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    fn new_path(&mut self) -> PathBuf {
        let number = self.count();
        self.folder.path().join(format!("file-{number}"))
    }

    pub(super) fn take(&mut self, step: &Step) {
        self.now_us += 1_000_000;
        match *step {
            Step::Record { at, events, kind } => self.record(at, events, kind),
            Step::Forward { at } => self.site(at).forward(),
            Step::Send { at } => self.send(at),
            Step::Arrive { from, messages, end } => self.arrive(from, messages, end),
            Step::Mark { at } => self.site(at).mark(),
            Step::Flow { at } => self.flow(at),
            Step::Reconnect { at } => {
                let connection = self.count();
                self.site(at).reconnect(connection);
            }
            Step::CrashRecorder { at } => {
                let (at, connection) = (at % self.sites.len(), self.count());
                let crashed = self.sites.remove(at).crash(connection);
                self.sites.insert(at, crashed);
            }
            Step::CopySpool { at } => self.copy_spool(at),
            Step::RestoreSpool { at, copy } => self.restore_spool(at, copy),
            Step::UseCopy { copy } => self.use_copy(copy),
            Step::Collect { messages, writer, trouble } => self.collect(messages, writer, trouble),
            Step::RestartCollector => self.collector.restart(),
            Step::BackUpDatabase => {
                let path = self.new_path();
                self.backups.push(self.collector.back_up(path));
            }
            Step::RestoreDatabase { backup } => {
                let path = self.new_path();
                if let Some(backup) = backup.checked_rem(self.backups.len()) {
                    self.collector.restore(&self.backups[backup], path);
                }
            }
            Step::Days { days } => self.now_us += days * 86_400_000_000,
            Step::NewStream => {
                let lost = std::mem::take(&mut self.stream.messages);
                self.excused.extend(lost.into_iter().map(|message| message.payload));
                self.stream.epoch += 1;
            }
        }
    }

    fn site(&mut self, at: usize) -> &mut Site {
        let at = at % self.sites.len();
        &mut self.sites[at]
    }

    fn record(&mut self, at: usize, events: usize, kind: &str) {
        let payloads: Vec<String> = (0..events).map(|_| format!("{kind} {}", self.count())).collect();
        let now_us = self.now_us;
        let (numbers, dropped) = self.site(at).record(&payloads, now_us);
        for (number, payload) in numbers.into_iter().zip(payloads) {
            let before = self.kept.insert(number, payload);
            assert_eq!(before, None, "no two events have the same name and number");
        }
        // Not every position below the last one has an event.
        self.excused.extend(dropped.iter().filter_map(|number| self.kept.get(number).cloned()));
    }

    fn send(&mut self, at: usize) {
        let sent = self.site(at).send();
        for flight in &sent {
            let headers = flight.headers.iter().map(|(name, value)| (*name, value.as_str()));
            let EventNumber { recorder, number } = EventNumber::of(headers).expect("has a number");
            let kept = self.kept.get(&format!("{recorder}-{number}"));
            assert_eq!(kept, Some(&flight.payload), "an event keeps its name and number");
        }
        self.flights.extend(sent);
    }

    fn arrive(&mut self, from: usize, messages: usize, end: End) {
        let Some(from) = from.checked_rem(self.flights.len()) else { return };
        self.land(from..(from + messages).min(self.flights.len()), end);
    }

    fn land(&mut self, flights: Range<usize>, end: End) {
        for flight in self.flights.drain(flights).collect::<Vec<_>>() {
            // The answer goes to the connection that sent it.
            let sender = self.sites.iter().find(|site| site.connection == flight.connection);
            match end {
                End::Lost => {}
                End::Refused => {
                    if let Some(sender) = sender {
                        sender.refused(&flight);
                        self.excused.insert(flight.payload);
                    }
                }
                End::Stored | End::StoredWithoutAnswer | End::StoredTwice => {
                    let copies = if matches!(end, End::StoredTwice) { 2 } else { 1 };
                    for _ in 0..copies {
                        let Flight { headers, payload, .. } = flight.clone();
                        self.stream.messages.push(Message { headers, payload, published_us: self.now_us });
                    }
                    if let Some(sender) = sender.filter(|_| !matches!(end, End::StoredWithoutAnswer)) {
                        sender.acknowledged(&flight, self.stream.messages.len() as u64);
                    }
                }
            }
        }
    }

    /// Everything that the spool has now gets into the stream.
    fn flow(&mut self, at: usize) {
        let at = at % self.sites.len();
        let connection = self.count();
        self.sites[at].reconnect(connection);
        for _ in 0..100_000 {
            self.sites[at].forward();
            let before = self.flights.len();
            self.send(at);
            self.land(before..self.flights.len(), End::Stored);
            self.sites[at].mark();
            if self.sites[at].is_empty() {
                return;
            }
        }
        panic!("it makes no progress");
    }

    fn copy_spool(&mut self, at: usize) {
        let path = self.new_path();
        let sql = format!("VACUUM INTO '{}'", path.display());
        Editor::open(&self.site(at).path).and_then(|editor| editor.run(&sql)).expect("copies");
        self.copies.push(path);
    }

    fn start_copy(&mut self, copy: usize) -> Option<Site> {
        let copy = copy.checked_rem(self.copies.len())?;
        let (path, connection) = (self.new_path(), self.count());
        std::fs::copy(&self.copies[copy], &path).expect("copies");
        Some(Site::start(&path, self.kind, connection))
    }

    fn restore_spool(&mut self, at: usize, copy: usize) {
        let Some(copy) = self.start_copy(copy) else { return };
        let replaced = std::mem::replace(self.site(at), copy);
        // What only this spool had is lost with it.
        let in_stream: BTreeSet<_> = self.stream.messages.iter().map(|message| &message.payload).collect();
        let names = replaced.names();
        let of_it = self
            .kept
            .iter()
            .filter(|(number, _)| number.rsplit_once('-').is_some_and(|(name, _)| names.iter().any(|own| own == name)));
        let lost: Vec<_> = of_it.map(|(_, payload)| payload.clone()).filter(|it| !in_stream.contains(it)).collect();
        self.excused.extend(lost);
    }

    fn use_copy(&mut self, copy: usize) {
        if self.sites.len() < MOST_SITES
            && let Some(site) = self.start_copy(copy)
        {
            self.sites.push(site);
        }
    }

    fn collect(&mut self, messages: usize, writer: usize, trouble: Trouble) {
        let Self { collector, stream, excused, .. } = self;
        collector.collect(stream, messages, writer, trouble, |payload| excused.contains(payload));
    }

    /// Everything gets through in the end: each event is in the database exactly once.
    pub(super) fn finish(mut self) {
        for at in 0..self.sites.len() {
            self.flow(at);
        }
        self.land(0..self.flights.len(), End::StoredWithoutAnswer);
        while self.collector.position(self.stream.epoch) < self.stream.messages.len() {
            self.collect(100, 0, Trouble::None);
        }
        let mut times: BTreeMap<String, usize> = BTreeMap::new();
        for payload in self.collector.stored() {
            *times.entry(payload).or_default() += 1;
        }
        for (number, payload) in &self.kept {
            let times = times.remove(payload).unwrap_or(0);
            let recorder = number.rsplit_once('-').map_or("", |(recorder, _)| recorder);
            let most = if self.collector.has_forgotten(recorder) { usize::MAX } else { 1 };
            let least = usize::from(!self.excused.contains(payload));
            assert!((least..=most).contains(&times), "{number}, {payload}: {times} times in the database");
        }
        assert!(times.is_empty(), "in the database, and never recorded: {times:?}");
    }
}
