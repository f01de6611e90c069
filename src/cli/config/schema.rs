//! `catchment config schema`: the JSON Schema of the settings file.

use std::io::Write;

use clap::Args;

use crate::cli::output::Output;
use crate::cli::settings::UnusedFileArgs;

/// Print the JSON Schema of the settings file, with which editors complete and check it
#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub struct Schema {
    #[command(flatten)]
    unused: UnusedFileArgs,
}

const AFTER_HELP: &str = "\
Editors with taplo (Even Better TOML) use it if the first line of the settings file names it.

Example:
  catchment config schema > catchment.schema.json
  sed -i '1i #:schema ./catchment.schema.json' catchment.toml";

/// Prints the schema.
pub fn run() -> anyhow::Result<()> {
    let mut output = Output::new();
    writeln!(output, "{:#}", crate::config::schema())?;
    Ok(output.flush()?)
}
