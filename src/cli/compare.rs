//! `catchment compare`: direct recording and recording through NATS, measured against each other on this machine.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::compare::{self, Arm, Callbacks, Codec, CompareError, Comparison, Options, Step, Work, arms, report};
use crate::config::Synchronous;
use crate::new_file::folder_of;
use anyhow::Context;
use clap::{Args, ValueEnum};

use super::failure::{Interrupted, UsageError};
use super::output::Output;
use super::progress::{Progress, is_watched};
use super::quantities::{duration, whole};
use super::server_program;
use super::settings::UnusedFileArgs;
use super::shell;
use super::signals::Signals;
use super::values::counted;

/// The width where output is no terminal.
const DEFAULT_WIDTH: usize = 120;

/// Measure on this machine what it costs to record events directly and through NATS
///
/// Each run has a database, a broker and a stream of its own, on a disk of this machine. A run ends when the last commit is
/// seen, and it counts only if every row is there. The arms take turns in a random order (--seed). Ctrl-C removes everything
/// that was started; if every arm has figures by then, they are reported. Exit status 1 if an arm failed or a figure is worse
/// than in the --baseline, 130 or 143 if it was interrupted.
#[allow(clippy::struct_excessive_bools, reason = "flags")]
#[derive(Args)]
pub struct Compare {
    #[command(flatten)]
    unused: UnusedFileArgs,

    /// The arms, separated by commas; the others are compared with the first
    #[arg(long, value_name = "ARM", value_delimiter = ',', value_parser = arm, default_value = "direct-per-event,direct-grouped,core-nats,jetstream,jetstream-sync-always,spooled")]
    arms: Vec<Arm>,

    /// Finish within two minutes on two cores: shorter runs and experiments
    #[arg(long)]
    quick: bool,

    /// Choose the number of events for each arm so that its runs take at least this long [default: 1s, 250ms with --quick]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    run_for: Option<Duration>,

    /// Events of every run, the same for all arms [default: as many as --run-for needs]
    #[arg(long, value_name = "EVENTS", value_parser = whole::<u64>(0..=u64::MAX, 100_000), conflicts_with = "run_for")]
    events: Option<u64>,

    /// Runs of each arm; fewer than 6 show no difference
    #[arg(long, value_name = "RUNS", default_value_t = 10, value_parser = whole::<usize>(0..=u64::MAX, 10))]
    pairs: usize,

    /// Start no further pair of runs after this long for each arm [default: 2m, 7s with --quick]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    budget: Option<Duration>,

    /// Start no further run of the cost curve and no further axis after this long [default: none, 100s with --quick]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    within: Option<Duration>,

    /// Threads that record
    #[arg(long, value_name = "THREADS", default_value_t = 1, value_parser = whole::<usize>(0..=u64::MAX, 2))]
    producers: usize,

    /// Threads that write the database, in arms that commit many events at a time
    #[arg(long, value_name = "THREADS", default_value_t = 1, value_parser = whole::<usize>(0..=u64::MAX, 2))]
    writers: usize,

    /// The most events of a transaction, in arms that commit many events at a time
    #[arg(long, value_name = "EVENTS", default_value_t = 5_000, value_parser = whole::<usize>(0..=u64::MAX, 5000))]
    batch: usize,

    /// PRAGMA synchronous of the databases
    #[arg(long, value_name = "WHEN", value_enum, default_value = "full")]
    synchronous: SynchronousArg,

    /// How events are encoded
    #[arg(long, value_name = "CODEC", value_enum, default_value = "json")]
    codec: CodecArg,

    /// What the database does for each event: insert a row; insert+stats also counts events by subject;
    /// insert+stats+prune also keeps a log of the latest thousand
    #[arg(long, value_name = "WORK", value_parser = work, default_value = "insert")]
    work: Work,

    /// Events a second in runs at a fixed rate [default: half of what the slowest run reached, at most 1000]
    #[arg(long, value_name = "EVENTS", value_parser = whole::<u64>(1..=u64::MAX, 1000))]
    rate: Option<u64>,

    /// Measure idle CPU for this long [default: 5s, 1s with --quick]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    idle: Option<Duration>,

    /// Hold the database locked for this long, in the runs that measure a stall [default: 2s, 1s with --quick]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    stall: Option<Duration>,

    /// Keep the database side dead for this long, in the runs that kill it [default: 2s, 700ms with --quick]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    away: Option<Duration>,

    /// Keep the broker away for this long while events come; 0s leaves these runs out [default: 10s, 0s with --quick]
    ///
    /// Events come at --rate, else at half of what the arm reached, at most 1000 a second. Not with --server, whose server stays
    /// as it is.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    outage: Option<Duration>,

