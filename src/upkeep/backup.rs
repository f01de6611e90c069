//! Makes the backups that the settings ask for.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use super::job::Job;
use crate::error::Error;
use crate::pipeline::Signal;
use crate::store::ScheduledBackups;
use crate::task::Task;

/// How long to wait after a backup that failed.
const RETRY: Duration = Duration::from_secs(5 * 60);

/// Makes a backup as often as `every` says.
pub(crate) struct BackupJob {
    backups: ScheduledBackups,
    /// When the last one of this process was made: the names of the files count from then on, unless they are removed.
    made: Option<Instant>,
}

impl BackupJob {
    pub(crate) fn new(backups: ScheduledBackups) -> Self {
        Self { backups, made: None }
    }
}

impl Job for BackupJob {
    fn name(&self) -> &'static str {
        "backup"
    }

    fn due_in(&mut self) -> Option<Duration> {
        // If the last backup is removed, another one is made, but not again and again.
        let least = RETRY.min(self.backups.every);
        let pause = self.made.map_or(Duration::ZERO, |made| least.saturating_sub(made.elapsed()));
        Some(self.backups.due_in().max(pause))
    }

    fn run(&mut self, stop: &Signal) -> Result<(), Error> {
        let report = |_| if stop.is_raised() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        let began = Instant::now();
        let made = match self.backups.make(&Task::new("the backup", &report)) {
            Err(Error::Cancelled { .. }) if stop.is_raised() => return Ok(()),
            made => made?,
        };
        self.made = Some(Instant::now());
        let (file, bytes, positions) =
            (made.file.display(), bytesize::ByteSize::b(made.bytes), &made.contents.positions);
        let positions: Vec<String> = positions
            .iter()
            .map(|position| format!(", stream {} up to {}", position.stream, position.sequence))
            .collect();
        log::info!(
            event = "backup.made", file:% = file, bytes = made.bytes, seconds = began.elapsed().as_secs_f64(),
            removed = made.removed.len();
            "backup {file}: {bytes}{}", positions.concat()
        );
        Ok(())
    }

    fn retry_after(&self) -> Duration {
        RETRY
    }
}
