//! `catchment repartition`: gives the stream the number of partitions of the settings.

use std::io::Write;

use clap::Args;

use super::output::Output;
use super::settings::{BrokerArgs, DatabaseArgs, Settings};
use crate::broker::{self, Repartitioned};
use crate::counted;

/// Give a stream that is there as many partitions as broker.partitions says
///
/// Only events that are published later are divided by the new number; those in the stream stay in the partition that they have. The
/// collectors that run go on. Each needs the new number in its settings at its next start. docs/scaling.md has the whole procedure.
#[derive(Args)]
pub struct Repartition {
    #[command(flatten)]
    database: DatabaseArgs,

    #[command(flatten)]
    broker: BrokerArgs,

    /// Print JSON: {"stream", "before", "now", "last"}; before is null if there were none, last is the last sequence of the stream when
    /// the number was changed
    #[arg(short, long)]
    json: bool,
}

impl Repartition {
    pub fn run(&self, settings: &Settings) -> anyhow::Result<()> {
        let config = settings.for_broker(&self.database, &self.broker)?;
        config.validate()?;
        let stream = &config.broker.stream;
        let Repartitioned { before, now, last, consumers } = broker::repartition(&config.broker)?;
        let mut output = Output::optional();
        if self.json {
            writeln!(
                output,
                "{}",
                serde_json::json!({ "stream": stream, "before": before, "now": now, "last": last })
            )?;
            return Ok(output.flush()?);
        }
        let partitions = if now == 1 { "1 partition".into() } else { format!("{now} partitions") };
        match before {
            Some(before) if before == now => writeln!(output, "stream {stream} has {partitions} already")?,
            before => {
                let had = before.map_or_else(|| "none".into(), |number| number.to_string());
                let after =
                    if last == 0 { String::new() } else { format!(": events after {last} are divided by {now}") };
                writeln!(output, "stream {stream} has {partitions} now (before: {had}){after}")?;
            }
        }
        if let Some(before) = before.filter(|before| *before > now && last > 0) {
            let gone = if before - now == 1 {
                format!("partition {now}")
            } else {
                format!("partitions {now} to {}", before - 1)
            };
            writeln!(
                output,
                "the stream may still have events in {gone}: let their collectors finish before they stop"
            )?;
        }
        if before.is_none() && consumers > 0 {
            let counted = counted(consumers, "consumer");
            writeln!(
                output,
                "the stream has {counted}: a filter needs the number of the partition before the subject, as in *.{}",
                config.broker.filters().first().map_or(">", String::as_str)
            )?;
        }
        Ok(output.flush()?)
    }
}