    /// Measure what an event costs in runs with these numbers of events [default: 1000,10000,100000, none with --quick]
    ///
    /// A run with 1000000 events takes minutes in the arms that commit or sync events one by one.
    #[arg(long, value_name = "EVENTS", value_delimiter = ',', value_parser = whole::<u64>(0..=u64::MAX, 1000), conflicts_with = "no_curve")]
    curve: Vec<u64>,

    /// Leave out the cost curve
    #[arg(long)]
    no_curve: bool,

    /// Leave out the axes: writers, producers, connections, batches and codecs varied one at a time
    #[arg(long)]
    no_axes: bool,

    /// Also measure the arms with a stream with these numbers of partitions, against a stream without [default: none]
    ///
    /// Each partition has a collector and a database of its own. Needs nats-server 2.10. They are measured with --no-axes too.
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',', value_parser = whole::<u32>(0..=u64::MAX, 2))]
    partitions: Vec<u32>,

    /// Leave out the profiles of application and collector
    #[arg(long)]
    no_hotspots: bool,

    /// Seed of the order of the runs and of the events
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = whole::<u64>(0..=u64::MAX, 1))]
    seed: u64,

    /// Keep databases and streams here during the comparison; it must be on a disk [default: target if it exists, else .]
    #[arg(long, value_name = "DIRECTORY")]
    directory: Option<PathBuf>,

    /// Use a running server, such as nats://127.0.0.1:4222, instead of one for each run; its CPU is not measured
    ///
    /// Without this option each run starts the program $NATS_SERVER_BIN, or nats-server from the PATH.
    #[arg(long, value_name = "URL")]
    server: Option<String>,

    /// Print JSON with all raw samples instead of the report
    #[arg(short, long)]
    json: bool,

    /// Also write a report to this file: .json with all raw samples, .md or .html; may be repeated
    #[arg(long, value_name = "FILE")]
    report: Vec<PathBuf>,

    /// Compare with the JSON of an earlier comparison; exit status 1 if a figure became worse
    ///
    /// The settings must be the same. The runs get the numbers of events of the earlier ones.
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,

    /// Delete a row of this arm before the rows are checked, to test the check
    #[arg(long, value_name = "ARM", hide = true, value_parser = arm)]
    lose_a_row: Option<Arm>,
}

#[derive(Clone, Copy, ValueEnum)]
enum SynchronousArg {
    /// A commit returns when it is on the disk
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
    arms::named(name).ok_or_else(|| format!("expected one of {}", names()))
}

fn work(name: &str) -> Result<Work, String> {
    let names = || Work::ALL.map(Work::name).join(", ");
    Work::ALL.into_iter().find(|work| work.name() == name).ok_or_else(|| format!("expected one of {}", names()))
}

impl Compare {
    /// Compares and prints the report.
    pub fn run(&self) -> anyhow::Result<()> {
        let signals = Signals::catch()?;
        let files = self.files()?;
        let baseline = self.baseline()?;
        let options = self.options(baseline.as_ref())?;
        options.validate().map_err(|error| UsageError(with_flag(&error)))?;
        if let Some(baseline) = &baseline {
            report::check_baseline(&options, baseline).map_err(|error| UsageError(error.to_string()))?;
        }
        let progress = Progress::of_steps();
        let lines = ProgressLines::default();
        let found = compare::compare(
            &options,
            &Callbacks {
                progress: &|step: &Step| {
                    progress.step(step.number + 1, step.of, in_words(step));
                    lines.show(step);
                },
                stop: &|| signals.end_asked(),
            },
        );
        progress.clear();
        let found = match found {
            Err(CompareError::Stopped) => return Err(interrupted(&signals, CompareError::Stopped.to_string())),
            // The error has its cause in its own line.
            found => found.map_err(|error| anyhow::anyhow!(with_flag(&error)))?,
        };
        for (file, written) in &files {
            fs::write(file, written(&found)).with_context(|| format!("cannot write {}", file.display()))?;
        }
        let printed = self.print(&found, baseline.as_ref());
        if !files.is_empty() {
            let names: Vec<String> = files.iter().map(|(file, _)| file.display().to_string()).collect();
            log::info!("wrote {}", names.join(", "));
        }
        if found.stopped {
            printed?;
            return Err(interrupted(&signals, "stopped before it was done; the report has what was measured".into()));
        }
        match found.errors.as_slice() {
            [] => printed,
            [error] => anyhow::bail!("{error}"),
            [first, rest @ ..] => anyhow::bail!("{first}; the report has {} more errors", rest.len()),
        }
    }

