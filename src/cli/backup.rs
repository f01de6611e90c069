//! `catchment backup`

use std::io::Write;
use std::path::PathBuf;

use bytesize::ByteSize;
use clap::Args;

use super::output::Output;
use super::quantities::{file, rate, size};
use super::settings::{DatabaseArgs, Settings};
use super::task_progress::TaskProgress;
use super::values::{printable, shown_time};
use crate::maintenance::{self, BackupOptions, StreamPosition};

/// Copy the database into a file, also beside a running collector
///
/// The copy has what was committed when the backup began: rows, dead letters and the position in each stream agree. It is checked page by
/// page and written to the disk before it gets its name, so a file of that name is always a whole backup. Only its owner may read it.
///
/// catchment restore puts it in the place of the database. run refuses to use it beside the original, because both have the same
/// consumers; catchment adopt makes it a database of its own.
#[derive(Args)]
#[command(after_help = "\
The copy reads one transaction, which holds back the file -wal of the database: it grows with every commit until the pages are copied. From \
half of --max-wal on, --rate does not count; at --max-wal the backup ends with an error, and no file is left.
SIGINT and SIGTERM end the backup, and no file is left. What a killed backup leaves, .FILE.*.catchment-part, the next one for the same FILE \
removes.

Examples:
  catchment backup backups/events.db
  catchment backup backups/events.db --force --rate 20MiB")]
pub struct Backup {
    /// The file to make
    #[arg(value_name = "FILE", value_parser = file(), value_hint = clap::ValueHint::FilePath)]
    file: PathBuf,

    #[command(flatten)]
    database: DatabaseArgs,

    /// Copy at most so many bytes a second [default: no limit]
    #[arg(long, value_name = "SIZE", value_parser = rate)]
    rate: Option<ByteSize>,

    /// End with an error if the file -wal of the database grows to this size meanwhile
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "1GiB")]
    max_wal: ByteSize,

    /// Replace a file that is there already
    #[arg(long)]
    force: bool,

    /// Print JSON: {"file", "bytes", "seconds", "identity", "positions": [{"stream", "sequence", "published_us"}]}
    #[arg(short, long)]
    json: bool,
}

impl Backup {
    pub fn run(self, settings: &Settings) -> anyhow::Result<()> {
        let config = settings.for_database(&self.database)?;
        let options = BackupOptions {
            rate: self.rate.map(|rate| rate.as_u64()),
            max_wal: self.max_wal.as_u64(),
            replace: self.force,
        };
        let progress = TaskProgress::new()?;
        let made =
            maintenance::backup(&config.database.path, &self.file, &options, &|progressed| progress.report(progressed));
        let report = progress.end(made, || format!("interrupted: {} is not made", self.file.display()))?;
        let mut output = Output::optional();
        if self.json {
            let line = serde_json::json!({
                "file": report.file.display().to_string(),
                "bytes": report.bytes,
                "seconds": report.took.as_secs_f64(),
                "identity": report.identity,
                "positions": positions_json(&report.positions),
            });
            writeln!(output, "{line}")?;
        } else {
            writeln!(
                output,
                "{} is a copy of {}: {}, checked",
                printable(&report.file.to_string_lossy()),
                printable(&config.database.path.to_string_lossy()),
                ByteSize::b(report.bytes),
            )?;
            write_positions(&mut output, &report.positions)?;
        }
        Ok(output.flush()?)
    }
}

/// A line for each stream.
pub fn write_positions(to: &mut impl Write, positions: &[StreamPosition]) -> std::io::Result<()> {
    if positions.is_empty() {
        return writeln!(to, "nothing of a stream is in it");
    }
    positions.iter().try_for_each(|position| {
        let StreamPosition { stream, sequence, published_us, .. } = position;
        writeln!(to, "stream {}: up to sequence {sequence}, published {}", printable(stream), shown_time(*published_us))
    })
}

/// The positions for `--json`.
pub fn positions_json(positions: &[StreamPosition]) -> serde_json::Value {
    let one = |position: &StreamPosition| {
        serde_json::json!({
            "stream": position.stream,
            "sequence": position.sequence,
            "published_us": position.published_us,
        })
    };
    positions.iter().map(one).collect()
}
