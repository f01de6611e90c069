//! An archive of lines of JSON, one for each row, as `catchment sql --format ndjson` prints them, except that infinities are kept.

use std::collections::HashMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::new_file::folder_of;
use crate::store::cell::Cell;
use crate::store::json::{JsonRowWriter, LosslessJson};

/// The most bytes beyond the mark that are compared: far more than the rows of a few transactions.
const MOST_UNSETTLED: u64 = 256 << 20;

/// How long to wait for another process, and how often to look.
const LOCKED: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_millis(5);

/// As [`Archive::add`](super::archive::Archive::add). The mark is a length.
pub(super) fn add(
    path: &Path,
    columns: &[String],
    rows: &[Vec<Cell>],
    mark: Option<i64>,
    permissions: u32,
) -> Result<i64, String> {
    add_within(path, columns, rows, mark, permissions, LOCKED)
}

/// `timeout` is how long to wait for another process that adds to the file.
fn add_within(
    path: &Path,
    columns: &[String],
    rows: &[Vec<Cell>],
    mark: Option<i64>,
    permissions: u32,
    timeout: Duration,
) -> Result<i64, String> {
    let on_error = |doing: &str, error: &std::io::Error| format!("archive {}: {doing} failed: {error}", path.display());
    let is_new = !path.exists();
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(permissions)
        .open(path)
        .map_err(|e| on_error("opening it", &e))?;
    lock(&file, timeout).map_err(|e| on_error("locking it", &e) + "; nothing was deleted")?;
    let mut length = file.metadata().map_err(|e| on_error("reading it", &e))?.len();
    // A shorter file is another one: the old one was moved away.
    let mark = mark.and_then(|mark| u64::try_from(mark).ok()).filter(|mark| *mark <= length).unwrap_or(0);
    let mut unsettled = HashMap::new();
    if length > mark && length - mark <= MOST_UNSETTLED {
        let tail = read_at(&file, mark, length).map_err(|e| on_error("reading it", &e))?;
        // A line without an end was being written when the process was killed. Its row is still in the database.
        let whole = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        if whole < tail.len() {
            length = mark + whole as u64;
            file.set_len(length).map_err(|e| on_error("shortening it", &e))?;
        }
        for line in tail[..whole].split_inclusive(|byte| *byte == b'\n') {
            *unsettled.entry(line.to_vec()).or_insert(0_u32) += 1;
        }
    }
    let writer = JsonRowWriter::new(columns.iter().map(String::as_str));
    let (mut text, mut line) = (Vec::new(), Vec::new());
    for row in rows {
        line.clear();
        writer.write(row.iter().map(|cell| LosslessJson(cell.value())), &mut line);
        line.push(b'\n');
        match unsettled.get_mut(&line) {
            Some(count) if *count > 0 => *count -= 1,
            _ => text.extend_from_slice(&line),
        }
    }
    let write = |file: &mut File| -> std::io::Result<()> {
        file.seek(SeekFrom::Start(length))?;
        file.write_all(&text)?;
        file.sync_all()?;
        if is_new {
            File::open(folder_of(path))?.sync_all()?;
        }
        Ok(())
    };
    if let Err(error) = write(&mut file) {
        // What was written of these rows is written again later.
        let _ = file.set_len(length);
        return Err(on_error("writing it", &error) + "; nothing was deleted");
    }
    let end = length + text.len() as u64;
    let again =
        File::open(path).and_then(|file| read_at(&file, length, end)).map_err(|e| on_error("reading it", &e))?;
    if again != text {
        return Err(format!("archive {}: it has other bytes than were written; nothing was deleted", path.display()));
    }
    i64::try_from(end).map_err(|error| error.to_string())
}

/// Waits until no other process adds to the file: `catchment retain` beside a collector, or a collector with the same archive. Each would
/// write where the file ended when it looked. The lock ends with the handle.
fn lock(file: &File, timeout: Duration) -> std::io::Result<()> {
    let until = Instant::now() + timeout;
    loop {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) if Instant::now() < until => std::thread::sleep(RETRY),
            Err(TryLockError::WouldBlock) => {
                return Err(std::io::Error::other(format!("another process has used it for {timeout:?}")));
            }
            // A file system without locks.
            Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => return Ok(()),
            Err(TryLockError::Error(error)) => return Err(error),
            Ok(()) => return Ok(()),
        }
    }
}

fn read_at(file: &File, from: u64, to: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(to - from).unwrap_or(0)];
    file.read_exact_at(&mut bytes, from)?;
    Ok(bytes)
}

