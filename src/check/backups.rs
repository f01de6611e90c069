//! Whether the backups that the settings ask for are made.

use super::finding::ReportBuilder;
use crate::config::Config;
use crate::store::{CopyLimits, ScheduledBackups};

/// Looks at the names in the folder of the backups. Without `[backup]` there is nothing to say.
pub(super) fn check(config: &Config, report: &mut ReportBuilder<'_>) {
    let Some(folder) = config.backup.folder.clone() else { return };
    // A new database has none yet, and nothing to lose.
    if !config.database.path.exists() {
        return;
    }
    let shown = folder.display().to_string();
    let (every, keep) = (config.backup.every, config.backup.keep);
    let limits = CopyLimits { rate: None, wal: config.backup.max_wal.as_u64() };
    let backups = ScheduledBackups { database: config.database.path.clone(), folder, every, keep, limits };
    let remedy = "let the collector run, and see why a backup fails: catchment status";
    match backups.age_of_last() {
        None => report.warning("backup", format!("there is none in {shown}"), remedy),
        // One is made within a while after it is due.
        Some(age) if age > every * 2 => {
            let hours = age.as_secs() / 3_600;
            report.warning("backup", format!("the last one in {shown} is {hours} hours old"), remedy);
        }
        Some(age) => {
            report.measure("backup_age_seconds", "How old the last backup is.", age.as_secs());
            report.ok("backup", format!("the last one in {shown} is {} minutes old", age.as_secs() / 60));
        }
    }
}
