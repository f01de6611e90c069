//! `catchment status`: how the running collector of a database is.

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use clap::Args;

use super::failure::ExitStatus;
use super::figures::{mean, rate, size, time};
use super::output::Output;
use super::quantities::written_duration;
use super::settings::{DatabaseArgs, Settings};
use super::values::{counted, printable};
use crate::counted::count;
use crate::hint;
use crate::observe::seconds;
use crate::observe::{AskError, JobFigures, RetentionFigures, Snapshot, State, Trouble, ask, ask_snapshot};
use crate::store::{Lock, StartPhase};

/// Ask the running collector of a database how it is
///
/// Answers the question what the collector does now and what is wrong. For monitoring use check or health: the exit status 3 of status
/// says that no collector runs, and is not the unknown of monitoring plug-ins.
///
/// Asks over the socket beside the database, which only the user who runs the collector can use. Neither HTTP nor a broker is needed.
#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub struct Status {
    #[command(flatten)]
    database: DatabaseArgs,

    /// The longest that the answer may take
    #[arg(long, value_name = "TIME", value_parser = written_duration, default_value = "5s")]
    timeout: humantime::Duration,

    /// Print one JSON object: the figures that /status serves over HTTP
    #[arg(short, long)]
    json: bool,
}

const AFTER_HELP: &str = "\
Exit status: 0 all is well; 1 degraded: something is wrong and events are still committed, or the collector is starting or stopping; 2 \
failed: no progress, or no answer; 3 no collector runs. Wrong usage is 2 too.
With --json, \"state\" is well, degraded, failed, starting, stopping or absent. If it is absent, or starting without an answer yet, the \
object has only \"format\", \"state\" and \"summary\".

Examples:
  catchment status
  catchment status --database chat.db --json | jq .lag.pending
  catchment status > /dev/null || echo look at it";

/// How it is if no collector answers.
pub struct Unanswered {
    /// `absent`, `starting` or `failed`.
    pub state: &'static str,
    /// One sentence.
    pub summary: String,
    status: u8,
}

impl Unanswered {
    /// What it means that the collector of this database did not answer.
    pub fn of(database: &Path, error: AskError) -> Self {
        let path = std::path::absolute(database).unwrap_or_else(|_| database.to_owned());
        let path = path.display();
        match (error, Lock::phase(database)) {
            (AskError::NoAnswer(reason) | AskError::Failed(reason), _) => {
                Self { state: "failed", summary: reason, status: 2 }
            }
            (AskError::NobodyRuns(_), None) => {
                let summary = format!("no collector uses {path}; {} starts one", hint::command("run"));
                Self { state: "absent", summary, status: 3 }
            }
            (AskError::NobodyRuns(_), Some(StartPhase::Running)) => {
                let holder = Lock::holder(database).ok().flatten().unwrap_or_else(|| "another process".into());
                let summary = format!(
                    "{holder} uses {path} and has no socket to be asked on: it is a program with a collector or recorder of its own, or \
                     just starting or stopping"
                );
                Self { state: "absent", summary, status: 3 }
            }
            (AskError::NobodyRuns(_), Some(_)) => {
                Self { state: "starting", summary: format!("the collector of {path} is starting"), status: 1 }
            }
        }
    }
}

impl Status {
    /// Asks once and prints the answer.
    pub fn run(&self, settings: &Settings) -> anyhow::Result<()> {
        let path = settings.for_database(&self.database)?.database.path;
        let mut output = Output::optional();
        let status = if self.json {
            self.print_json(&path, &mut output)?
        } else {
            match ask_snapshot(&path, *self.timeout) {
                Ok(snapshot) => {
                    print(&mut output, &snapshot)?;
                    status_of(snapshot.state)
                }
                Err(error) => {
                    let unanswered = Unanswered::of(&path, error);
                    writeln!(output, "{}: {}", unanswered.state, printable(&unanswered.summary))?;
                    unanswered.status
                }
            }
        };
        output.flush()?;
        if status == 0 { Ok(()) } else { Err(ExitStatus(status).into()) }
    }

