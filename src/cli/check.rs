//! `catchment check`: whether everything is in order, for people, scripts and monitoring.

mod formats;
mod permissions;

use std::io::{self, Write};

use crate::broker;
use crate::check::{self, CheckOptions, Finding, Level, Report};
use crate::config::Config;
use crate::error::Error;
use bytesize::ByteSize;
use clap::{Args, ValueEnum};

use permissions::CommandAtBroker;

use super::failure::ExitStatus;
use super::logging;
use super::output::Output;
use super::quantities::{size, whole};
use super::settings::{BrokerArgs, DatabaseArgs, Settings};
use super::starting;

/// Check settings, SQL, database, disk, broker and stream; make and change nothing
///
/// Answers the question whether the collector will work with these settings, and whether anything is about to go wrong.
///
/// Migrations, routes and queries are compiled in a temporary database: an empty one, or if the database exists, one with its
/// tables. The database itself is only read.
#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub struct Check {
    #[command(flatten)]
    database: DatabaseArgs,

    #[command(flatten)]
    broker: BrokerArgs,

    /// Skip the broker
    #[arg(long)]
    offline: bool,

    /// Skip the search for damage, which reads the whole database
    #[arg(long)]
    quick: bool,

    /// Check only whether the credentials have the permissions that a command needs at the broker, without publishing any event; and
    /// print them for the configuration of nats-server [default: run]
    #[arg(long, value_name = "COMMAND", value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "run")]
    permissions: Option<CommandAtBroker>,

    /// Format of the findings
    #[arg(long, value_name = "FORMAT", value_enum, default_value = "text")]
    format: ReportFormat,

    /// Print one JSON object, as --format json does
    #[arg(short, long, conflicts_with = "format")]
    json: bool,

    /// Warn if the stream has at least this many events that are not in the database
    #[arg(long, value_name = "EVENTS", default_value_t = CheckOptions::default().lag_warning, value_parser = whole::<u64>(0..=u64::MAX, 1000), help_heading = "Limits")]
    lag_warning: u64,

    /// Critical from this many events on
    #[arg(long, value_name = "EVENTS", default_value_t = CheckOptions::default().lag_critical, value_parser = whole::<u64>(0..=u64::MAX, 1000), help_heading = "Limits")]
    lag_critical: u64,

    /// Warn if the disk of the database has less free space
    #[arg(long, value_name = "SIZE", default_value_t = CheckOptions::default().disk_warning, value_parser = size, help_heading = "Limits")]
    disk_warning: ByteSize,

    /// Critical below this
    #[arg(long, value_name = "SIZE", default_value_t = CheckOptions::default().disk_critical, value_parser = size, help_heading = "Limits")]
    disk_critical: ByteSize,
}

