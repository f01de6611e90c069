//! Puts a database that a replay has filled in the place of the one that was collected into.
//!
//! At every moment the path of the old one leads to a complete database: to the old one until a rename, and to the new one from then on.
//! Both are single files at that moment: they leave WAL mode before.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::database_file::{file_beside, followed, must_exist};
use super::file_identity::{inherit_identity, renew_identity};
use super::read_connection::ReadConnection;
use super::sqlite_error::database_error;
use super::{ReplayNote, schema, sole_connection};
use crate::error::{DatabaseFault, Error};
use crate::new_file::{sync_folder, with_ending};

/// The most old databases that are kept beside one.
const MOST_KEPT: usize = 1_000;

/// Checks that the two files can be swapped: both are databases, in one file system. Removes what a swap left that was killed.
///
/// # Errors
///
/// [`Error::Database`].
pub fn prepare_swap(live: &Path, new: &Path) -> Result<(), Error> {
    must_exist(live)?;
    forget_second_names(live)?;
    let folder = |path: &Path| followed(path).parent().map(Path::to_owned).unwrap_or_default();
    let device = |path: &Path| fs::metadata(folder(path)).ok().map(|file| file.dev());
    if device(live) != device(new) {
        let detail = format!("it is in another file system than {}, and so cannot take its place", live.display());
        return Err(refused(new, DatabaseFault::Unwritable, detail).with_remedy("replay into a file beside that one"));
    }
    Ok(())
}

/// Puts `new` in the place of `live`, and returns where the old database is now. The caller holds the locks of both, and has no
/// connection to either. The new one gets the identity of the old one, so that its collector continues with the consumers of the
/// old one; the old one gets an identity of its own. When this returns, the new one is on the disk under its name.
///
/// # Errors
///
/// [`Error::Database`]. The old database is in its place then, unchanged.
pub fn swap(live: &Path, new: &Path) -> Result<PathBuf, Error> {
    prepare_swap(live, new)?;
    let (live_file, new_file) = (followed(live), followed(new));
    // Nobody reads or writes it until the new one is in its place.
    let old = sole_connection::exclusive(live).map_err(|error| sole_connection::error(live, error))?;
    schema::must_be_ours(&old, live)?;
    let identity = schema::identity(&old).map_err(|e| database_error(live, e))?.unwrap_or_default();
    {
        let filled = open(new)?;
        inherit_identity(new, &filled, &identity, live).map_err(|e| database_error(new, e))?;
        sole_connection::leave_wal(&filled).map_err(|error| sole_connection::error(new, error))?;
    }
    let io = |source: std::io::Error| {
        let detail = format!("{} cannot be put in its place: {source}", new.display());
        Error::Database {
            fault: DatabaseFault::Unwritable,
            path: live.to_owned(),
            detail,
            remedy: Some("check the permissions and the free space of its directory".into()),
            source: Some(source.into()),
        }
    };
    let permissions = fs::metadata(&live_file).map_err(io)?.permissions().mode() & 0o7777;
    fs::set_permissions(&new_file, Permissions::from_mode(permissions)).map_err(io)?;
    File::open(&new_file).and_then(|file| file.sync_all()).map_err(io)?;
    let aside = free_name(&live_file);
    fs::hard_link(&live_file, &aside).map_err(io)?;
    if let Err(error) = fs::rename(&new_file, &live_file) {
        let _ = fs::remove_file(&aside);
        return Err(io(error));
    }
    for file in [&live_file, &new_file] {
        sync_folder(file)?;
    }
    drop(old);
    // As the caller wrote it, if the path is not a link to another folder.
    let aside = match aside.file_name() {
        Some(name) if !live.is_symlink() => live.with_file_name(name),
        _ => aside,
    };
    let renewed = open(&aside).and_then(|old| renew_identity(&aside, &old).map_err(|e| database_error(&aside, e)));
    if let Err(error) = renewed {
        log::warn!(
            event = "database.replaced", database:% = aside.display(), error:% = error;
            "database {}: it has the identity of the one that replaced it; before you collect into it, run catchment adopt: {error}",
            aside.display()
        );
    }
    Ok(aside)
}

/// Gives the new database an identity of its own again, if a swap was killed after it got that of the old one: a replay must not take the
/// consumers of the collector that runs meanwhile. The caller holds the lock of the new one.
///
/// # Errors
///
/// [`Error::Database`].
pub fn undo_interrupted_swap(live: &Path, new: &Path) -> Result<(), Error> {
    if !new.exists() || !live.exists() || ReplayNote::of(new)?.is_none() {
        return Ok(());
    }
    let identity = |path: &Path| ReadConnection::open(path)?.read(schema::identity);
    // If the live one cannot be read now, the new one gets another identity: that is always right.
    match (identity(new)?, identity(live)) {
        (Some(new), Ok(live)) if live.as_ref() != Some(&new) => return Ok(()),
        (None, _) => return Ok(()),
        _ => {}
    }
    let connection = open(new)?;
    renew_identity(new, &connection).map(drop).map_err(|e| database_error(new, e))
}

/// Undoes a transaction that a killed process has left in a database without WAL: SQLite does that when a connection that may write reads
/// it. The caller holds the lock.
///
/// # Errors
///
/// [`Error::Database`].
pub fn undo_interrupted_transaction(path: &Path) -> Result<(), Error> {
    if fs::metadata(file_beside(path, "-journal")).map_or(0, |file| file.len()) == 0 || !path.exists() {
        return Ok(());
    }
    let read = |connection: Connection| connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()));
    read(open(path)?).map_err(|e| database_error(path, e))
}

fn open(path: &Path) -> Result<Connection, Error> {
    sole_connection::open(path).map_err(|error| database_error(path, error))
}

/// The path for an old database: `chat.db.replaced`, `chat.db.replaced-2` and so on.
fn kept_names(live: &Path) -> impl Iterator<Item = PathBuf> {
    (1..=MOST_KEPT).map(|number| match number {
        1 => with_ending(live, ".replaced"),
        _ => with_ending(live, &format!(".replaced-{number}")),
    })
}

fn free_name(live: &Path) -> PathBuf {
    let is_free = |path: &PathBuf| path.symlink_metadata().is_err();
    kept_names(live).find(is_free).unwrap_or_else(|| live.with_extension("replaced"))
}

/// Removes the second name that a swap has given the database before it was killed.
fn forget_second_names(live: &Path) -> Result<(), Error> {
    let live_file = followed(live);
    let id = |path: &Path| path.symlink_metadata().ok().map(|file| (file.dev(), file.ino()));
    let own = id(&live_file);
    for name in kept_names(&live_file).filter(|name| name.symlink_metadata().is_ok()) {
        if id(&name) == own {
            fs::remove_file(&name).map_err(|source| {
                let detail = format!("its second name {} cannot be removed: {source}", name.display());
                refused(live, DatabaseFault::Unwritable, detail)
            })?;
        }
    }
    Ok(())
}

fn refused(path: &Path, fault: DatabaseFault, detail: String) -> Error {
    Error::database(fault, path, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_name_of_a_killed_swap_is_removed_and_no_other_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let name = |ending: &str| folder.path().join(format!("a.db{ending}"));
        for ending in ["", ".replaced-3"] {
            fs::write(name(ending), ending).expect("writes");
        }
        // `.replaced` was there before it, and was removed since.
        fs::hard_link(name(""), name(".replaced-2")).expect("links");
        forget_second_names(&name("")).expect("removes");
        let there = ["", ".replaced-2", ".replaced-3"].map(|ending| name(ending).exists());
        assert_eq!(there, [true, false, true]);
    }
}
