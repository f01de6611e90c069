//! A file that gets its name only when it is complete: until then it is beside its place, under a name of its own.
//!
//! A killed process leaves that other file behind. It is locked while a process writes it, so the next file for the same place removes
//! those that nobody writes any more.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::Error;

/// How the name of an incomplete file begins and ends. In between are the final name and a random part.
const PREFIX: &str = ".";
const SUFFIX: &str = ".catchment-part";

/// Characters of the random part.
const RANDOM: usize = 8;

/// Only its owner may read it: it has the events of a database.
const MODE: u32 = 0o600;

/// An incomplete file. Dropping it removes it.
#[derive(Debug)]
pub(crate) struct NewFile {
    place: PathBuf,
    part: PathBuf,
    replaces: bool,
    is_placed: bool,
    file: File,
}

impl NewFile {
    /// Makes an empty file for this place. A symbolic link is followed to a file that exists. Removes what killed processes left
    /// behind for the same place.
    ///
    /// # Errors
    ///
    /// [`Error::File`]: the place is a folder or no regular file, there is a file and `replaces` is false, or no file can be made.
    pub(crate) fn create(place: &Path, replaces: bool) -> Result<Self, Error> {
        let place = resolved(place, replaces)?;
        remove_left_behind(&place);
        loop {
            let part = beside(&place, &random_name(&place));
            let mut options = OpenOptions::new();
            options.read(true).write(true).create_new(true).mode(MODE);
            let file = match options.open(&part) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
                opened => opened.map_err(|error| failed(&place, &error))?,
            };
            // Between these two lines another process may have taken it for one that was left behind.
            if file.try_lock().is_ok() && has_name(&file, &part) {
                return Ok(Self { place, part, replaces, is_placed: false, file });
            }
        }
    }

    /// Where the incomplete file is.
    pub(crate) fn part(&self) -> &Path {
        &self.part
    }

    /// Its place, with a symbolic link followed.
    pub(crate) fn place(&self) -> &Path {
        &self.place
    }

    /// The file. Closing a second handle of it would drop the locks of SQLite's connections in this process.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Writes what the system still holds of it to the disk.
    ///
    /// # Errors
    ///
    /// [`Error::File`].
    pub(crate) fn sync(&self) -> Result<(), Error> {
        self.file.sync_all().map_err(|error| self.error(&error))
    }

    /// Puts the complete file into its place, in one step. When this returns, file and name are on the disk. Returns the file's size.
    ///
    /// # Errors
    ///
    /// [`Error::File`]: somebody has made a file there meanwhile, for instance. Then that one stays, and this one is removed.
    pub(crate) fn finish(mut self) -> Result<u64, Error> {
        self.sync()?;
        let size = self.file.metadata().map_err(|error| self.error(&error))?.len();
        let moved = if self.replaces { fs::rename(&self.part, &self.place) } else { move_new(&self.part, &self.place) };
        match moved {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Err(exists(&self.place)),
            moved => moved.map_err(|error| self.error(&error))?,
        }
        self.is_placed = true;
        sync_folder(&self.place)?;
        Ok(size)
    }

    /// Exchanges it with the file in its place, in one step, and gives that one this name. When this returns, the names are on the disk.
    /// Without a file in the place it is put there, and nothing is kept.
    ///
    /// # Errors
    ///
    /// [`Error::File`]. At every moment the place has one of the two files, complete.
    pub(crate) fn exchange(mut self, kept: &Path) -> Result<(), Error> {
        self.sync()?;
        let fail = |error: io::Error| failed(&self.place, &error);
        if self.place.exists() {
            // First under its later name: a process that is killed between these two steps leaves a complete copy behind.
            move_new(&self.part, kept).map_err(fail)?;
            kept.clone_into(&mut self.part);
            exchange_names(kept, &self.place).map_err(|error| failed(&self.place, &error))?;
        } else {
            move_new(&self.part, &self.place).map_err(fail)?;
        }
        self.is_placed = true;
        sync_folder(&self.place)
    }

    /// The error for a problem with it.
    pub(crate) fn error(&self, error: &io::Error) -> Error {
        failed(&self.place, error)
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.is_placed
            && let Err(error) = fs::remove_file(&self.part)
        {
            log::debug!("file {}: cannot be removed: {error}", self.part.display());
        }
    }
}