const AFTER_HELP: &str = "\
Exit status, as for monitoring plug-ins: 0 ok, 1 warning, 2 critical, 3 unknown (wrong usage, invalid settings, findings that cannot \
be printed).
JSON: {\"status\", \"findings\": [{\"level\", \"object\", \"what\", \"way_out\"}], \"measures\": {name: number}}; with --permissions also \
\"permissions\": {\"publish\": [subject], \"subscribe\": [subject], \"sometimes\": [{\"access\", \"subject\", \"only_if\"}]}.

Examples:
  catchment check --offline
  catchment check --quick --format nagios
  catchment check --permissions
  catchment check --permissions=publish --offline
  catchment check --quick --format prometheus > /var/lib/node_exporter/catchment.prom";

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ReportFormat {
    /// One line a finding, printed at once
    Text,
    /// One JSON object
    Json,
    /// A line with the status and the measures, then one line a finding
    Nagios,
    /// Metrics for the textfile collector of node_exporter
    Prometheus,
}

impl Check {
    /// Checks everything. The exit status is that of the worst finding.
    pub fn run(&self, settings: &Settings) -> anyhow::Result<()> {
        // Information about the temporary database is of no use to the reader.
        logging::hide_information();
        let config = if self.offline {
            settings.for_database(&self.database)
        } else {
            self.started(settings).and_then(|()| settings.for_broker(&self.database, &self.broker))
        };
        let config = match config {
            Ok(config) => config,
            Err(error) => return self.report_invalid_settings(&error),
        };
        if let Some(command) = self.permissions {
            return self.check_permissions(&config, command);
        }
        let options = CheckOptions {
            offline: self.offline,
            quick: self.quick,
            lag_warning: self.lag_warning,
            lag_critical: self.lag_critical,
            disk_warning: self.disk_warning,
            disk_critical: self.disk_critical,
        };
        let mut output = Output::optional();
        let mut written = Ok(());
        let format = self.format();
        let located = |error| settings.with_line(error, &config);
        let report = check::check(&config, &options, &located, &mut |finding| {
            if format == ReportFormat::Text && written.is_ok() {
                written = formats::line(&mut output, finding);
            }
        });
        finish(written.and_then(|()| print(format, &mut output, &report, &options)), &report)
    }

    /// Lists the permissions of a command, and unless the broker is skipped, checks them.
    fn check_permissions(&self, config: &Config, command: CommandAtBroker) -> anyhow::Result<()> {
        let all = broker::permissions(config, command.broker_use());
        let (mut output, mut written) = (Output::optional(), Ok(()));
        let is_text = self.format() == ReportFormat::Text;
        let mut on_finding = |finding: &Finding| {
            if is_text && written.is_ok() {
                written = formats::line(&mut output, finding);
            }
        };
        let report =
            if self.offline { Report::default() } else { check::check_permissions(config, &all, &mut on_finding) };
        let printed = written.and_then(|()| match self.format() {
            ReportFormat::Text => {
                if !self.offline {
                    formats::summary(&mut output, &report)?;
                    writeln!(output)?;
                }
                permissions::block(&mut output, &all)?;
                output.flush()
            }
            ReportFormat::Json => {
                formats::json(&mut output, &report, Some(permissions::json(&all)))?;
                output.flush()
            }
            format => print(format, &mut output, &report, &CheckOptions::default()),
        });
        finish(printed, &report)
    }

    /// Waits for a collector that is starting: it may be about to start a server, whose address is read afterwards.
    fn started(&self, settings: &Settings) -> Result<(), Error> {
        let config = settings.for_broker(&self.database, &self.broker)?;
        let is_named = settings.names_servers(&self.broker)?;
        starting::wait_for_start(&config.database.path, config.broker.timeout, is_named);
        Ok(())
    }

    fn format(&self) -> ReportFormat {
        if self.json { ReportFormat::Json } else { self.format }
    }

    /// Prints a report whose only finding is that the settings are invalid.
    pub fn report_invalid_settings(&self, error: &Error) -> anyhow::Result<()> {
        let finding = Finding::of_error("settings", error);
        let (mut output, mut written) = (Output::optional(), Ok(()));
        if self.format() == ReportFormat::Text {
            written = formats::line(&mut output, &finding);
        }
        let report = Report { findings: vec![finding], ..Report::default() };
        let options = CheckOptions::default();
        finish(written.and_then(|()| print(self.format(), &mut output, &report, &options)), &report)
    }
}

/// Prints the report; of a report in text only the last line, because its findings were printed one by one.
fn print(format: ReportFormat, output: &mut Output, report: &Report, options: &CheckOptions) -> io::Result<()> {
    match format {
        ReportFormat::Text => formats::summary(output, report)?,
        ReportFormat::Json => formats::json(output, report, None)?,
        ReportFormat::Nagios => formats::nagios(output, report, options)?,
        ReportFormat::Prometheus => formats::prometheus(output, report)?,
    }
    output.flush()
}

/// Ends with the status of the worst finding. Findings that cannot be printed are unknown to the reader, which is worse than a
/// warning. A full disk is one reason for that, and it is also a critical finding.
fn finish(printed: io::Result<()>, report: &Report) -> anyhow::Result<()> {
    let level = match printed {
        Ok(()) => report.level(),
        Err(error) => {
            log::error!("cannot print the findings: {error}");
            report.level().max(Level::Unknown)
        }
    };
    if level == Level::Ok { Ok(()) } else { Err(ExitStatus(level.status()).into()) }
}
