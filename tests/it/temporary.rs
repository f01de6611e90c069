//! A container with a read-only root: no temporary folder can be written.

use std::process::{Command, Stdio};

use crate::support::collector::{output, stderr};
use crate::support::fixture::Fixture;
use crate::support::oracle;

/// Rows that no cache holds, an index on them, and a view that sorts.
const TABLES: &str = "
CREATE TABLE big(a TEXT);
INSERT INTO big WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 40000)
    SELECT printf('%08d %s', (x * 7919) % 40000, hex(randomblob(60))) FROM c;
CREATE INDEX big_a ON big(a);
";

const ROUTE: &str = "[[route]]\nsubject = \"events.*\"\nsql = [\"UPDATE big SET a = a || :n WHERE rowid % 3 = 0\", \
                     \"INSERT INTO events(subject, published_us, payload) SELECT :subject, 1, count(*) FROM \
                     (SELECT a FROM big ORDER BY a || 1 LIMIT 30000)\"]\n";

#[test]
fn events_are_stored_where_no_temporary_folder_can_be_written() {
    let fixture = Fixture::new();
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let at = |name: &str| folder.path().join(name);
    std::fs::create_dir(at("m")).expect("a folder");
    std::fs::write(at("m/1_big.sql"), TABLES).expect("writes");
    let config = format!("[database]\npath = {:?}\nmigrations = {:?}\n{ROUTE}", at("a.db"), at("m"));
    std::fs::write(at("c.toml"), config).expect("writes");
    let program = env!("CARGO_BIN_EXE_catchment");
    let (url, settings) = (fixture.server.url(), at("c.toml"));
    let script = format!(
        "for folder in /tmp /var/tmp /usr/tmp; do
             if [ -d $folder ]; then mount --bind $folder $folder && mount -o remount,ro,bind $folder || exit 77; fi
         done
         mount --bind {1} {1} && mount -o remount,rw,bind {1} || exit 77
         cd /tmp && unset TMPDIR SQLITE_TMPDIR &&
         {program} check --offline -c {0} && {program} run --drain -c {0} --server {url} &&
         {program} sql -c {0} 'SELECT a FROM big ORDER BY a || 1 LIMIT 30000' --csv",
        settings.display(),
        folder.path().display()
    );
    fixture.server.raw().publish_all("events.a", &[r#"{"n": 1}"#.to_owned(), r#"{"n": 2}"#.to_owned()]);
    for way in [&["--mount"][..], &["--user", "--map-root-user", "--mount"]] {
        let mut command = Command::new("unshare");
        let done = output(command.args(way).args(["sh", "-c", &script]).stdin(Stdio::null()));
        if stderr(&done).contains("unshare") || done.status.code() == Some(77) {
            continue;
        }
        assert!(done.status.success(), "{}{}", String::from_utf8_lossy(&done.stdout), stderr(&done));
        assert_eq!(oracle::payloads(&at("a.db")), ["30000", "30000"]);
        assert_eq!(String::from_utf8_lossy(&done.stdout).lines().filter(|line| line.len() > 128).count(), 30_000);
        return;
    }
    eprintln!("skipped: events_are_stored_where_no_temporary_folder_can_be_written: no mount of its own");
}
