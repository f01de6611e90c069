//! The backups of one database in a folder: named by their times, and no more than are to be kept.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use time::OffsetDateTime;

use super::backup::{CopyLimits, DatabaseContents, copy_database};
use super::database_file::followed;
use super::read_only::immutable;
use super::schema;
use crate::error::Error;
use crate::new_file::{NewFile, failed};
use crate::task::Task;
use crate::time_stamp::{read_time_stamp, time_stamp};

/// Where and when backups are made.
#[derive(Clone, Debug)]
pub struct ScheduledBackups {
    /// The database.
    pub database: PathBuf,
    /// The folder.
    pub folder: PathBuf,
    /// The time from one to the next.
    pub every: Duration,
    /// How many are kept.
    pub keep: usize,
    /// How they are copied.
    pub limits: CopyLimits,
}

/// A backup that was made.
#[derive(Clone, Debug)]
pub struct ScheduledBackup {
    /// The file.
    pub file: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
    /// What is in it.
    pub contents: DatabaseContents,
    /// Older ones that were removed.
    pub removed: Vec<PathBuf>,
}

impl ScheduledBackups {
    /// In how long the next one is due, by the names in the folder. Files of the future do not count: the clock was set.
    #[must_use]
    pub fn due_in(&self) -> Duration {
        self.age_of_last().map_or(Duration::ZERO, |age| self.every.saturating_sub(age))
    }

    /// How long ago the last one began, by the names in the folder; `None` if there is none.
    #[must_use]
    pub fn age_of_last(&self) -> Option<Duration> {
        let now = OffsetDateTime::now_utc();
        let last = self.named().into_iter().map(|(at, _)| at).filter(|at| *at <= now).max()?;
        Some(Duration::try_from(now - last).unwrap_or_default())
    }

    /// Makes one, and removes the oldest of this database if there are too many.
    ///
    /// # Errors
    ///
    /// As [`copy_database`]; [`Error::File`] where the folder cannot be made.
    pub fn make(&self, task: &Task<'_>) -> Result<ScheduledBackup, Error> {
        self.make_folder()?;
        let name = self.name(OffsetDateTime::now_utc());
        let new = NewFile::create(&self.folder.join(name), false)?;
        let file = new.place().to_owned();
        let contents = copy_database(&self.database, &new, self.limits, task)?;
        let bytes = new.finish()?;
        let removed = self.remove_oldest(&file, &contents.identity);
        Ok(ScheduledBackup { file, bytes, contents, removed })
    }

    fn make_folder(&self) -> Result<(), Error> {
        if self.folder.is_dir() {
            return Ok(());
        }
        fs::create_dir(&self.folder).map_err(|error| match (error.kind(), failed(&self.folder, &error)) {
            (ErrorKind::AlreadyExists, Error::File { path, source, .. }) => {
                let detail = "is a file, not a folder; name another backup.folder".into();
                Error::File { path, detail, source }
            }
            (ErrorKind::NotFound, Error::File { path, source, .. }) => {
                let detail = "its parent folder is missing; make it, or name another backup.folder".into();
                Error::File { path, detail, source }
            }
            (_, error) => error,
        })
    }

    fn name(&self, at: OffsetDateTime) -> String {
        let (stem, extension) = self.parts();
        format!("{stem}-{}{extension}", time_stamp(at))
    }

    /// The stem of the database's name, and its extension with the dot. Other characters than UTF-8 become U+FFFD.
    fn parts(&self) -> (String, String) {
        let file = followed(&self.database);
        let text = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
        let extension = file.extension().map_or(String::new(), |extension| format!(".{}", text(Some(extension))));
        (text(file.file_stem()), extension)
    }

    /// The files whose names are those of our backups, with their times.
    fn named(&self) -> Vec<(OffsetDateTime, PathBuf)> {
        let (stem, extension) = self.parts();
        let time_of = |name: &str| {
            let rest = name.strip_prefix(&*stem)?.strip_prefix('-')?;
            read_time_stamp(rest.strip_suffix(&*extension)?)
        };
        let Ok(entries) = fs::read_dir(&self.folder) else { return Vec::new() };
        let files = entries.filter_map(Result::ok).filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
        files.filter_map(|entry| Some((time_of(entry.file_name().to_str()?)?, entry.path()))).collect()
    }

    /// Removes the oldest backups of this database, and those of the future before them: the clock was wrong. The new one stays. A file of
    /// the same name with another identity is somebody else's.
    fn remove_oldest(&self, new: &Path, identity: &str) -> Vec<PathBuf> {
        let now = OffsetDateTime::now_utc();
        let mut named = self.named();
        named.retain(|(_, file)| file.file_name() != new.file_name());
        named.sort_by_key(|(at, _)| (*at > now, std::cmp::Reverse(*at)));
        let ours = named.into_iter().map(|(_, file)| file).filter(|file| has_identity(file, identity));
        let mut removed = Vec::new();
        for file in ours.skip(self.keep.saturating_sub(1)) {
            match fs::remove_file(&file) {
                Ok(()) => removed.push(file),
                Err(error) => {
                    let file = file.display();
                    log::warn!(
                        event = "backup.not_removed", file:% = file, error:% = error;
                        "backup {file}: it is one too many and cannot be removed: {error}"
                    );
                }
            }
        }
        removed
    }
}

