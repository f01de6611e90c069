//! `catchment compare`: the ways an event may go, measured against each other on this machine.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use catchment::compare::{self, Arm, Codec, Comparison, Options, Step, Surroundings, Work, arms};
use catchment::config::Synchronous;
use clap::{Args, ValueEnum};

use super::failure::Usage;
use super::output::Output;
use super::progress::Progress;
use super::signals::Signals;

/// Measure on this machine what it costs to record events directly, and through NATS
///
/// Each run has a database of its own, and a broker and a stream of its own, on a disk of this machine; it ends when the last
/// commit is seen, and counts only if every row is there. The arms take turns in an order drawn by --seed. Ctrl-C leaves
/// nothing behind. Exit status 1 where an arm failed.
#[derive(Args)]
pub struct Compare {
    /// The arms, separated by commas; the others are compared with the first
    #[arg(long, value_name = "ARM", value_delimiter = ',', value_parser = arm, default_value = "direct-per-event,direct-grouped,core-nats,jetstream,jetstream-sync-always")]
    arms: Vec<Arm>,

    /// Within two minutes on two cores: fewer events, shorter experiments
    #[arg(long)]
    quick: bool,

    /// Events a run [default: 10000, 1000 with --quick]
    #[arg(long, value_name = "EVENTS")]
    events: Option<u64>,

    /// Runs of each arm
    #[arg(long, value_name = "RUNS", default_value_t = 10)]
    pairs: usize,

    /// Make no more pairs after this long for each arm [default: 2m, 6s with --quick]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    budget: Option<Duration>,

    /// Threads that record
    #[arg(long, value_name = "THREADS", default_value_t = 1)]
    producers: usize,

    /// Threads that write the database, where not each event is committed by itself
    #[arg(long, value_name = "THREADS", default_value_t = 1)]
    writers: usize,

    /// Events a transaction, at most, where events share one
    #[arg(long, value_name = "EVENTS", default_value_t = 5_000)]
    batch: usize,

    /// When a commit counts as done
    #[arg(long, value_name = "WHEN", value_enum, default_value = "full")]
    synchronous: SynchronousArg,

    /// How events are written
    #[arg(long, value_name = "CODEC", value_enum, default_value = "json")]
    codec: CodecArg,

    /// What the database does for each event: insert; insert+stats counts by subject; insert+stats+prune also keeps a log of
    /// the latest thousand
    #[arg(long, value_name = "WORK", value_parser = work, default_value = "insert")]
    work: Work,

    /// Events a second where events come at a rate [default: half of what the slowest run managed, at most 1000]
    #[arg(long, value_name = "EVENTS", value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,

    /// Leave out the axes: writers, producers, connections, batches and codecs varied one at a time
    #[arg(long)]
    no_axes: bool,

    /// Seed of the order of the runs, and of the events
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,

    /// Where databases and streams are kept meanwhile: on a disk [default: target where there is one, else here]
    #[arg(long, value_name = "DIRECTORY")]
    directory: Option<PathBuf>,

    /// A server that runs already, as nats://127.0.0.1:4222, instead of one for each run: its CPU is not measured
    ///
    /// Without it the program is $NATS_SERVER_BIN, else nats-server on the PATH.
    #[arg(long, value_name = "URL")]
    server: Option<String>,

    /// Write all of it to this file, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Write a report to this file, as Markdown
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,

    /// Write a report to this file, as a page of HTML
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,

    /// Compare with this earlier --json; exit status 1 if anything became worse
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,

    /// Lose a row of this arm before it is checked, to see that the check sees it
    #[arg(long, value_name = "ARM", hide = true, value_parser = arm)]
    lose_a_row: Option<Arm>,
}

#[derive(Clone, Copy, ValueEnum)]
enum SynchronousArg {
    /// Every commit is on the disk when it returns
    Full,
    /// A power cut may take the last commits
    Normal,
}

#[derive(Clone, Copy, ValueEnum)]
enum CodecArg {
    Json,
    #[value(name = "messagepack")]
    MessagePack,
}

fn arm(name: &str) -> Result<Arm, String> {
    let names = || arms::ALL.map(arms::name).join(", ");
    arms::named(name).ok_or_else(|| format!("is no arm; there are {}", names()))
}

fn work(name: &str) -> Result<Work, String> {
    let names = || Work::ALL.map(Work::name).join(", ");
    Work::ALL.into_iter().find(|work| work.name() == name).ok_or_else(|| format!("is no work; there are {}", names()))
}

impl Compare {
    /// Compares, and tells.
    pub fn run(&self) -> anyhow::Result<()> {
        let signals = Signals::catch()?;
        let options = self.options()?;
        options.validate().map_err(|error| Usage(error.to_string()))?;
        let progress = Progress::new(Some(1), "runs");
        let found = compare::compare(
            &options,
            &Surroundings {
                progress: &|step: &Step| progress.step(step.number, step.of, &step.what),
                stop: &|| signals.end_asked(),
            },
        );
        progress.clear();
        let found = found?;
        self.write_files(&found)?;
        tell(&found)?;
        match found.errors.as_slice() {
            [] => Ok(()),
            [error] => anyhow::bail!("{error}"),
            [first, rest @ ..] => anyhow::bail!("{first}; and {} more such, which are in the report", rest.len()),
        }
    }

