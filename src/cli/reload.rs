//! `catchment reload`: a running collector reads its settings again.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;

use super::failure;
use super::output::Output;
use super::quantities::duration;
use super::settings::{DatabaseArgs, Settings};
use super::signals::Signals;
use crate::store::{Lock, LockHolder, ReloadNote, StartPhase};

/// How often to look for the outcome.
const POLL: Duration = Duration::from_millis(20);

/// How long to wait for a process that may just have been started.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Have the running collector of the database read its settings file again
///
/// Everything may change while a collector runs, except [broker], [database] and [observe]: these need a restart, and so do new migrations.
/// Either all settings are taken over or none: a file that cannot be used, or that changes one of these sections, changes nothing.
///
/// The collector uses the file, the flags and the variables that it was started with. This command finds it by the lock file of its database, and must
/// run as the same user or as root.
///
/// Exit status: 0 if the settings are in use now; 1 if they are not, with the reason.
#[derive(Args)]
pub struct Reload {
    #[command(flatten)]
    database: DatabaseArgs,

    /// Longest time to wait for the outcome
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    timeout: Duration,

    /// Print JSON: {"reloaded", "text", "process"}
    #[arg(short, long)]
    json: bool,
}

/// The outcome of a request.
struct Outcome {
    is_done: bool,
    text: String,
    process: u32,
}

impl Reload {
    /// Requests a reload, and waits for its outcome.
    pub fn run(&self, settings: &Settings) -> anyhow::Result<()> {
        // Settings that this command cannot read are not those that it was to have the collector take over.
        let config = settings
            .for_database(&self.database)
            .map_err(|error| anyhow::anyhow!("not reloaded, nothing was changed: {}", failure::line(&error.into())))?;
        let outcome = self.request(&config.database.path, settings.named_file())?;
        let mut output = Output::optional();
        if self.json {
            let Outcome { is_done, text, process } = &outcome;
            writeln!(output, "{}", serde_json::json!({ "reloaded": is_done, "text": text, "process": process }))?;
        } else if outcome.is_done {
            writeln!(output, "reloaded: {}", outcome.text)?;
        }
        output.flush()?;
        anyhow::ensure!(outcome.is_done, "not reloaded, nothing was changed: {}", outcome.text);
        Ok(())
    }

    /// `named` is the settings file that the user names for this command.
    fn request(&self, database: &Path, named: Option<&Path>) -> anyhow::Result<Outcome> {
        let (shown, signals) = (database.display(), Signals::catch()?);
        let until = Instant::now() + self.timeout;
        let (holder, before) = find(database, until, &signals)?;
        let process = holder.number();
        if let Some(named) = named {
            must_be_read(&before, named, process)?;
        }
        holder.request_reload().map_err(|why| anyhow::anyhow!("{why}; run this as the collector's user or as root"))?;
        loop {
            match Lock::reloads(database) {
                // One that had begun before may have read the settings before they were changed.
                Some(now) if now.ended > before.begun => {
                    return Ok(Outcome { is_done: now.is_done, text: now.text, process });
                }
                Some(_) => {}
                None => anyhow::bail!("database {shown}: process {process} has ended; see its log"),
            }
            if signals.end_asked() || Instant::now() >= until {
                let waited = self.timeout;
                anyhow::bail!("process {process} has not reported an outcome within {waited:?}; its log will have it");
            }
            std::thread::sleep(POLL);
        }
    }
}

/// Refuses a file that the collector does not read: what it says would not be taken over.
fn must_be_read(note: &ReloadNote, named: &Path, process: u32) -> anyhow::Result<()> {
    let is_same = |read: &PathBuf| match (read.canonicalize(), named.canonicalize()) {
        (Ok(read), Ok(named)) => read == named,
        // It is gone, or this user may not find it: the collector says so.
        _ => true,
    };
    let shown = named.display();
    match &note.file {
        Some(read) if !is_same(read) => anyhow::bail!(
            "not reloaded, nothing was changed: process {process} reads its settings from {}, not from {shown}; change that file, or restart \
             the collector with this one",
            read.display()
        ),
        None => anyhow::bail!(
            "not reloaded, nothing was changed: process {process} reads no settings file; restart it with {shown}"
        ),
        Some(_) => Ok(()),
    }
}

/// The collector of the database, and what it has noted about reloads. Waits for one that is starting.
fn find(database: &Path, until: Instant, signals: &Signals) -> anyhow::Result<(LockHolder, ReloadNote)> {
    let shown = database.display();
    let began = Instant::now();
    let mut running_since = None;
    loop {
        let holder = LockHolder::of(database);
        let holder = match (holder, Lock::reloads(database)) {
            (Ok(Some(holder)), Some(note)) => return Ok((holder, note)),
            (holder, _) => holder,
        };
        let is_over = signals.end_asked() || Instant::now() >= until;
        match (holder.map_err(|why| anyhow::anyhow!("database {shown}: {why}")), Lock::phase(database)) {
            // One that was started a moment ago may not have the lock yet, or is not ready.
            (_, None) if began.elapsed() < TIMEOUT && !is_over => {}
            (Ok(None), _) => {
                anyhow::bail!("database {shown}: no collector uses it; start one with {}", crate::hint::start(false))
            }
            (Err(why), _) => return Err(why),
            (Ok(Some(holder)), Some(StartPhase::Running))
                if running_since.get_or_insert_with(Instant::now).elapsed() >= TIMEOUT || is_over =>
            {
                let process = holder.number();
                anyhow::bail!(
                    "database {shown}: process {process} takes no reloads: it is not catchment run; restart it"
                )
            }
            (Ok(Some(holder)), _) if is_over => {
                anyhow::bail!("database {shown}: process {} is still starting; try again", holder.number())
            }
            _ => {}
        }
        std::thread::sleep(POLL);
    }
}
