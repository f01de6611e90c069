use std::path::{Path, PathBuf};

use super::file::make;
use super::pages::Pages;
use super::*;
use crate::event_id::WIDTH;
use crate::pipeline::{Batch, Epoch, Limits, Mark, Refusal, Sink};
use crate::store::Lock;

struct Folder {
    folder: tempfile::TempDir,
    changes: Arc<Mutex<Vec<SpoolChange>>>,
}

impl Folder {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder"), changes: Arc::default() }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("s.db")
    }

    fn open(&self) -> Spool {
        self.opened().expect("opens").0
    }

    fn opened(&self) -> Result<(Spool, SpoolTotals), Error> {
        let config = DatabaseConfig { path: self.path(), ..DatabaseConfig::default() };
        let changes = Arc::clone(&self.changes);
        Spool::open(&config, move |change| changes.lock().push(change))
    }

    fn totals(&self) -> SpoolTotals {
        self.changes.lock().last().expect("there was a change").totals
    }

    fn files(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.folder.path()).expect("reads");
        let mut names: Vec<String> =
            names.map(|entry| entry.expect("reads").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

/// A batch of events with these sequences. Each has 10 bytes.
fn batch(sequences: std::ops::RangeInclusive<u64>) -> Batch {
    let mut batch = Batch::new(Limits { events: 1_000_000, bytes: 1 << 30 });
    let mark = |sequence| Mark { sequence, published_ns: i64::try_from(sequence).expect("small") * 1_000 };
    batch.begin(Arc::new(Epoch::local(1, String::new())), mark(sequences.start() - 1));
    for sequence in sequences {
        batch.push(mark(sequence), "a.b", [], format!("{sequence:07}").as_bytes());
    }
    batch
}

fn commit(sink: &mut SpoolSink, sequences: std::ops::RangeInclusive<u64>) -> Result<(), Refusal> {
    let batch = batch(sequences);
    sink.prepare(&batch);
    sink.commit(&batch).map(drop)
}

fn given_up(position: u64, may_be_stored: bool) -> GivenUp {
    GivenUp { position, reason: "no stream".into(), may_be_stored }
}

/// The name and the number of the event at this position.
fn number(spool: &Spool, position: u64) -> (String, u64) {
    let names = spool.names();
    let range = names.iter().rev().find(|range| range.first <= position).expect("has a name");
    (range.name.clone(), position - range.first)
}

fn payloads(spool: &Spool) -> Vec<String> {
    let read = spool.reader().after(0, usize::MAX >> 1, usize::MAX).expect("reads");
    read.into_iter()
        .map(|stored| {
            let payload = stored.event.expect("an event").payload().to_vec();
            format!("{}:{}", stored.position, String::from_utf8(payload).expect("text").trim_start_matches('0'))
        })
        .collect()
}

#[test]
fn events_stay_in_order_until_they_are_removed_or_given_up() {
    let folder = Folder::new();
    let spool = folder.open();
    commit(&mut spool.sink(None), 1..=5).expect("commits");
    assert_eq!(folder.totals(), SpoolTotals { events: 5, bytes: 50, ..SpoolTotals::default() });
    spool.give_up(&[given_up(2, false)]).expect("gives up");
    spool.remove_through(3).expect("removes");
    let totals = SpoolTotals { events: 2, bytes: 20, forwarded: 2, dead_letters: 1, ..SpoolTotals::default() };
    assert_eq!((folder.totals(), payloads(&spool)), (totals, vec!["4:4".into(), "5:5".into()]));
    let after = spool.reader().after(4, 9, 9).expect("reads");
    assert_eq!((after.len(), after[0].recorded_us), (1, 5));
    let inspected = SpoolInspection::open(&folder.path()).expect("opens");
    assert_eq!((inspected.totals().expect("reads"), inspected.oldest_us().expect("reads")), (totals, Some(4)));
    let mut letters = Vec::new();
    let all = SpoolInspection::each::<()>(&folder.path(), SpoolPart::DeadLetters, |line| {
        letters.push((line.id, line.subject, line.error));
        Ok(())
    });
    assert!(all.expect("takes all").is_ok());
    assert_eq!(letters, [(1, "a.b".into(), Some("no stream".into()))]);
}

#[test]
fn no_two_events_have_the_same_name_and_number() {
    let folder = Folder::new();
    let mut starts = Vec::new();
    for _ in 0..3 {
        let spool = folder.open();
        starts.push(spool.names());
        commit(&mut spool.sink(None), 1..=2).expect("commits");
    }
    let last = folder.open();
    assert_eq!(payloads(&last), ["1:1", "2:2", "3:1", "4:2", "5:1", "6:2"]);
    let firsts: Vec<u64> = last.names().iter().map(|range| range.first).collect();
    assert_eq!((firsts, last.first()), (vec![1, 3, 5, 7], 7));
    assert_eq!(last.names()[..3], starts[2], "an event keeps its name");
    // A copy of the file takes new events under a name of its own.
    let copy = Folder::new();
    drop(last);
    std::fs::copy(folder.path(), copy.path()).expect("copies");
    let (original, copied) = (folder.open(), copy.open());
    assert_eq!((original.first(), copied.first()), (8, 8));
    assert_ne!(original.names().pop(), copied.names().pop());
    assert_eq!(original.names()[..3], copied.names()[..3]);
    // Names whose events are gone are forgotten, and their positions are not used again while one of them may be in the file.
    original.remove_through(4).expect("removes");
    drop(original);
    let firsts: Vec<u64> = folder.open().names().iter().map(|range| range.first).collect();
    assert_eq!(firsts, [5, 9]);
}

#[test]
fn dead_letters_keep_their_numbers_while_a_database_can_tell() {
    let folder = Folder::new();
    let spool = folder.open();
    commit(&mut spool.sink(None), 1..=4).expect("commits");
    let before = [2, 3].map(|position| number(&spool, position));
    spool.give_up(&[given_up(2, true), given_up(3, false)]).expect("gives up");
    spool.remove_through(4).expect("removes");
    drop(spool);
    let retrying = folder.open();
    let same = RetriedLetters { same: 2, ..RetriedLetters::default() };
    assert_eq!(retrying.retry_dead_letters(false).expect("moves"), same);
    assert_eq!(retrying.retry_dead_letters(false).expect("moves"), RetriedLetters::default());
    assert_eq!(folder.totals(), SpoolTotals { events: 2, bytes: 20, forwarded: 2, ..SpoolTotals::default() });
    drop(retrying);
    let next = folder.open();
    assert_eq!(
        (payloads(&next), [2, 3].map(|position| number(&next, position))),
        (vec!["2:2".into(), "3:3".into()], before)
    );
    commit(&mut next.sink(None), 1..=1).expect("commits");
    assert_eq!(payloads(&next)[2], format!("{}:1", next.first()), "no position is used twice");
}

#[test]
fn dead_letters_that_a_database_would_not_recognise_stay_unless_they_are_nowhere() {
    let folder = Folder::new();
    let spool = folder.open();
    let last = WIDTH + 2;
    commit(&mut spool.sink(None), 1..=last).expect("commits");
    spool.give_up(&[given_up(1, true), given_up(2, false), given_up(3, true)]).expect("gives up");
    spool.remove_through(last).expect("removes");
    drop(spool);
    let copies = [Folder::new(), Folder::new()];
    for copy in &copies {
        std::fs::copy(folder.path(), copy.path()).expect("copies");
    }
    let retried = RetriedLetters { same: 1, renumbered: 1, left: 1 };
    assert_eq!(folder.open().retry_dead_letters(false).expect("moves"), retried);
    assert_eq!(payloads(&folder.open()), ["3:3".to_owned(), format!("{}:2", last + 2)]);
    // In a copy it is not known how many numbers the original used after it was made. Copies use the same new numbers.
    let numbers = copies.map(|copy| {
        let one = copy.open();
        let left = RetriedLetters { left: 3, ..RetriedLetters::default() };
        assert_eq!(one.retry_dead_letters(false).expect("moves"), left);
        drop(one);
        let renumbered = RetriedLetters { renumbered: 3, ..RetriedLetters::default() };
        assert_eq!(copy.open().retry_dead_letters(true).expect("moves"), renumbered);
        let next = copy.open();
        let positions: Vec<u64> =
            next.reader().after(0, 9, 999).expect("reads").iter().map(|event| event.position).collect();
        positions.into_iter().map(|position| number(&next, position)).collect::<Vec<_>>()
    });
    assert_eq!((numbers[0].len(), &numbers[0]), (3, &numbers[1]));
    assert!(numbers[0].iter().all(|(_, number)| *number == 0) && numbers[0][0].0 != numbers[0][1].0, "{numbers:?}");
}

#[test]
fn a_dead_letter_with_a_number_of_its_own_keeps_it() {
    let folder = Folder::new();
    let spool = folder.open();
    commit(&mut spool.sink(None), 1..=WIDTH + 1).expect("commits");
    spool.give_up(&[given_up(1, true)]).expect("gives up");
    spool.remove_through(WIDTH + 1).expect("removes");
    drop(spool);
    assert_eq!(folder.open().retry_dead_letters(true).expect("moves").renumbered, 1);
    let again = folder.open();
    let position = again.reader().after(0, 9, 999).expect("reads")[0].position;
    let before = number(&again, position);
    again.give_up(&[given_up(position, false)]).expect("gives up");
    drop(again);
    assert_eq!(folder.open().retry_dead_letters(false).expect("moves").same, 1);
    assert_eq!(number(&folder.open(), position), before);
}

#[test]
fn refusals_are_noted_until_the_event_is_gone() {
    let folder = Folder::new();
    let spool = folder.open();
    commit(&mut spool.sink(None), 1..=4).expect("commits");
    spool.note_refused(&[2, 3, 4], false).expect("notes");
    spool.note_refused(&[], true).expect("notes");
    spool.note_refused(&[4], false).expect("notes");
    spool.remove(&[(1, 1), (3, 3)]).expect("removes");
    assert_eq!((payloads(&spool), folder.totals().forwarded), (vec!["2:2".into(), "4:4".into()], 2));
    drop(spool);
    let spool = folder.open();
    let refused = spool.refusals().expect("reads");
    assert!(refused.len() == 2 && refused[&2].others_stored && !refused[&4].others_stored, "{refused:?}");
    assert!((now_us() - refused[&2].at_us) < 60_000_000, "{refused:?}");
    spool.give_up(&[given_up(2, false)]).expect("gives up");
    spool.remove_through(4).expect("removes");
    assert!(spool.refusals().expect("reads").is_empty());
}

#[test]
fn a_spool_of_an_earlier_version_is_used_on() {
    let folder = Folder::new();
    let spool = folder.open();
    commit(&mut spool.sink(None), 1..=3).expect("commits");
    spool.give_up(&[given_up(2, true)]).expect("gives up");
    drop(spool);
    let connection = Connection::open(folder.path()).expect("opens");
    let sql = "ALTER TABLE catchment_spool DROP COLUMN last; ALTER TABLE catchment_spool DROP COLUMN file;
               ALTER TABLE catchment_spool_names DROP COLUMN through; DROP TABLE catchment_spool_refusals;
               ALTER TABLE catchment_spool_dead_letters DROP COLUMN may_be_stored; UPDATE catchment_spool SET version = 1";
    connection.execute_batch(sql).expect("SQL");
    drop(connection);
    let spool = folder.open();
    assert!(payloads(&spool) == ["1:1", "3:3"] && spool.first() > 1 << 40, "{}", spool.first());
    assert_eq!(spool.retry_dead_letters(false).expect("moves").left, 1);
}

#[test]
fn the_oldest_events_are_dropped_beyond_the_limits() {
    let folder = Folder::new();
    let spool = folder.open();
    let mut sink = spool.sink(Some(SpoolLimits { events: 4, bytes: 35 }));
    commit(&mut sink, 1..=3).expect("commits");
    assert_eq!(folder.changes.lock().pop().expect("a change").dropped_through, None);
    commit(&mut sink, 4..=5).expect("commits");
    assert_eq!(folder.changes.lock().last().expect("a change").dropped_through, Some(2));
    assert_eq!(folder.totals(), SpoolTotals { events: 3, bytes: 30, dropped: 2, ..SpoolTotals::default() });
    assert_eq!(payloads(&spool), ["3:3", "4:4", "5:5"]);
    let mut small = spool.sink(Some(SpoolLimits { events: 4, bytes: 5 }));
    commit(&mut small, 6..=7).expect("commits");
    assert_eq!(payloads(&spool), ["7:7"], "the last one stays");
}

#[test]
fn a_commit_that_is_tried_again_stores_an_event_once() {
    let folder = Folder::new();
    let spool = folder.open();
    let other = Connection::open(folder.path()).expect("opens");
    other.execute_batch("BEGIN IMMEDIATE").expect("locks");
    let mut sink = spool.sink(None);
    assert!(matches!(commit(&mut sink, 1..=3), Err(Refusal::Retry(_))));
    other.execute_batch("ROLLBACK").expect("unlocks");
    commit(&mut sink, 1..=3).expect("commits");
    // As after an error whose commit had succeeded.
    sink.unclear_for_test();
    commit(&mut sink, 1..=3).expect("commits");
    assert_eq!((payloads(&spool).len(), folder.totals().events), (3, 3));
}

#[test]
fn the_file_gives_its_space_back() {
    let folder = Folder::new();
    let spool = folder.open();
    let mut sink = spool.sink(None);
    for first in (0..200_000).step_by(50_000) {
        commit(&mut sink, first + 1..=first + 50_000).expect("commits");
    }
    spool.remove_through(200_000).expect("removes");
    while spool.shrink().expect("shrinks") {}
    let pages: u32 = {
        let connection = Connection::open(folder.path()).expect("opens");
        connection.query_row("PRAGMA page_count", [], |row| row.get(0)).expect("a number")
    };
    assert!(pages < SPARE_PAGES + 100, "{pages} pages");
    assert_eq!(folder.totals(), SpoolTotals { forwarded: 200_000, ..SpoolTotals::default() });
}

/// Writes over the middle of the file.
fn damage(path: &Path) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::OpenOptions::new().write(true).open(path).expect("opens");
    let length = file.metadata().expect("has a length").len();
    file.write_all_at(&[0xa5; 8_192], length / 2 / 4_096 * 4_096).expect("writes");
}

