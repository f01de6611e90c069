//! `catchment health`: whether the collector of the database makes progress.

use std::io::Write;
use std::time::Duration;

use anyhow::bail;
use clap::Args;

use crate::hint;
use crate::observe::{AskError, ask};

use super::failure::ExitStatus;
use super::output::Output;
use super::quantities::duration;
use super::settings::{DatabaseArgs, Settings};

/// Ask the running collector whether it makes progress, for containers and scripts
///
/// It asks over the socket beside the database (DATABASE.sock), which only the user who runs the collector can use, and prints what /readyz
/// answers. No port is needed.
///
/// Exit status: 0 if the collector is ready, 1 if it is not or if none runs.
#[derive(Args)]
pub struct Health {
    #[command(flatten)]
    database: DatabaseArgs,

    /// Print JSON: {"ready", "state", "reasons": [{"part", "reason", "for_seconds"}]}
    #[arg(short, long)]
    json: bool,

    /// Longest time to wait for the answer
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    timeout: Duration,
}

impl Health {
    /// Prints the answer.
    pub fn run(&self, settings: &Settings) -> anyhow::Result<()> {
        let path = settings.for_database(&self.database)?.database.path;
        let target = if self.json { "/readyz?format=json" } else { "/readyz" };
        let answer = match ask(&path, target, self.timeout) {
            Ok(answer) => answer,
            Err(AskError::NobodyRuns(socket)) => {
                bail!(
                    "no collector runs for {}: nobody listens at {socket}; {} starts one",
                    path.display(),
                    hint::command("run")
                )
            }
            Err(AskError::Failed(why)) => bail!("{why}"),
        };
        let mut output = Output::optional();
        output.write_all(answer.body.as_bytes())?;
        output.flush()?;
        if answer.status == 200 { Ok(()) } else { Err(ExitStatus(1).into()) }
    }
}
