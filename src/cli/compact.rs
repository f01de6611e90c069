//! `catchment compact`: writes a database anew, without free pages.

use std::io::Write;
use std::ops::ControlFlow;

use bytesize::ByteSize;
use clap::Args;

use super::failure;
use super::output::Output;
use super::progress;
use super::settings::{DatabaseArgs, Settings};
use super::signals::Signals;
use crate::maintenance::{self, CompactOptions};

/// Write the database anew, without free pages, so that retention can give space back to the disk from then on
///
/// New databases give free pages back by themselves. One that was made by an earlier version cannot; this command converts it. It
/// refuses while a collector runs, and needs room for a temporary copy and for the -wal file: twice the size of what is stored. The
/// database is as before until the end: also if the command is killed.
#[derive(Args)]
pub struct Compact {
    #[command(flatten)]
    database: DatabaseArgs,

    /// Print JSON: {"database", "bytes_before", "bytes_after", "converted"}
    #[arg(short, long)]
    json: bool,
}

impl Compact {
    pub fn run(&self, settings: &Settings) -> anyhow::Result<()> {
        let config = settings.for_database(&self.database)?.database;
        let signals = Signals::catch()?;
        let line = progress::Progress::new(None, "byte", "written");
        let go_on = |now: maintenance::Progress| {
            line.show(now.done, format!("({})", now.step));
            if signals.end_asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let options = CompactOptions { checkpoint: config.checkpoint };
        let compacted = maintenance::compact(&config.path, &options, &go_on);
        line.clear();
        let shown = config.path.display();
        let message = || format!("interrupted: {shown} is as before");
        let done =
            compacted.map_err(|error| failure::or_interrupted(error, signals.interrupted(), message, Into::into))?;
        let mut output = Output::optional();
        if self.json {
            let line = serde_json::json!({
                "database": shown.to_string(),
                "bytes_before": done.bytes_before,
                "bytes_after": done.bytes_after,
                "converted": done.was_converted,
            });
            writeln!(output, "{line}")?;
        } else {
            let (before, after) = (ByteSize::b(done.bytes_before), ByteSize::b(done.bytes_after));
            let converted = if done.was_converted { "; from now on it gives free pages back" } else { "" };
            writeln!(output, "{shown} has {after} now; before: {before}{converted}")?;
        }
        Ok(output.flush()?)
    }
}