fn has_identity(file: &Path, identity: &str) -> bool {
    immutable(file)
        .and_then(|connection| schema::identity(&connection))
        .is_ok_and(|found| found.as_deref() == Some(identity))
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use super::*;
    use crate::config::DatabaseConfig;
    use crate::store::{Database, Routes};

    fn backups(folder: &Path, keep: usize) -> ScheduledBackups {
        let config = DatabaseConfig { path: folder.join("chat.db"), ..DatabaseConfig::default() };
        drop(Database::open(&config, &Routes::default()).expect("opens"));
        let limits = CopyLimits { rate: None, wal: 1 << 30 };
        let (every, folder) = (Duration::from_secs(3_600), folder.join("backups"));
        ScheduledBackups { database: config.path, folder, every, keep, limits }
    }

    fn make(backups: &ScheduledBackups) -> ScheduledBackup {
        backups.make(&Task::new("the backup", &|_| ControlFlow::Continue(()))).expect("makes one")
    }

    #[test]
    fn the_last_backup_says_when_the_next_is_due() {
        let folder = tempfile::tempdir().expect("a folder");
        let backups = backups(folder.path(), 3);
        assert_eq!(backups.due_in(), Duration::ZERO, "there is no folder yet");
        let made = make(&backups);
        let name = made.file.file_name().and_then(|name| name.to_str()).expect("a name");
        assert!(name.starts_with("chat-20") && name.ends_with("Z.db"), "{name}");
        assert_eq!(made.bytes, fs::metadata(&made.file).expect("a file").len());
        let left = backups.due_in();
        assert!(left > Duration::from_secs(3_000) && left <= backups.every, "{left:?}");
        fs::remove_file(&made.file).expect("removes");
        let old = OffsetDateTime::now_utc() - Duration::from_secs(1_800);
        fs::write(backups.folder.join(backups.name(old)), "").expect("writes");
        fs::write(backups.folder.join("chat-29991231T235959Z.db"), "").expect("writes");
        let left = backups.due_in();
        assert!(left <= Duration::from_secs(1_800) && left > Duration::ZERO, "{left:?}");
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_an_error_with_the_setting() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut backups = backups(folder.path(), 2);
        let error = |backups: &ScheduledBackups| {
            let made = backups.make(&Task::new("the backup", &|_| ControlFlow::Continue(())));
            made.expect_err("no folder").to_string()
        };
        backups.folder = folder.path().join("bk");
        fs::write(&backups.folder, "").expect("writes");
        assert_eq!(
            error(&backups),
            format!("{}: is a file, not a folder; name another backup.folder", backups.folder.display())
        );
        backups.folder = folder.path().join("no/backups");
        assert_eq!(
            error(&backups),
            format!(
                "{}: its parent folder is missing; make it, or name another backup.folder",
                backups.folder.display()
            )
        );
    }

    #[test]
    fn only_the_oldest_backups_of_this_database_are_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let backups = backups(folder.path(), 2);
        let first = make(&backups).file;
        let at = |name: &str| backups.folder.join(name);
        for name in ["chat-20200101T000000Z.db", "chat-20200102T000000Z.db"] {
            fs::copy(&first, at(name)).expect("copies");
        }
        let other = tempfile::tempdir().expect("a folder");
        let others = self::backups(other.path(), 2);
        fs::copy(make(&others).file, at("chat-20190101T000000Z.db")).expect("copies");
        for name in [
            "chat-20180101T000000Z.db",
            "chat-20200101T000000Z.db.keep",
            "chat-20200101.db",
            "other-20200101T000000Z.db",
        ] {
            fs::write(at(name), "mine").expect("writes");
        }
        fs::rename(&first, at("chat-20200103T000000Z.db")).expect("renames");
        let made = make(&backups);
        let mut removed: Vec<_> =
            made.removed.iter().map(|file| file.strip_prefix(&backups.folder).expect("in it").to_owned()).collect();
        removed.sort();
        assert_eq!(removed, [Path::new("chat-20200101T000000Z.db"), Path::new("chat-20200102T000000Z.db")]);
        assert!(made.file.exists() && at("chat-20200103T000000Z.db").exists());
        assert_eq!(fs::read_dir(&backups.folder).expect("reads").count(), 7);
    }

    #[test]
    fn backups_of_the_future_are_removed_before_others_and_never_the_new_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let backups = backups(folder.path(), 2);
        let first = make(&backups).file;
        let future = ["chat-29990101T000000Z.db", "chat-29990102T000000Z.db"].map(|name| backups.folder.join(name));
        for file in &future {
            fs::copy(&first, file).expect("copies");
        }
        fs::rename(&first, backups.folder.join("chat-20200101T000000Z.db")).expect("renames");
        let made = make(&backups);
        assert_eq!((made.removed.len(), future.iter().any(|file| file.exists())), (2, false), "{made:?}");
        assert!(made.file.exists() && backups.folder.join("chat-20200101T000000Z.db").exists());
    }
}
