//! `checkpoint = "external"`: a program that replicates the `-wal` file, as Litestream does, loses no page.
//!
//! It keeps a read transaction open, so that nobody can begin the WAL anew. It copies committed frames to its replica, and runs the
//! checkpoints itself: <https://litestream.io/how-it-works/>.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use catchment::rusqlite::Connection;

use crate::support::collector::Collector;
use crate::support::fixture::Fixture;
use crate::support::{eventually, oracle};

const WAL_HEADER: usize = 32;
const FRAME_HEADER: usize = 24;

/// Replicates a database.
struct Replicator {
    database: PathBuf,
    /// Runs checkpoints, and holds the read transaction.
    connection: Connection,
    /// The pages of the replica.
    pages: BTreeMap<u32, Vec<u8>>,
    page_size: usize,
    /// The header's salt, and how many bytes of the WAL are copied.
    position: ([u8; 8], usize),
    /// How many times it has seen the WAL begin anew.
    restarts: u32,
}

impl Replicator {
    fn start(database: &Path) -> Self {
        let connection = Connection::open(database).expect("opens");
        connection.busy_timeout(Duration::from_secs(60)).expect("sets");
        connection.pragma_update(None, "wal_autocheckpoint", 0).expect("sets");
        // Its own table: a read transaction has to read something, and a checkpoint to be followed by a write.
        connection.execute_batch("CREATE TABLE IF NOT EXISTS replica_seq(n)").expect("SQL");
        let mut replicator = Self {
            database: database.to_owned(),
            connection,
            pages: BTreeMap::new(),
            page_size: 0,
            position: ([0; 8], 0),
            restarts: 0,
        };
        replicator.hold();
        replicator.page_size = replicator.connection.query_row("PRAGMA page_size", [], |row| row.get(0)).expect("asks");
        // The snapshot that it begins with: all that is in the database file.
        let file = std::fs::read(database).expect("reads");
        replicator.pages = (1..).zip(file.chunks(replicator.page_size).map(<[u8]>::to_vec)).collect();
        replicator
    }

    fn hold(&self) {
        self.connection.execute_batch("BEGIN; SELECT count(*) FROM replica_seq").expect("reads");
    }

    fn wal(&self) -> Vec<u8> {
        let mut path = self.database.clone().into_os_string();
        path.push("-wal");
        std::fs::read(path).expect("reads the WAL")
    }

    /// Copies the committed frames that it does not have.
    fn copy(&mut self) {
        let wal = self.wal();
        let Some(header) = wal.get(..WAL_HEADER) else { return };
        let salt: [u8; 8] = header[16..24].try_into().expect("eight bytes");
        if salt != self.position.0 {
            self.restarts += u32::from(self.position.1 > 0);
            self.position = (salt, WAL_HEADER);
        }
        let mut pending = BTreeMap::new();
        let mut at = self.position.1;
        while let Some(frame) = wal.get(at..at + FRAME_HEADER + self.page_size) {
            if frame[8..16] != salt {
                break;
            }
            let number = |from: usize| u32::from_be_bytes(frame[from..from + 4].try_into().expect("four bytes"));
            let (page, size) = (number(0), number(4));
            pending.insert(page, frame[FRAME_HEADER..].to_vec());
            at += FRAME_HEADER + self.page_size;
            if size > 0 {
                self.pages.append(&mut pending);
                self.pages.retain(|page, _| *page <= size);
                self.position.1 = at;
            }
        }
    }

    /// Copies, and then runs a checkpoint that makes the WAL begin anew with the next commit.
    fn checkpoint(&mut self) {
        // Nobody commits between the copy and the checkpoint.
        let writer = Connection::open(&self.database).expect("opens");
        writer.busy_timeout(Duration::from_secs(60)).expect("sets");
        writer.execute_batch("BEGIN IMMEDIATE").expect("takes the lock");
        self.copy();
        self.connection.execute_batch("ROLLBACK").expect("ends");
        self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).expect("checkpoints");
        self.hold();
        writer.execute_batch("ROLLBACK").expect("ends");
    }

    /// The replica as a file.
    fn restore(&self, to: &Path) {
        let last = self.pages.keys().last().copied().unwrap_or_default();
        // A page that was never in use may be in no file.
        let unused = vec![0; self.page_size];
        let pages = (1..=last).map(|page| self.pages.get(&page).unwrap_or(&unused).as_slice());
        std::fs::write(to, pages.collect::<Vec<_>>().concat()).expect("writes");
    }
}

#[test]
fn a_replicator_that_runs_the_checkpoints_misses_no_page() {
    let fixture = Fixture::new();
    let mut run = fixture.run();
    run.env("CATCHMENT_DATABASE__CHECKPOINT", "external").env("CATCHMENT_BATCH__MAX_EVENTS", "200");
    let settings = "[retention]\nevents = { rows = 3000 }\n[upkeep]\nretain_every = \"1s\"\n";
    run.arg("-c").arg(fixture.file("keep.toml", settings));
    let running = Collector::start(run, &fixture.path("collector.log"));
    running.said("collecting stream");
    let mut replicator = Replicator::start(&fixture.database());
    let file_now = || std::fs::read(fixture.database()).expect("reads");
    for round in 0..4 {
        let rows = oracle::number(&fixture.database(), "SELECT coalesce(max(id), 0) FROM events");
        let before = file_now();
        let payload = "x".repeat(2_000);
        fixture.server.raw().publish_all("events.test", &vec![format!("{round}{payload}"); 2_000]);
        eventually("the rows", || {
            let now = oracle::number(&fixture.database(), "SELECT max(id) FROM events");
            (now >= rows + 2_000).then_some(())
        });
        assert!(file_now() == before, "somebody else ran a checkpoint");
        replicator.copy();
        replicator.checkpoint();
    }
    assert!(replicator.restarts > 0, "the WAL never began anew");
    eventually("retention", || (oracle::count(&fixture.database()) == 3_000).then_some(()));
    let before = file_now();
    assert!(running.stop().success());
    replicator.copy();
    assert!(file_now() == before && fixture.path("a.db-wal").exists(), "the stop ran a checkpoint");
    let restored = fixture.path("restored.db");
    replicator.restore(&restored);
    let all = "SELECT id || ' ' || sequence || ' ' || substr(payload, 1, 5) FROM events ORDER BY id";
    assert_eq!(oracle::texts(&restored, all), oracle::texts(&fixture.database(), all));
    assert_eq!(oracle::texts(&restored, "PRAGMA integrity_check"), ["ok"]);
    drop(replicator);
    // The next collector goes on, without a replicator and after one that may have closed the database last.
    fixture.drain();
    oracle::sound(&fixture.database());
}