/// Removes the incomplete files for this place that no process writes any more.
fn remove_left_behind(place: &Path) {
    let folder = folder_of(place);
    let Ok(entries) = fs::read_dir(folder) else { return };
    let begin = [PREFIX.as_bytes(), name_of(place), b"."].concat();
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name();
        let name = name.as_encoded_bytes();
        let random = name.strip_prefix(&*begin).and_then(|rest| rest.strip_suffix(SUFFIX.as_bytes()));
        let is_ours = random.is_some_and(|random| random.len() == RANDOM && random.iter().all(u8::is_ascii_hexdigit));
        if !is_ours || !entry.file_type().is_ok_and(|kind| kind.is_file()) {
            continue;
        }
        let Ok(file) = File::open(entry.path()) else { continue };
        if file.try_lock().is_ok() {
            for ending in ["-wal", "-shm", "-journal"] {
                // Most have none.
                let _ = fs::remove_file(with_ending(&entry.path(), ending));
            }
            match fs::remove_file(entry.path()) {
                Ok(()) => log::debug!("file {}: a killed process left it behind; removed", entry.path().display()),
                Err(error) => log::debug!("file {}: cannot be removed: {error}", entry.path().display()),
            }
        }
    }
}

/// The place with symbolic links followed, if a file can be put there.
fn resolved(place: &Path, replaces: bool) -> Result<PathBuf, Error> {
    let is_link = fs::symlink_metadata(place).is_ok_and(|found| found.is_symlink());
    let place = if is_link {
        fs::canonicalize(place).map_err(|error| match error.kind() {
            ErrorKind::NotFound => refused(place, "it is a symbolic link that leads to no file; name another file"),
            _ => failed(place, &error),
        })?
    } else {
        place.to_owned()
    };
    if place.file_name().is_none() {
        return Err(refused(&place, "it is a folder; name a file in it"));
    }
    match fs::metadata(&place) {
        Ok(found) if found.is_dir() => Err(refused(&place, "it is a folder; name a file in it")),
        Ok(found) if !found.is_file() => {
            let kind = found.file_type();
            let what = match () {
                () if kind.is_fifo() => "a named pipe",
                () if kind.is_socket() => "a socket",
                () => "a device",
            };
            Err(refused(&place, &format!("it is {what}; name a regular file")))
        }
        Ok(_) if !replaces => Err(exists(&place)),
        Ok(_) => Ok(place),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            if folder_of(&place).is_dir() {
                return Ok(place);
            }
            let folder = folder_of(&place).display().to_string();
            Err(refused(&place, &format!("the folder {folder} does not exist; make it")))
        }
        Err(error) => Err(failed(&place, &error)),
    }
}

fn exists(place: &Path) -> Error {
    refused(place, "there is a file already; name another one, or replace it with --force")
}

fn refused(place: &Path, detail: &str) -> Error {
    Error::File { path: place.to_owned(), detail: detail.to_owned(), source: None }
}

/// The error of the system for this file.
pub(crate) fn failed(place: &Path, error: &io::Error) -> Error {
    let detail = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "the disk is full; make room, or use another disk".to_owned()
        }
        ErrorKind::FileTooLarge => {
            "it is larger than a file may be here; raise the limit, or use another disk".to_owned()
        }
        ErrorKind::PermissionDenied => format!("{error}; check the permissions of its folder"),
        ErrorKind::ReadOnlyFilesystem => format!("{error}; use another disk"),
        _ => error.to_string(),
    };
    let copied = error.raw_os_error().map(io::Error::from_raw_os_error);
    Error::File { path: place.to_owned(), detail, source: copied.map(Into::into) }
}

/// The folder of a file, `.` for a bare name.
pub(crate) fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The path with this ending appended to its name: `a.db-wal`. Follows no link.
pub(crate) fn with_ending(file: &Path, ending: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

fn name_of(place: &Path) -> &[u8] {
    place.file_name().map_or(&[], |name| name.as_encoded_bytes())
}

fn beside(place: &Path, name: &std::ffi::OsStr) -> PathBuf {
    place.with_file_name(name)
}

fn random_name(place: &Path) -> std::ffi::OsString {
    let mut random = [0; RANDOM / 2];
    // Without randomness the number of the process is enough for one file at a time.
    if getrandom::fill(&mut random).is_err() {
        random = std::process::id().to_be_bytes();
    }
    let mut name = std::ffi::OsString::from(PREFIX);
    name.push(place.file_name().unwrap_or_default());
    name.push(".");
    name.push(data_encoding::HEXLOWER.encode(&random));
    name.push(SUFFIX);
    name
}

fn has_name(file: &File, path: &Path) -> bool {
    let same = |one: &fs::Metadata, other: &fs::Metadata| (one.dev(), one.ino()) == (other.dev(), other.ino());
    matches!((file.metadata(), fs::metadata(path)), (Ok(one), Ok(other)) if same(&one, &other))
}

/// Gives a file another name that nobody uses yet.
fn move_new(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_vendor = "apple"))]
    match rustix::fs::renameat_with(rustix::fs::CWD, from, rustix::fs::CWD, to, rustix::fs::RenameFlags::NOREPLACE) {
        // The file system cannot do that in one step.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::NOTSUP) => {}
        moved => return moved.map_err(Into::into),
    }
    if fs::symlink_metadata(to).is_ok() {
        return Err(ErrorKind::AlreadyExists.into());
    }
    fs::rename(from, to)
}