#[test]
fn a_damaged_spool_is_moved_aside_whole() {
    let folder = Folder::new();
    let spool = folder.open();
    commit(&mut spool.sink(None), 1..=5_000).expect("commits");
    drop(spool);
    damage(&folder.path());
    let before = std::fs::read(folder.path()).expect("reads");
    let (spool, totals) = folder.opened().expect("opens a new one");
    assert_eq!((totals, payloads(&spool).len()), (SpoolTotals::default(), 0));
    let aside = folder.files().into_iter().find(|name| name.contains(".damaged-")).expect("is kept");
    let aside = folder.folder.path().join(aside);
    assert_eq!(std::fs::read(&aside).expect("reads"), before);
    // What can be read is read, also behind the damage.
    let (read, ended) = exported(&aside, SpoolPart::Waiting);
    assert!(ended.is_err(), "some are missing");
    assert!(read.last() == Some(&5_000) && (3_000..5_000).contains(&read.len()), "{} events", read.len());
}

/// The ids of the events that can be read.
fn exported(path: &Path, part: SpoolPart) -> (Vec<i64>, Result<(), Error>) {
    let mut ids = Vec::new();
    let ended = SpoolInspection::each::<()>(path, part, |line| {
        assert_eq!(line.subject, "a.b");
        ids.push(line.id);
        Ok(())
    });
    ids.sort_unstable();
    (ids, ended.expect("takes all"))
}

