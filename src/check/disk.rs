//! Room on the database's disk.

use std::path::Path;

use bytesize::ByteSize;
use nix::sys::statvfs::statvfs;

use super::finding::Notebook;
use super::options::CheckOptions;
use crate::config::Config;

#[allow(clippy::useless_conversion, reason = "these numbers have 32 bits on some systems")]
pub(super) fn look(config: &Config, options: &CheckOptions, notes: &mut Notebook<'_>) {
    let folder = folder_of(&config.database.path);
    let free = match statvfs(folder) {
        Ok(disk) => ByteSize::b(u64::from(disk.blocks_available()).saturating_mul(u64::from(disk.fragment_size()))),
        Err(error) => {
            let way_out = "make the directory, or give another database.path";
            return notes.critical("disk", format!("{}: {}", folder.display(), error.desc()), way_out);
        }
    };
    notes.measure("disk_free_bytes", "Room on the disk of the database.", free.as_u64());
    let what = format!("{free} free at {}", folder.display());
    let way_out = "make room; while there is none nothing is committed, and the stream has to keep it";
    if free < options.disk_critical {
        notes.critical("disk", what, way_out);
    } else if free < options.disk_warning {
        notes.warning("disk", what, way_out);
    } else {
        notes.ok("disk", what);
    }
}

/// The folder a database is in, or will be.
pub(super) fn folder_of(database: &Path) -> &Path {
    database.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
