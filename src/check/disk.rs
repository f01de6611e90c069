//! Free space on the disk of the database.

use bytesize::ByteSize;
use nix::sys::statvfs::statvfs;

use super::finding::ReportBuilder;
use super::options::CheckOptions;
use crate::config::Config;
use crate::new_file::folder_of;
use crate::store::unlinked;

#[allow(clippy::useless_conversion, reason = "these numbers have 32 bits on some systems")]
pub(super) fn check(config: &Config, options: &CheckOptions, report: &mut ReportBuilder<'_>) {
    let file = unlinked(&config.database.path);
    let folder = folder_of(&file);
    let free = match statvfs(folder) {
        Ok(disk) => ByteSize::b(u64::from(disk.blocks_available()).saturating_mul(u64::from(disk.fragment_size()))),
        Err(error) => {
            let remedy = "make the directory, or give another database.path";
            return report.critical("disk", format!("{}: {}", folder.display(), error.desc()), remedy);
        }
    };
    report.measure("disk_free_bytes", "Free space on the disk of the database.", free.as_u64());
    let what = format!("{free} free at {}", folder.display());
    let remedy = "make room; on a full disk nothing is committed, and events wait in the stream";
    if free < options.disk_critical {
        report.critical("disk", what, remedy);
    } else if free < options.disk_warning {
        report.warning("disk", what, remedy);
    } else {
        report.ok("disk", what);
    }
}
