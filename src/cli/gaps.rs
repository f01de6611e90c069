//! `catchment gaps`: which sequences of the stream the database lacks, and which the stream no longer has.

use std::io::Write;

use clap::Args;
use indicatif::HumanCount;

use super::failure::ExitStatus;
use super::output::Output;
use super::settings::{BrokerArgs, DatabaseArgs, Settings};
use super::starting;
use super::table::{Grid, GridCell};
use super::task_progress::TaskProgress;
use super::values::{counted, shown_time};
use crate::error::Error;
use crate::maintenance::{self, GapRange, GapState, GapsOptions, GapsReport};

/// List the events that the stream has dropped, and whether they are in the database, also while a collector runs
///
/// A stream drops events by its limits (max_age, max_msgs, max_bytes, max_msgs_per_subject, times to live), by deletes and by purges.
/// Those that were gone before the collector could store them are lost; the ledger of the database has their ranges. The stream says
/// which others it no longer has: these are in the database.
#[derive(Args)]
#[command(after_help = "\
States:
  lost          not in the database, and the stream no longer had them when they were due
  uncollected   dropped by the stream, and the collector has not come to them yet
  before_first  gone before the first event was collected, so never due
  stored_later  missing once, and stored when the stream had them again
  returned      the stream has them again, and the next start stores them
  stored        in the database, and no longer in the stream; listed with --all

Exit status:
  0  nothing was lost
  1  something was lost, or the command failed
  2  wrong usage or configuration")]
pub struct Gaps {
    #[command(flatten)]
    database: DatabaseArgs,

    #[command(flatten)]
    broker: BrokerArgs,

    /// List the ranges too that are in the database and no longer in the stream
    #[arg(short, long)]
    all: bool,

    /// Do not ask the stream: list what the ledger has
    #[arg(long)]
    offline: bool,

    /// Print JSON: {"stream", "lost", "stored", "epochs": [{"epoch", "created", "position", "is_current"}], "gaps": [{"epoch", "first",
    /// "last", "missing", "state", "published_after", "published_before", "why"}], "unknown": [text]}
    #[arg(short, long)]
    json: bool,
}

impl Gaps {
    pub fn run(self, settings: &Settings) -> anyhow::Result<()> {
        let config = if self.offline {
            settings.for_own_broker(&self.database, &self.broker)?
        } else {
            settings.for_broker(&self.database, &self.broker)?
        };
        starting::wait_for_database(&config.database.path);
        let progress = TaskProgress::new()?;
        let options = GapsOptions { offline: self.offline };
        let found = maintenance::gaps(&config, &options, &|now| progress.report(now));
        let found = progress.end_as(
            found,
            || "interrupted: nothing was listed".into(),
            |error| match error {
                Error::Broker { .. } => {
                    let remedy = error.remedy().map_or(String::new(), |remedy| format!("{remedy}; "));
                    let error = error.with_remedy(format!("{remedy}--offline lists what the ledger has"));
                    starting::with_way_out(error.into(), &config)
                }
                _ => error.into(),
            },
        )?;
        let mut output = Output::optional();
        if self.json {
            writeln!(output, "{}", self.in_json(&found))?;
        } else {
            self.print(&mut output, &found)?;
        }
        output.flush()?;
        if found.lost > 0 { Err(ExitStatus(1).into()) } else { Ok(()) }
    }

    fn shown<'r>(&self, found: &'r GapsReport) -> impl Iterator<Item = &'r GapRange> {
        let all = self.all;
        found.ranges.iter().filter(move |range| all || range.state != GapState::Stored)
    }

    fn print(&self, output: &mut Output, found: &GapsReport) -> anyhow::Result<()> {
        let stream = &found.stream;
        if self.shown(found).next().is_some() {
            output.allow_styles();
            let header = ["epoch", "first", "last", "missing", "state", "published after", "published before"];
            let mut grid = Grid::new(header.map(str::to_owned).to_vec());
            for range in self.shown(found) {
                let time = |us: Option<i64>| us.map_or(String::new(), shown_time);
                grid.row(
                    output,
                    vec![
                        GridCell::Number(range.epoch.to_string()),
                        GridCell::Number(range.first.to_string()),
                        GridCell::Number(range.last.to_string()),
                        GridCell::Number(range.missing.to_string()),
                        GridCell::Text(range.state.name().to_owned()),
                        GridCell::Text(time(range.after_us)),
                        GridCell::Text(time(range.before_us)),
                    ],
                )?;
            }
            grid.finish(output)?;
        }
        let mut whys: Vec<&str> =
            self.shown(found).filter(|range| range.state.is_loss()).filter_map(|range| range.why.as_deref()).collect();
        whys.sort_unstable();
        whys.dedup();
        for why in whys {
            writeln!(output, "what may have removed them: {why}")?;
        }
        if found.epochs.is_empty() {
            writeln!(output, "nothing of stream {stream} was collected")?;
        } else if found.lost == 0 {
            writeln!(output, "no event of stream {stream} was lost")?;
        } else {
            writeln!(output, "{} of stream {stream} lost", counted(found.lost, "event"))?;
        }
        if found.stored > 0 {
            writeln!(output, "{} that the stream no longer has are in the database", HumanCount(found.stored))?;
        }
        for unknown in &found.unknown {
            writeln!(output, "not known: {unknown}")?;
        }
        Ok(())
    }

    fn in_json(&self, found: &GapsReport) -> serde_json::Value {
        let time = |us: Option<i64>| us.map(shown_time);
        let ranges: Vec<_> = self
            .shown(found)
            .map(|range| {
                serde_json::json!({
                    "epoch": range.epoch,
                    "first": range.first,
                    "last": range.last,
                    "missing": range.missing,
                    "state": range.state.name(),
                    "published_after": time(range.after_us),
                    "published_before": time(range.before_us),
                    "why": range.why,
                })
            })
            .collect();
        let epochs: Vec<_> = found
            .epochs
            .iter()
            .map(|epoch| {
                serde_json::json!({
                    "epoch": epoch.number,
                    "created": epoch.created,
                    "position": epoch.position,
                    "is_current": epoch.is_current,
                })
            })
            .collect();
        serde_json::json!({
            "stream": found.stream,
            "lost": found.lost,
            "stored": found.stored,
            "epochs": epochs,
            "gaps": ranges,
            "unknown": found.unknown,
        })
    }
}