    fn options(&self) -> anyhow::Result<Options> {
        let program = |name: &str, default: &str| {
            std::env::var_os(name).filter(|name| !name.is_empty()).map_or_else(|| PathBuf::from(default), PathBuf::from)
        };
        let defaults = if self.quick { Options::default().quick() } else { Options::default() };
        Ok(Options {
            arms: self.arms.clone(),
            events: self.events.unwrap_or(defaults.events),
            pairs: self.pairs,
            budget: self.budget.or(defaults.budget),
            producers: self.producers,
            writers: self.writers,
            batch: self.batch,
            synchronous: match self.synchronous {
                SynchronousArg::Full => Synchronous::Full,
                SynchronousArg::Normal => Synchronous::Normal,
            },
            codec: match self.codec {
                CodecArg::Json => Codec::Json,
                CodecArg::MessagePack => Codec::MessagePack,
            },
            work: self.work,
            rate: self.rate,
            axis_runs: if self.no_axes { 0 } else { defaults.axis_runs },
            seed: self.seed,
            directory: self.directory.clone().unwrap_or_else(usual_directory),
            server: self.server.clone(),
            nats_server: program("NATS_SERVER_BIN", "nats-server"),
            program: std::env::current_exe().context("cannot tell which program this is")?,
            command: command_line(std::env::args_os()),
            lose_a_row: self.lose_a_row,
            ..defaults
        })
    }

    fn write_files(&self, found: &Comparison) -> anyhow::Result<()> {
        if let Some(file) = &self.json {
            let mut text = serde_json::to_string_pretty(found)?;
            text.push('\n');
            write_file(file, &text)?;
        }
        for (file, what) in [(&self.markdown, "--markdown"), (&self.html, "--html"), (&self.baseline, "--baseline")] {
            anyhow::ensure!(file.is_none(), Usage(format!("{what} is not there yet; use --json")));
        }
        Ok(())
    }
}

fn write_file(file: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

fn usual_directory() -> PathBuf {
    let target = PathBuf::from("target");
    if target.is_dir() { target } else { ".".into() }
}

/// The command line as it can be typed again, less the path of the program and what stands in a server's address before `@`.
fn command_line(arguments: impl Iterator<Item = OsString>) -> String {
    let words = arguments.skip(1).map(|word| {
        let word = catchment::config::without_secrets(&word.to_string_lossy());
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./,:+@%".contains(c);
        if !word.is_empty() && word.chars().all(plain) { word } else { format!("'{}'", word.replace('\'', r"'\''")) }
    });
    std::iter::once("catchment".to_owned()).chain(words).collect::<Vec<_>>().join(" ")
}

/// The figures in a few lines, until there is a report for the terminal.
fn tell(found: &Comparison) -> anyhow::Result<()> {
    let mut output = Output::new();
    for arm in &found.arms {
        let name = arms::name(arm.arm);
        if let Some(why) = arm.skipped.as_ref().or(arm.error.as_ref()) {
            writeln!(output, "{name}: {why}")?;
            continue;
        }
        let median = |value: fn(&compare::Run) -> f64| {
            let mut values: Vec<f64> = arm.runs.iter().map(value).collect();
            values.sort_by(f64::total_cmp);
            values.get(values.len() / 2).copied().unwrap_or(0.0)
        };
        let total = median(|run| run.total_s);
        let cpu = median(|run| run.processes.values().map(|process| process.cpu_s).sum());
        let committed = median(|run| run.committed as f64);
        let wait = arm.latency.as_ref().map_or(0.0, |latency| latency.commit_us.p50 / 1e3);
        writeln!(
            output,
            "{name}: {:.1} ms, {:.0} events/s, {:.1} ms of CPU, {wait:.2} ms to the commit at {}/s, {} runs; {}",
            total * 1e3,
            committed / total.max(1e-9),
            cpu * 1e3,
            found.settings.rate,
            arm.runs.len(),
            arm.promise
        )?;
    }
    Ok(output.flush()?)
}

/// What `catchment compare` starts as the application: told by standard input, heard by standard output
#[derive(Args)]
pub struct Application {}

impl Application {
    /// Does what it is told.
    #[allow(clippy::unused_self, reason = "commands are run alike")]
    pub fn run(&self) -> anyhow::Result<()> {
        let input = std::io::BufReader::new(std::io::stdin());
        Ok(compare::application::serve(input, &mut std::io::stdout(), || std::process::exit(1))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_can_be_typed_again_and_has_no_secret() {
        let words = ["/x/catchment", "compare", "--server", "nats://me:hunter2@a:1", "--json", "my file"];
        let line = command_line(words.iter().map(OsString::from));
        assert_eq!(line, "catchment compare --server nats://a:1 --json 'my file'");
    }
}