    fn print_json(&self, path: &Path, output: &mut Output) -> anyhow::Result<u8> {
        let answer = ask(path, "/status", *self.timeout).and_then(|answer| {
            // The text is printed as it is: a collector of another version may have other fields.
            let state = serde_json::from_str::<OfAnyVersion>(&answer.body).ok().map(|answer| answer.state);
            match state {
                Some(state) if answer.status == 200 => Ok((answer.body, state)),
                _ => Err(AskError::Failed(format!("the collector answered with status {}", answer.status))),
            }
        });
        match answer {
            Ok((body, state)) => {
                writeln!(output, "{}", body.trim_end())?;
                Ok(status_of(state))
            }
            Err(error) => {
                let Unanswered { state, summary, status } = Unanswered::of(path, error);
                writeln!(output, "{}", serde_json::json!({ "format": 1, "state": state, "summary": summary }))?;
                Ok(status)
            }
        }
    }
}

/// The part of an answer that all versions have.
#[derive(serde::Deserialize)]
struct OfAnyVersion {
    state: State,
}

fn status_of(state: State) -> u8 {
    match state {
        State::Well => 0,
        State::Degraded | State::Starting | State::Stopping => 1,
        State::Failed => 2,
    }
}

/// The name of a state, as in JSON.
pub fn name_of(state: State) -> &'static str {
    match state {
        State::Starting => "starting",
        State::Well => "well",
        State::Degraded => "degraded",
        State::Failed => "failed",
        State::Stopping => "stopping",
    }
}

fn print(to: &mut impl Write, snapshot: &Snapshot) -> io::Result<()> {
    writeln!(to, "{}: {}", name_of(snapshot.state), printable(&snapshot.summary))?;
    for (label, value) in lines(snapshot) {
        writeln!(to, "  {label:<13}{}", printable(&value))?;
    }
    Ok(())
}

