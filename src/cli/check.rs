//! `catchment check`: is everything in order? As people, scripts and monitoring ask it.

mod formats;

use crate::check::{self, CheckOptions, Finding, Level, Report};
use crate::error::Error;
use bytesize::ByteSize;
use clap::{Args, ValueEnum};

use super::failure::ExitStatus;
use super::logging;
use super::output::Output;
use super::settings::{BrokerArgs, DatabaseArgs, Settings};

/// Check settings, SQL, database, disk, broker and stream; nothing is made or changed
///
/// Settings, migrations, routes and queries are tried on a temporary database: an empty one, or where the database is there
/// already, one with its tables. The database itself is only read.
#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub struct Check {
    #[command(flatten)]
    database: DatabaseArgs,

    #[command(flatten)]
    broker: BrokerArgs,

    /// Leave the broker out
    #[arg(long)]
    offline: bool,

    /// Leave out what reads the whole database: whether it is sound
    #[arg(long)]
    quick: bool,

    /// How the findings are printed
    #[arg(long, value_name = "FORM", value_enum, default_value = "text")]
    format: ReportFormat,

    /// A warning from so many events on that are in the stream and not in the database
    #[arg(long, value_name = "EVENTS", default_value_t = CheckOptions::default().lag_warning, help_heading = "Limits")]
    lag_warning: u64,

    /// Critical from so many on
    #[arg(long, value_name = "EVENTS", default_value_t = CheckOptions::default().lag_critical, help_heading = "Limits")]
    lag_critical: u64,

    /// A warning where the disk of the database has less room
    #[arg(long, value_name = "SIZE", default_value_t = CheckOptions::default().disk_warning, help_heading = "Limits")]
    disk_warning: ByteSize,

    /// Critical where it has less
    #[arg(long, value_name = "SIZE", default_value_t = CheckOptions::default().disk_critical, help_heading = "Limits")]
    disk_critical: ByteSize,
}

const AFTER_HELP: &str = "\
Exit status, as monitoring plug-ins have it: 0 ok, 1 warning, 2 critical, 3 unknown (wrong usage, settings that cannot be used).
JSON: {\"status\",\"findings\":[{\"level\",\"object\",\"what\",\"way_out\"}],\"measures\":{name: number}}.

Examples:
  catchment check -c catchment.toml --offline
  catchment check -c catchment.toml --quick --format nagios
  catchment check -c catchment.toml --quick --format prometheus > /var/lib/node_exporter/catchment.prom";

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ReportFormat {
    /// One line a finding, as it is made
    Text,
    /// One object
    Json,
    /// A line with the status and what was measured, then one a finding
    Nagios,
    /// Text of a Prometheus exporter, as node_exporter collects it from files
    Prometheus,
}

impl Check {
    /// Looks at everything, and ends with the status of the worst finding.
    pub fn run(&self, settings: &Settings) -> anyhow::Result<()> {
        // What is said of the temporary database concerns nobody.
        logging::quieten();
        let config = if self.offline {
            settings.for_database(&self.database)
        } else {
            settings.for_broker(&self.database, &self.broker)
        };
        let config = match config {
            Ok(config) => config,
            Err(error) => return self.refuse(&error),
        };
        let options = CheckOptions {
            offline: self.offline,
            quick: self.quick,
            lag_warning: self.lag_warning,
            lag_critical: self.lag_critical,
            disk_warning: self.disk_warning,
            disk_critical: self.disk_critical,
        };
        let mut output = Output::new();
        let mut written = Ok(());
        let report = check::check(&config, &options, &mut |finding| {
            if self.format == ReportFormat::Text && written.is_ok() {
                written = formats::line(&mut output, finding);
            }
        });
        written?;
        self.end(output, &report, &options)
    }

    /// Says that the settings cannot be used.
    pub fn refuse(&self, error: &Error) -> anyhow::Result<()> {
        let finding = Finding { level: Level::Unknown, object: "settings", what: error.to_string(), way_out: None };
        let mut output = Output::new();
        if self.format == ReportFormat::Text {
            formats::line(&mut output, &finding)?;
        }
        self.end(output, &Report { findings: vec![finding], ..Report::default() }, &CheckOptions::default())
    }

    fn end(&self, mut output: Output, report: &Report, options: &CheckOptions) -> anyhow::Result<()> {
        match self.format {
            ReportFormat::Text => formats::summary(&mut output, report)?,
            ReportFormat::Json => formats::json(&mut output, report)?,
            ReportFormat::Nagios => formats::nagios(&mut output, report, options)?,
            ReportFormat::Prometheus => formats::prometheus(&mut output, report)?,
        }
        std::io::Write::flush(&mut output)?;
        match report.level() {
            Level::Ok => Ok(()),
            level => Err(ExitStatus(level.status()).into()),
        }
    }
}
