//! What the system reports of this process. Linux has it in `/proc`; elsewhere these figures are 0.

use std::path::Path;
use std::sync::OnceLock;

use super::snapshot::ProcessFigures;
use crate::new_file::folder_of;
use crate::store::unlinked;

/// Clock ticks of a second in `/proc`: fixed at 100 for programs, <https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html>.
const TICKS: f64 = 100.0;

impl ProcessFigures {
    /// The figures now.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "CPU time needs no more digits")]
    pub(super) fn read() -> Self {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let kib = |name: &str| field(&status, name).map_or(0, |kib| kib.saturating_mul(1024));
        let ticks = stat_numbers(&stat, &[14, 15]);
        Self {
            cpu_seconds: ticks.iter().sum::<u64>() as f64 / TICKS,
            resident_bytes: kib("VmRSS:"),
            virtual_bytes: kib("VmSize:"),
            threads: field(&status, "Threads:").unwrap_or(0),
            // The one that reads the folder is not counted.
            open_files: std::fs::read_dir("/proc/self/fd").map_or(0, |files| files.count().saturating_sub(1) as u64),
            max_open_files: max_open_files(),
            started_unix_seconds: *STARTED.get_or_init(|| started(&stat)),
        }
    }
}

static STARTED: OnceLock<f64> = OnceLock::new();

/// When the process started, in seconds since 1970.
#[allow(clippy::cast_precision_loss, reason = "seconds need no more digits")]
fn started(stat: &str) -> f64 {
    let system = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let booted = field(&system, "btime ").unwrap_or(0);
    stat_numbers(stat, &[22]).first().map_or(0.0, |ticks| booted as f64 + *ticks as f64 / TICKS)
}

/// Fields of `/proc/<pid>/stat`, numbered from 1. The second one is the name in brackets, which may have anything in it.
fn stat_numbers(stat: &str, fields: &[usize]) -> Vec<u64> {
    let rest: Vec<&str> = stat.rsplit_once(") ").map_or_else(Vec::new, |(_, rest)| rest.split(' ').collect());
    fields.iter().filter_map(|field| rest.get(field - 3)?.parse().ok()).collect()
}

/// The number in the line that begins with this name.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

fn max_open_files() -> Option<u64> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Free space on the disk of a database that this user can use.
pub(super) fn disk_free(database: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(folder_of(&unlinked(database))).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_after_a_name_with_anything_in_it_are_found() {
        let stat = "17 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 7 0 4242 1 2";
        assert_eq!(stat_numbers(stat, &[14, 15, 20, 22]), [150, 50, 7, 4242]);
        assert_eq!(field("Name:\tx\nVmRSS:\t  12 kB\n", "VmRSS:"), Some(12));
        assert_eq!((field("", "VmRSS:"), stat_numbers("", &[14])), (None, Vec::new()));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_memory_threads_and_files() {
        let now = ProcessFigures::read();
        assert!(now.resident_bytes > 100_000 && now.virtual_bytes >= now.resident_bytes, "{now:?}");
        assert!(now.threads >= 1 && now.open_files >= 3 && now.max_open_files >= Some(now.open_files), "{now:?}");
        assert!(now.started_unix_seconds > 1.6e9, "{now:?}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_disk_is_that_of_the_file_behind_a_link() {
        let folder = tempfile::tempdir().expect("a folder");
        let link = folder.path().join("a.db");
        // No space is ever free there.
        std::os::unix::fs::symlink("/proc/a.db", &link).expect("a link");
        assert_eq!(disk_free(&link), Some(0));
        assert!(disk_free(&folder.path().join("b.db")) > Some(0));
    }
}
