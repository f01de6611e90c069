//! `catchment health`: whether the collector of the database makes progress.

use std::io::Write;
use std::time::Duration;

use anyhow::bail;
use clap::Args;

use crate::observe::ask;

use super::failure::ExitStatus;
use super::output::Output;
use super::quantities::duration;
use super::settings::{DatabaseArgs, Settings};
use super::status::Unanswered;

/// Ask the running collector whether it makes progress, for containers and scripts
///
/// Answers the question whether the collector makes progress.
///
/// It asks over the socket beside the database (DATABASE.sock), which only the user who runs the collector can use, and prints what /readyz
/// answers. No port is needed.
///
/// With --json, "state" is as in the answer of status: also starting or absent.
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
            Err(error) => return self.unanswered(&Unanswered::of(&path, error)),
        };
        let mut output = Output::optional();
        output.write_all(answer.body.as_bytes())?;
        output.flush()?;
        if answer.status == 200 { Ok(()) } else { Err(ExitStatus(1).into()) }
    }

    fn unanswered(&self, Unanswered { state, summary, .. }: &Unanswered) -> anyhow::Result<()> {
        if !self.json {
            bail!("{summary}");
        }
        let reason = serde_json::json!({ "part": "collector", "reason": summary, "for_seconds": 0 });
        let mut output = Output::optional();
        writeln!(output, "{}", serde_json::json!({ "ready": false, "state": state, "reasons": [reason] }))?;
        output.flush()?;
        Err(ExitStatus(1).into())
    }
}
