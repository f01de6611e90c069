//! `catchment adopt`: a copy of a database becomes a database of its own.

use std::io::Write;

use crate::store::{self, IdentityChange};
use clap::Args;

use super::output::Output;
use super::settings::{DatabaseArgs, Settings};

/// Give a copy of a database an identity of its own, so that it can be collected into beside its original
///
/// A copy has the identity of its original, and with it the original's consumers at the broker: run refuses it while the
/// original is there. Rows, dead letters and the position in each stream stay as they are; the next run goes on behind that
/// position. What a stream with interest retention has dropped by then, because the original had it, is missing in the copy;
/// run says how many events that are.
#[derive(Args)]
pub struct Adopt {
    #[command(flatten)]
    database: DatabaseArgs,

    /// As JSON: {"database","before","now"}
    #[arg(short, long)]
    json: bool,
}

impl Adopt {
    pub fn run(&self, settings: &Settings) -> anyhow::Result<()> {
        let path = settings.for_database(&self.database)?.database.path;
        let IdentityChange { before, after: now } = store::adopt(&path)?;
        let mut output = Output::new();
        if self.json {
            let line = serde_json::json!({ "database": path.display().to_string(), "before": before, "now": now });
            writeln!(output, "{line}")?;
        } else {
            writeln!(output, "{} has an identity of its own now: {now} (before: {before})", path.display())?;
        }
        Ok(output.flush()?)
    }
}
