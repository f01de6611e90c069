//! `catchment adopt`: gives a copy of a database an identity of its own, and a database of another program catchment's tables.

use std::io::Write;

use crate::store::{self, IdentityChange, Routes};
use clap::Args;

use super::failure;
use super::output::Output;
use super::settings::{DatabaseArgs, Settings};
use super::signals::Signals;

/// Give a copy of a database an identity of its own, or add catchment's tables to a database of another program
///
/// A copy has the identity of its original, and so uses the original's consumers at the broker. While the original exists, run
/// refuses the copy. Adopting keeps rows, dead letters and the position in each stream; the next run continues after that
/// position. A stream with interest retention may have dropped events after that position because the original has them. The copy
/// lacks those, and run logs how many there are.
///
/// run refuses a database that has tables of another program and none of catchment's, unless its routes store into these tables:
/// the path may be a mistake. Adopting adds table events, where there is none, and tables whose names begin with catchment_, and puts
/// the database into WAL mode. A table events of the other program that cannot take events is refused; rename it first.
#[derive(Args)]
pub struct Adopt {
    #[command(flatten)]
    database: DatabaseArgs,

    /// Print JSON: {"database", "before", "now"}; before is null for a database of another program
    #[arg(short, long)]
    json: bool,
}

impl Adopt {
    pub fn run(&self, settings: &Settings) -> anyhow::Result<()> {
        let config = settings.for_database(&self.database)?;
        // A start refuses wrong routes; to adopt a copy they do not matter.
        let routes = Routes::of(&config).unwrap_or_default();
        let signals = Signals::catch()?;
        let adopted = store::adopt(&config.database, &routes, &|| !signals.end_asked());
        let path = config.database.path;
        let IdentityChange { before, after: now } = adopted.map_err(|error| {
            let message = || format!("interrupted: {} has the same identity and tables as before", path.display());
            failure::or_interrupted(error, signals.interrupted(), message, Into::into)
        })?;
        let mut output = Output::optional();
        if self.json {
            let line = serde_json::json!({ "database": path.display().to_string(), "before": before, "now": now });
            writeln!(output, "{line}")?;
        } else {
            match before {
                Some(before) => {
                    writeln!(output, "{} has its own identity now: {now} (before: {before})", path.display())?;
                }
                None => writeln!(output, "{} has catchment's tables now, and the identity {now}", path.display())?,
            }
        }
        Ok(output.flush()?)
    }
}