/// Refuses a file that has something else.
pub(super) fn check(path: &Path) -> Result<(), String> {
    let mut beginning = [0; 1];
    match File::open(path).and_then(|mut file| file.read(&mut beginning)) {
        Ok(0) => Ok(()),
        Ok(_) if beginning == [b'{'] => Ok(()),
        Ok(_) => Err(format!("{} has something else than lines of JSON", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(format!("{} cannot be read: {error}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(number: i64, text: &str) -> Vec<Cell> {
        vec![Cell::Integer(number), Cell::Text(text.into())]
    }

    #[test]
    fn rows_beyond_the_mark_are_not_added_again_and_a_torn_line_goes() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("old.ndjson");
        let columns = ["id".to_owned(), "text".to_owned()];
        let add = |rows: &[Vec<Cell>], mark| super::add(&path, &columns, rows, mark, 0o600).expect("adds");
        let text = || std::fs::read_to_string(&path).expect("reads");
        let mark = add(&[row(1, "a"), row(2, "b")], None);
        assert_eq!(text(), "{\"id\":1,\"text\":\"a\"}\n{\"id\":2,\"text\":\"b\"}\n");
        assert_eq!(mark, i64::try_from(text().len()).expect("fits"));
        // Killed after 3 and 4 were added, and while 5 was: their deletion was not committed.
        add(&[row(3, "c"), row(3, "c")], Some(mark));
        OpenOptions::new().append(true).open(&path).expect("opens").write_all(b"{\"id\":5,").expect("writes");
        let later = add(&[row(3, "c"), row(3, "c"), row(3, "c"), row(5, "e")], Some(mark));
        let lines: Vec<String> = text().lines().skip(2).map(str::to_owned).collect();
        assert_eq!(
            lines,
            ["{\"id\":3,\"text\":\"c\"}"; 3]
                .iter()
                .map(|l| (*l).to_owned())
                .chain(["{\"id\":5,\"text\":\"e\"}".to_owned()])
                .collect::<Vec<_>>()
        );
        // Settled rows are added again if they come again.
        add(&[row(5, "e")], Some(later));
        assert_eq!(text().lines().count(), 7);
        // The file was moved away.
        std::fs::remove_file(&path).expect("removes");
        add(&[row(6, "f")], Some(later));
        assert_eq!(text(), "{\"id\":6,\"text\":\"f\"}\n");
        check(&path).expect("is one of ours");
        std::fs::write(&path, "SQLite format 3").expect("writes");
        assert!(check(&path).expect_err("is none").contains("something else"));
    }

    #[test]
    fn nothing_is_added_while_another_process_adds() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("old.ndjson");
        let columns = ["id".to_owned(), "text".to_owned()];
        let add = |timeout| add_within(&path, &columns, &[row(1, "a")], None, 0o600, timeout);
        // As another process: a handle has a lock of its own.
        let mut other = File::create(&path).expect("makes");
        other.lock().expect("locks");
        let refused = add(Duration::ZERO).expect_err("must be refused");
        assert!(
            refused.contains("locking it failed: another process has used it for 0ns; nothing was deleted"),
            "{refused}"
        );
        other.write_all(b"{\"id\":7}\n").expect("writes");
        drop(other);
        add(Duration::ZERO).expect("adds");
        add(Duration::ZERO).expect("the lock is free again");
        assert_eq!(std::fs::read_to_string(&path).expect("reads"), "{\"id\":7}\n{\"id\":1,\"text\":\"a\"}\n");
    }

    #[test]
    fn an_infinity_is_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("old.ndjson");
        let columns = ["x".to_owned(), "y".to_owned(), "z".to_owned()];
        let row = vec![Cell::Real(f64::INFINITY), Cell::Real(f64::NEG_INFINITY), Cell::Null];
        add(&path, &columns, &[row], None, 0o600).expect("adds");
        let text = std::fs::read_to_string(&path).expect("reads");
        assert_eq!(text, "{\"x\":{\"$real\":\"inf\"},\"y\":{\"$real\":\"-inf\"},\"z\":null}\n");
    }

    #[test]
    fn a_full_disk_is_one_line_and_nothing_is_settled() {
        let columns = ["id".to_owned()];
        let error = add(Path::new("/dev/full"), &columns, &[vec![Cell::Integer(1)]], None, 0o600).expect_err("is full");
        assert!(error.starts_with("archive /dev/full: writing it failed: No space left"), "{error}");
        assert!(error.ends_with("; nothing was deleted"), "{error}");
    }
}