/// The pages of these kinds of b-trees.
fn pages_of(content: &[u8], kind: u8) -> Vec<usize> {
    (1..content.len() / 4_096).filter(|page| content[page * 4_096] == kind).collect()
}

#[test]
fn events_are_found_though_the_pages_that_lead_to_them_are_damaged() {
    let folder = Folder::new();
    let spool = folder.open();
    let mut sink = spool.sink(None);
    commit(&mut sink, 1..=60_000).expect("commits");
    spool.give_up(&(1..=600).map(|position| given_up(position, false)).collect::<Vec<_>>()).expect("gives up");
    // They stay on free pages, and are not waiting any more.
    spool.remove_through(20_000).expect("removes");
    // Larger than a page.
    let mut large = Batch::new(Limits { events: 10, bytes: 1 << 20 });
    let mark = |sequence| Mark { sequence, published_ns: 1_000 };
    large.begin(Arc::new(Epoch::local(1, String::new())), mark(60_000));
    large.push(mark(60_001), "a.b", [("A", "1")], &vec![b'x'; 20_000]);
    sink.prepare(&large);
    sink.commit(&large).expect("commits");
    drop((sink, spool));
    // What waits is in the log too.
    let whole = std::fs::read(folder.path()).expect("reads");
    let inner = pages_of(&whole, 5);
    assert!(inner.len() >= 2, "{inner:?}");
    let damaged = |pages: &[usize]| {
        let mut content = whole.clone();
        for page in pages {
            content[page * 4_096..(page + 1) * 4_096].fill(0xa5);
        }
        std::fs::write(folder.path(), &content).expect("writes");
    };
    damaged(&inner);
    let (waiting, ended) = exported(&folder.path(), SpoolPart::Waiting);
    assert!(ended.is_err() && waiting.iter().copied().eq(20_001..=60_001), "{} events", waiting.len());
    let (letters, ended) = exported(&folder.path(), SpoolPart::DeadLetters);
    assert!(ended.is_err() && letters.iter().copied().eq(1..=600), "{} letters", letters.len());
    // The first page has the tables.
    damaged(&[0]);
    let (waiting, ended) = exported(&folder.path(), SpoolPart::Waiting);
    assert!(ended.is_err() && waiting.iter().copied().eq(20_001..=60_001), "{} events", waiting.len());
}