    fn options(&self, baseline: Option<&Comparison>) -> anyhow::Result<Options> {
        let defaults = if self.quick { Options::default().quick() } else { Options::default() };
        Ok(Options {
            arms: self.arms.clone(),
            events: self.events,
            events_of: match baseline {
                Some(baseline) if self.events.is_none() => {
                    baseline.arms.iter().filter(|arm| !arm.runs.is_empty()).map(|arm| (arm.arm, arm.events)).collect()
                }
                _ => BTreeMap::new(),
            },
            run_for: self.run_for.unwrap_or(defaults.run_for),
            pairs: self.pairs,
            budget: self.budget.or(defaults.budget),
            limit: self.within.or(defaults.limit),
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
            idle_for: self.idle.unwrap_or(defaults.idle_for),
            stall_for: self.stall.unwrap_or(defaults.stall_for),
            away_for: self.away.unwrap_or(defaults.away_for),
            outage_for: self.outage.unwrap_or(defaults.outage_for),
            curve: match self.curve.as_slice() {
                _ if self.no_curve => Vec::new(),
                [] => defaults.curve.clone(),
                given => given.to_vec(),
            },
            axis_runs: if self.no_axes && self.partitions.is_empty() { 0 } else { defaults.axis_runs },
            partitions: self.partitions.clone(),
            only_partitions: self.no_axes,
            flamegraphs: self.report.first().map(|file| file.with_extension("")),
            profile_for: if self.no_hotspots { Duration::ZERO } else { defaults.profile_for },
            seed: self.seed,
            directory: self.directory.clone().unwrap_or_else(default_directory),
            server: self.server.clone(),
            nats_server: server_program::find().unwrap_or_else(|_| "nats-server".into()),
            program: std::env::current_exe().context("the path of this program cannot be found")?,
            command: command_line(std::env::args_os()),
            lose_a_row: self.lose_a_row,
            ..defaults
        })
    }

    /// The files to write, and what writes them. Checks before the measurement, not minutes later, that they can be written.
    fn files<'a>(&'a self) -> anyhow::Result<Vec<(&'a PathBuf, Written)>> {
        let refused = |file: &PathBuf, remedy: &str| -> anyhow::Error {
            UsageError(format!("cannot write {}; {remedy}", file.display())).into()
        };
        let one = |file: &'a PathBuf| {
            if !folder_of(file).is_dir() || file.is_dir() {
                return Err(refused(file, "name a file in a directory that exists"));
            }
            match file.extension().and_then(|extension| extension.to_str()) {
                Some("json") => Ok((file, report::json as Written)),
                Some("md") => Ok((file, report::markdown as Written)),
                Some("html") => Ok((file, report::html as Written)),
                _ => Err(refused(file, "its name has to end with .json, .md or .html")),
            }
        };
        self.report.iter().map(one).collect()
    }

    /// Prints the report and what differs from the baseline; regressions are an error.
    fn print(&self, found: &Comparison, baseline: Option<&Comparison>) -> anyhow::Result<()> {
        let mut output = Output::optional();
        write!(output, "{}", if self.json { report::json(found) } else { report::terminal(found, width()) })?;
        let mut lines = Vec::new();
        let mut worse = 0;
        if let Some(baseline) = baseline {
            lines = report::notes(found, baseline);
            let regressions = report::regressions(found, baseline)?;
            worse = regressions.len();
            lines.extend(regressions.iter().map(|regression| format!("worse than the baseline: {regression}")));
        }
        for line in lines {
            if self.json {
                log::warn!("{line}");
            } else {
                writeln!(output, "{line}")?;
            }
        }
        output.flush()?;
        anyhow::ensure!(worse == 0, "worse than the baseline in {}", counted(worse as u64, "figure"));
        Ok(())
    }

    /// The earlier comparison, read before the new one is made.
    fn baseline(&self) -> anyhow::Result<Option<Comparison>> {
        let Some(file) = &self.baseline else { return Ok(None) };
        let refused = |why: String| UsageError(format!("baseline {}: {why}", file.display()));
        let text = fs::read_to_string(file).map_err(|error| refused(format!("cannot read it: {error}")))?;
        Ok(Some(report::from_json(&text).map_err(|error| refused(error.to_string()))?))
    }
}

/// The text of an error, with the flag that it is about.
fn with_flag(error: &CompareError) -> String {
    match error {
        CompareError::Option { .. } => format!("--{error}"),
        CompareError::Directory { .. } => format!("{error} (--directory)"),
        error => error.to_string(),
    }
}