/// Exchanges the names of two files.
fn exchange_names(one: &Path, other: &Path) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_vendor = "apple"))]
    match rustix::fs::renameat_with(rustix::fs::CWD, one, rustix::fs::CWD, other, rustix::fs::RenameFlags::EXCHANGE) {
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::NOTSUP) => {}
        exchanged => return exchanged.map_err(Into::into),
    }
    // In three steps. Killed in between, the other file has two names, and a start refuses it until one is removed.
    let third = beside(one, &random_name(one));
    fs::hard_link(other, &third)?;
    fs::rename(one, other)?;
    fs::rename(&third, one)
}

/// Writes the names in the folder of this file to the disk.
pub(crate) fn sync_folder(file: &Path) -> Result<(), Error> {
    let folder = folder_of(file);
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| failed(folder, &error))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder)
            .expect("reads")
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
            .collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn a_file_has_its_name_only_when_it_is_complete() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = folder.path().join("a.db");
        let new = NewFile::create(&place, false).expect("makes it");
        new.file().write_all(b"one").expect("writes");
        assert!(!place.exists() && new.part().exists());
        assert_eq!(new.finish().expect("moves it"), 3);
        assert_eq!(fs::read(&place).expect("reads"), b"one");
        assert_eq!(fs::metadata(&place).expect("a file").permissions().mode() & 0o777, 0o600);
        drop(NewFile::create(&place, true).expect("makes it"));
        assert_eq!(names(folder.path()), ["a.db"], "a file that is given up is removed");
        let new = NewFile::create(&place, true).expect("makes it");
        new.file().write_all(b"two").expect("writes");
        new.finish().expect("replaces it");
        assert_eq!(fs::read(&place).expect("reads"), b"two");
    }

    #[test]
    fn no_file_is_replaced_unless_it_may_be() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let early = NewFile::create(&at("a"), false).expect("makes it");
        fs::write(at("a"), "mine").expect("writes");
        std::os::unix::fs::symlink("a", at("link")).expect("a link");
        fs::create_dir(at("folder")).expect("a folder");
        for refused in [
            early.finish().map(drop).expect_err("was made meanwhile"),
            NewFile::create(&at("a"), false).expect_err("exists"),
            NewFile::create(&at("link"), false).expect_err("exists"),
        ] {
            let refused = refused.to_string();
            assert!(refused.contains("/a: there is a file already; ") && refused.contains("--force"), "{refused}");
        }
        for (path, words) in [
            (at("folder"), "it is a folder; name a file in it"),
            (PathBuf::from("/dev/null"), "it is a device; name a regular file"),
            (at("no/a"), "does not exist; make it"),
        ] {
            let refused = NewFile::create(&path, true).expect_err(words).to_string();
            assert!(refused.contains(words), "{refused}");
        }
        NewFile::create(&at("link"), true).expect("makes it").finish().expect("replaces what the link leads to");
        assert_eq!(fs::read(at("a")).expect("reads"), b"");
        assert!(fs::symlink_metadata(at("link")).expect("a link").is_symlink());
    }

    #[test]
    fn the_next_file_removes_what_a_killed_process_left_behind() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        for name in [".a.db.00c0ffee.catchment-part", ".b.db.00c0ffee.catchment-part", ".a.db.notes.catchment-part"] {
            fs::write(at(name), "left").expect("writes");
        }
        let other = NewFile::create(&at("a.db"), false).expect("makes it");
        let new = NewFile::create(&at("a.db"), false).expect("makes it");
        assert!(other.part().exists(), "somebody still writes it");
        drop((other, new));
        assert_eq!(names(folder.path()), [".a.db.notes.catchment-part", ".b.db.00c0ffee.catchment-part"]);
    }

    #[test]
    fn an_exchange_keeps_what_was_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let new = |text: &str| {
            let new = NewFile::create(&at("a.db"), true).expect("makes it");
            new.file().write_all(text.as_bytes()).expect("writes");
            new
        };
        new("first").exchange(&at("kept")).expect("there was none");
        assert_eq!(names(folder.path()), ["a.db"]);
        new("second").exchange(&at("kept")).expect("exchanges");
        let texts = ["a.db", "kept"].map(|name| fs::read_to_string(at(name)).expect("reads"));
        assert_eq!(texts, ["second", "first"]);
        new("third").exchange(&at("kept")).expect_err("the name is taken");
        assert_eq!(names(folder.path()), ["a.db", "kept"]);
    }
}