/// Labels and values. What does not apply is left out.
fn lines(snapshot: &Snapshot) -> Vec<(&'static str, String)> {
    let Snapshot { program, source, lag, totals, rates, queue, database, .. } = snapshot;
    let mut lines = Vec::new();
    let mut line = |label, value: String| lines.push((label, value));
    // The sentence at the top has the first one.
    for trouble in snapshot.reasons.iter().chain(&snapshot.troubles).skip(1) {
        if snapshot.reasons.first().or(snapshot.troubles.first()) != Some(trouble) {
            line("trouble", shown(trouble));
        }
    }
    let up = seconds(program.up_seconds);
    line(
        "collector",
        format!("version {}, process {}, since {} ({up})", program.version, program.pid, program.started),
    );
    let since = source.connected_since.as_deref().map(|since| format!(" since {since}")).unwrap_or_default();
    line(
        "broker",
        match &source.connected {
            Some(server) => format!("connected to {server}{since}, {}", counted(source.reconnects, "reconnect")),
            None => format!("not connected; servers: {}", source.servers),
        },
    );
    let subjects = source.subjects.join(", ");
    match &source.stream {
        Some(stream) => {
            let of = |partition| format!(", partition {partition} of {}", source.partitions.unwrap_or_default());
            let partition = source.partition.map(of).unwrap_or_default();
            line("stream", format!("{stream}{partition}, subjects {subjects}"));
        }
        None => line("subjects", format!("{subjects} (core NATS)")),
    }
    if let Some(position) = &snapshot.position {
        let published = position.published.as_deref().map(|at| format!(", published {at}")).unwrap_or_default();
        line("position", format!("sequence {} of epoch {}{published}", count(position.sequence), position.epoch));
    }
    let behind = lag.behind_seconds.filter(|behind| *behind > 0.0);
    let behind = behind.map(|behind| format!(", {} behind", time(Some(behind)))).unwrap_or_default();
    let waiting = count(queue.events);
    line("lag", format!("{} to come, {waiting} received and not committed{behind}", count(lag.pending)));
    line("rates", format!("{} received/s, {} committed/s", rate(rates.received), rate(rates.committed)));
    let ago = snapshot.last_commit_seconds.map(|ago| format!(", the last {} ago", seconds(ago))).unwrap_or_default();
    line("committed", format!("{} in {}{ago}", counted(totals.committed, "event"), batches(totals.batches)));
    let (commit, delay) = (&snapshot.commit_seconds, &snapshot.publish_to_commit_seconds);
    if commit.recent_count > 0 {
        let batch = mean(snapshot.batch_events.mean);
        line("commits", format!("{}, 99 % within {}; {batch} events each", time(commit.p50), time(commit.p99)));
        line("delay", format!("{} from publish to commit, 99 % within {}", time(delay.p50), time(delay.p99)));
    }
    for (number, what) in [
        (totals.lost, "events that the stream deleted before they were collected"),
        (totals.dropped, "events dropped because there was no room"),
        (totals.duplicates, "duplicates skipped"),
        (totals.unmatched_dropped, "events dropped because no route takes them"),
        (totals.commit_failures, "commits tried again"),
    ] {
        if number > 0 {
            line("", format!("{} {what}", count(number)));
        }
    }
    let stored = snapshot.dead_letters.stored.map_or("not known".into(), count);
    let last = snapshot.dead_letters.last.first();
    let last = last.map(|last| format!("; the last: {}, {}", last.subject, last.error)).unwrap_or_default();
    line("dead letters", format!("{stored} stored, {} since the start{last}", count(totals.dead_letters)));
    let free = database.disk_free_bytes.map(|free| format!(", {} free on its disk", size(free))).unwrap_or_default();
    let (file, wal) = (size(database.file_bytes), size(database.wal_bytes));
    line("database", format!("{}, {file}, WAL {wal}{free}", database.path));
    for job in &snapshot.upkeep {
        if let Some(label) = label_of(&job.name) {
            line(label, upkeep(job, &snapshot.retention));
        }
    }
    if totals.requests_answered + totals.requests_failed > 0 {
        let (all, failed) = (totals.requests_answered + totals.requests_failed, count(totals.requests_failed));
        line("queries", format!("{}, {failed} with an error", counted(all, "request")));
    }
    if let Some(incident) = snapshot.incidents.first() {
        let lasted = incident.lasted_seconds;
        let lasted = lasted.map_or("not over".into(), |seconds| format!("lasted {}", time(Some(seconds))));
        line("last error", format!("{}, {lasted}: {}: {}", incident.at, incident.part, incident.reason));
    }
    lines
}

/// The label of a task of the upkeep that was configured; `None` for those that every collector has.
fn label_of(task: &str) -> Option<&'static str> {
    match task {
        "backup" => Some("backup"),
        "quick_check" => Some("quick check"),
        "retention" => Some("retention"),
        _ => None,
    }
}

/// When a task of the upkeep last ran, how that ended, and when it is due next.
fn upkeep(job: &JobFigures, retention: &RetentionFigures) -> String {
    let took = job.took_seconds.map(|took| format!(", took {}", time(Some(took)))).unwrap_or_default();
    let last = job.last.as_deref().map_or("not yet since the start".into(), |last| format!("last {last}{took}"));
    let deleted = retention.rows.values().sum::<u64>();
    let deleted = if job.name == "retention" && deleted > 0 {
        format!("; {} deleted since the start", counted(deleted, "row"))
    } else {
        String::new()
    };
    let error = job.error.as_deref().map(|error| format!("; failed: {error}")).unwrap_or_default();
    let next = job.next.as_deref().map(|next| format!("; next {next}")).unwrap_or_default();
    format!("{last}{deleted}{error}{next}")
}

/// `1 batch`, `2 batches`.
pub fn batches(number: u64) -> String {
    format!("{} batch{}", count(number), if number == 1 { "" } else { "es" })
}

/// What is wrong, in one line.
pub fn shown(trouble: &Trouble) -> String {
    format!("{}, for {}: {}", trouble.part, seconds(trouble.for_seconds), trouble.reason)
}

/// How long one answer may take for a view that is drawn again and again.
pub const TIMEOUT: Duration = Duration::from_secs(2);
