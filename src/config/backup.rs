//! Scheduled backups: `[backup]`.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use serde::Deserialize;

use crate::error::Error;

/// The shortest and the longest time from one backup to the next.
const EVERY: RangeInclusive<Duration> = Duration::from_secs(60)..=Duration::from_secs(366 * 86_400);

/// How many backups may be kept.
const KEEP: RangeInclusive<usize> = 1..=10_000;

/// The least size of `max_wal`: the WAL has 64 MiB in everyday use.
const LEAST_WAL: ByteSize = ByteSize::mib(128);

/// Backups that a collector makes by itself: `[backup]`. One is made as soon as the last one is older than `every`, also if the collector
/// did not run when it was due.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct BackupConfig {
    /// The folder for them; made if its parent exists. A backup of `chat.db` is `chat-20261126T185959Z.db`, with the time in UTC at which
    /// it began. Default none: no backups are made.
    pub folder: Option<PathBuf>,
    /// The time from one backup to the next. From a minute to 366 days. Default a day.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "cli", schemars(with = "crate::config::schema_types::Time"))]
    pub every: Duration,
    /// How many are kept, 1 to 10,000. After each new one, older backups of the same database beyond these are removed; other files stay.
    /// Default 7.
    pub keep: usize,
    /// How many bytes a second are copied at most. Zero is no limit. Default 32 MiB.
    #[cfg_attr(feature = "cli", schemars(with = "crate::config::schema_types::Size"))]
    pub rate: ByteSize,
    /// How large the file `-wal` of the database may be at most, at least 128 MiB: it grows with each commit while a backup is copied. From
    /// half of that on, `rate` does not count. At the limit the backup fails, and is tried again later. Default 1 GiB.
    #[cfg_attr(feature = "cli", schemars(with = "crate::config::schema_types::Size"))]
    pub max_wal: ByteSize,
}

impl Default for BackupConfig {
    fn default() -> Self {
        Self {
            folder: None,
            every: Duration::from_secs(86_400),
            keep: 7,
            rate: ByteSize::mib(32),
            max_wal: ByteSize::gib(1),
        }
    }
}

impl BackupConfig {
    /// Checks every setting. Looks at no file.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        if self.folder.as_ref().is_some_and(|folder| folder.as_os_str().is_empty()) {
            return Err(Error::config("backup.folder", "is empty").with_remedy("name a folder, or leave it out"));
        }
        if !EVERY.contains(&self.every) {
            let detail = format!("is {:?}; it can be from a minute to 366 days", self.every);
            return Err(Error::config("backup.every", detail));
        }
        if !KEEP.contains(&self.keep) {
            let detail = format!("is {}; it can be from {} to {}", self.keep, KEEP.start(), KEEP.end());
            return Err(Error::config("backup.keep", detail));
        }
        if self.max_wal < LEAST_WAL {
            return Err(Error::config("backup.max_wal", format!("is {}; the least is {LEAST_WAL}", self.max_wal)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_cannot_be_used_are_refused() {
        type Change = fn(&mut BackupConfig);
        BackupConfig::default().validate().expect("is valid");
        let cases: [(&str, Change); 6] = [
            ("backup.folder: is empty", |config| config.folder = Some(PathBuf::new())),
            ("backup.every: is 1s; it can be from a minute", |config| config.every = Duration::from_secs(1)),
            ("backup.every: is 31708800s", |config| config.every = Duration::from_secs(367 * 86_400)),
            ("backup.keep: is 0; it can be from 1 to 10000", |config| config.keep = 0),
            ("backup.keep: is 10001", |config| config.keep = 10_001),
            ("backup.max_wal: is 1.0 MiB; the least is 128.0 MiB", |config| config.max_wal = ByteSize::mib(1)),
        ];
        for (words, change) in cases {
            let mut config = BackupConfig::default();
            change(&mut config);
            let refused = config.validate().expect_err(words).to_string();
            assert!(refused.contains(words), "{refused}");
        }
    }
}