#[test]
fn what_was_committed_to_the_log_of_a_damaged_spool_is_found() {
    let folder = Folder::new();
    let spool = folder.open();
    commit(&mut spool.sink(None), 1..=2_000).expect("commits");
    drop(spool);
    let spool = folder.open();
    commit(&mut spool.sink(None), 1..=3_000).expect("commits");
    spool.remove_through(1_000).expect("removes");
    let first = i64::try_from(spool.first()).expect("small");
    // As a killed process leaves it.
    let copy = Folder::new();
    for ending in ["", "-wal"] {
        let name = |folder: &Folder| format!("{}{ending}", folder.path().display());
        std::fs::copy(name(&folder), name(&copy)).expect("copies");
    }
    let whole = Pages::open(&copy.path()).expect("opens");
    let found = whole.rows(|row| row.len() == 6);
    assert!(
        found.iter().map(|place| place.rowid).eq((1_001..=2_000).chain(first..first + 3_000)),
        "{} rows",
        found.len()
    );
}

#[test]
fn a_spool_without_its_first_page_is_known_by_its_lock() {
    let folder = Folder::new();
    let lock = Lock::take_spool(&folder.path()).expect("is free");
    commit(&mut folder.open().sink(None), 1..=5_000).expect("commits");
    drop(lock);
    let mut content = std::fs::read(folder.path()).expect("reads");
    content[..4_096].fill(0x11);
    std::fs::write(folder.path(), &content).expect("writes");
    let _lock = Lock::take_spool(&folder.path()).expect("is free");
    assert_eq!(folder.opened().expect("opens a new one").1, SpoolTotals::default());
    assert!(folder.files().iter().any(|name| name.contains(".damaged-")), "{:?}", folder.files());
}