/// Writes a comparison as text.
type Written = fn(&Comparison) -> String;

fn interrupted(signals: &Signals, message: String) -> anyhow::Error {
    match signals.interrupted() {
        Some(status) => Interrupted { message, status }.into(),
        None => anyhow::anyhow!(message),
    }
}

/// What a step does, and how long the rest takes.
fn in_words(step: &Step) -> String {
    format!("{}, {} left", step.what, about(step.left))
}

/// `about 4 min`, `about 30 s`.
fn about(time: Duration) -> String {
    match time.as_secs() {
        seconds if seconds >= 90 => format!("about {} min", (seconds + 30) / 60),
        seconds => format!("about {} s", seconds.div_ceil(10).max(1) * 10),
    }
}

/// Shows where a comparison is, now and then, where there is no progress line.
#[derive(Default)]
struct ProgressLines(Cell<Option<Instant>>);

impl ProgressLines {
    /// The pause between two lines.
    const PAUSE: Duration = Duration::from_secs(30);

    fn show(&self, step: &Step) {
        if !is_watched() && self.0.get().is_none_or(|last| last.elapsed() >= Self::PAUSE) {
            self.0.set(Some(Instant::now()));
            log::info!("compare: step {} of {}, {}", step.number + 1, step.of, in_words(step));
        }
    }
}

/// Columns of the terminal; a fixed width for a pipe or a file.
fn width() -> usize {
    comfy_table::Table::new().width().map_or(DEFAULT_WIDTH, usize::from)
}

fn default_directory() -> PathBuf {
    let target = PathBuf::from("target");
    if target.is_dir() { target } else { ".".into() }
}

/// Flags whose values are secrets. Some belong to other commands and are here only by mistake.
const SECRET: [&str; 6] = ["--password", "--token", "--creds", "--nkey", "--jwt", "--tlskey"];

/// The command line, so that it can be repeated, without the path of the program and without secrets.
fn command_line(arguments: impl Iterator<Item = OsString>) -> String {
    let mut hidden = false;
    let words = arguments.skip(1).map(|word| {
        let word = word.to_string_lossy().into_owned();
        let follows = std::mem::replace(&mut hidden, SECRET.contains(&word.as_str()));
        let word = match word.split_once('=') {
            _ if follows => "***".into(),
            Some((flag, _)) if SECRET.contains(&flag) => format!("{flag}=***"),
            _ if word.contains("://") || word.contains('@') => addresses(&word),
            _ => word,
        };
        shell::word(&word).into_owned()
    });
    std::iter::once("catchment".to_owned()).chain(words).collect::<Vec<_>>().join(" ")
}

/// Servers without secrets; they are separated by commas and may follow a flag and `=`.
fn addresses(word: &str) -> String {
    let (flag, servers) = match word.split_once('=') {
        Some((flag, servers)) if flag.starts_with('-') => (format!("{flag}="), servers),
        _ => (String::new(), word),
    };
    let shown: Vec<String> = servers.split(',').map(crate::config::without_secrets).collect();
    format!("{flag}{}", shown.join(","))
}

/// The application that `catchment compare` starts; it takes its job from standard input
#[derive(Args)]
pub struct Application {}

impl Application {
    /// Does its job.
    #[allow(clippy::unused_self, reason = "commands are run alike")]
    pub fn run(&self) -> anyhow::Result<()> {
        let input = std::io::BufReader::new(std::io::stdin());
        compare::application::serve(input, &mut std::io::stdout(), || std::process::exit(1))
            .map_err(|error| anyhow::anyhow!(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_shown_in_round_figures() {
        let shown = [1, 34, 89, 90, 260].map(|seconds| about(Duration::from_secs(seconds)));
        assert_eq!(shown, ["about 10 s", "about 40 s", "about 90 s", "about 2 min", "about 4 min"]);
    }

    #[test]
    fn the_command_line_can_be_repeated_and_has_no_secret() {
        let words = ["/x/catchment", "compare", "--server", "nats://me:hunter2@a:1", "--json", "my file"];
        let line = command_line(words.iter().map(OsString::from));
        assert_eq!(line, "catchment compare --server nats://a:1 --json 'my file'");
        let words =
            ["x", "compare", "--password", "hunter2", "--token=hunter2", "-s", "nats://me:hunter2/a,b", "a/b=c"];
        let line = command_line(words.iter().map(OsString::from));
        assert_eq!(line, "catchment compare --password '***' '--token=***' -s 'nats://me:***,b' a/b=c");
    }
}
