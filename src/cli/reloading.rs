//! Reads the settings of `catchment run` again while it collects, at SIGHUP. The log and the lock file report the outcome.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Receiver, TryRecvError};

use super::failure;
use super::settings::Settings;
use crate::error::Error;
use crate::store::ReloadNote;
use crate::{Collector, Config, Reloaded};

/// The reloads of a collector.
pub struct Reloads<'c> {
    collector: &'c Arc<Collector>,
    settings: &'c Settings,
    note: ReloadNote,
    under_way: Option<UnderWay>,
}

/// A reload under way, on a thread of its own: a stop does not wait for it.
struct UnderWay {
    config: Config,
    outcome: Receiver<Result<Reloaded, Error>>,
}

impl<'c> Reloads<'c> {
    /// From now on `catchment reload` may request one.
    pub fn new(collector: &'c Arc<Collector>, settings: &'c Settings) -> Self {
        let note = ReloadNote { file: settings.file().map(absolute), ..ReloadNote::default() };
        collector.note_reloads(&note);
        Self { collector, settings, note, under_way: None }
    }

    /// Whether one is under way.
    pub fn is_busy(&self) -> bool {
        self.under_way.is_some()
    }

    /// Begins one with the settings that `read` returns; `false` if they cannot be used. Does not block for longer than reading takes.
    pub fn begin(&mut self, read: impl FnOnce() -> Result<Config, Error>) -> bool {
        self.note.begin();
        self.collector.note_reloads(&self.note);
        let begun = read().map_err(Into::into).and_then(|config| {
            UnderWay::begin(self.collector, config).map_err(|error| anyhow::anyhow!("no thread for it: {error}"))
        });
        match begun {
            Ok(begun) => self.under_way = Some(begun),
            Err(error) => self.refused(&error),
        }
        self.is_busy()
    }

    /// Reports the outcome of one that has ended, and returns whether one has. Does not block.
    pub fn report(&mut self) -> bool {
        let Some(UnderWay { config, outcome }) = &self.under_way else { return false };
        let outcome = match outcome.try_recv() {
            Ok(outcome) => outcome,
            Err(TryRecvError::Empty) => return false,
            // The thread has panicked, and the log has the panic.
            Err(TryRecvError::Disconnected) => Err(Error::Ended),
        };
        match outcome {
            Ok(reloaded) => {
                let mut text = match &reloaded.changed[..] {
                    [] => "nothing differs".to_owned(),
                    changed => format!("changed {}", changed.join(", ")),
                };
                let file = self.settings.file().map(|file| format!(" from {}", file.display())).unwrap_or_default();
                log::info!(event = "settings.reloaded", changed = text; "settings: reloaded{file}: {text}");
                for migration in reloaded.pending_migrations {
                    let waits = format!("migration {migration} waits for a restart: a reload applies none");
                    let path = config.database.path.display();
                    log::warn!(
                        event = "migration.pending", database:% = path, migration = migration;
                        "database {path}: {waits}"
                    );
                    text = format!("{text}; {waits}");
                }
                self.note.end(true, &text);
                self.collector.note_reloads(&self.note);
            }
            Err(error) => {
                let error = self.settings.with_place(self.settings.with_line(error, config));
                self.refused(&failure::of_start(error));
            }
        }
        self.under_way = None;
        true
    }

    fn refused(&mut self, why: &anyhow::Error) {
        let why = failure::line(why);
        log::error!(event = "settings.refused", reason = why; "settings: not reloaded, nothing was changed: {why}");
        self.note.end(false, &why);
        self.collector.note_reloads(&self.note);
    }
}

/// The path as another process finds it.
fn absolute(file: &Path) -> PathBuf {
    std::path::absolute(file).unwrap_or_else(|_| file.to_owned())
}

impl UnderWay {
    fn begin(collector: &Arc<Collector>, config: Config) -> std::io::Result<Self> {
        let (done, outcome) = crossbeam_channel::bounded(1);
        let (collector, new) = (Arc::clone(collector), config.clone());
        let reload = move || {
            // Nobody receives it if the collector was stopped meanwhile.
            let _ = done.send(collector.reload(&new));
        };
        thread::Builder::new().name("catchment-reload".into()).spawn(reload)?;
        Ok(Self { config, outcome })
    }
}