#[test]
fn a_move_that_was_interrupted_is_completed() {
    let folder = Folder::new();
    commit(&mut folder.open().sink(None), 1..=3).expect("commits");
    std::fs::write(folder.folder.path().join("s.db.damaged-20260101T000000Z-wal"), "log").expect("writes");
    assert_eq!(folder.opened().expect("opens a new one").1, SpoolTotals::default());
    assert!(folder.files().contains(&"s.db.damaged-20260101T000000Z".to_owned()), "{:?}", folder.files());
}

#[test]
fn the_file_of_another_program_is_refused_and_stays() {
    for content in ["a host name\n", &"x".repeat(9_000)] {
        let folder = Folder::new();
        std::fs::write(folder.path(), content).expect("writes");
        let refused = Lock::take_spool(&folder.path()).expect_err("is no spool").to_string();
        assert!(refused.contains("file is not a database"), "{refused}");
        assert_eq!(folder.files(), ["s.db"]);
    }
    let folder = Folder::new();
    Connection::open(folder.path()).and_then(|c| c.execute_batch("CREATE TABLE customers(name)")).expect("SQL");
    let config = DatabaseConfig { path: folder.path(), ..DatabaseConfig::default() };
    let refused = make(&config).expect_err("is no spool").to_string();
    assert!(
        refused.ends_with("it is a database and no spool (tables: customers); give the spool a path of its own"),
        "{refused}"
    );
    let refused = SpoolInspection::open(&folder.path()).map(drop).expect_err("is no spool").to_string();
    assert!(refused.contains("no spool (tables: customers)"), "{refused}");
}
