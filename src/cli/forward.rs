//! `catchment forward`: publishes the rows of a table that another program fills.

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use indicatif::HumanCount;

use crate::record::{Identity, TableForwarding, TableForwardingConfig};
use crate::store::{Outbox, OutboxOptions, OutboxStatus};

use super::failure::{self, Interrupted};
use super::output::Output;
use super::progress::Progress;
use super::quantities::duration;
use super::service_manager::ServiceManager;
use super::settings::{BrokerArgs, DatabaseArgs, Settings};
use super::signals::Signals;
use super::values::{counted, shown_time};

/// How often to look for a signal.
const POLL: Duration = Duration::from_millis(100);

/// The shortest time without progress after which --once gives up.
const LEAST_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the end may take.
const STOP: Duration = Duration::from_secs(5);

/// Publish the rows of a table that another program fills: an outbox
///
/// A program writes events into a table, in the transaction that changes its own tables, and this command publishes them to a stream, in
/// the order of their ids. While the stream is full or missing, only the rows of one subject stay in this order. It works beside the
/// program, in any language, and beside a DirectRecorder whose table events it can forward. It keeps the position in tables of its own in
/// the same database, whose names begin with catchment_forward, and continues there after any interruption. A row that is sent again is
/// recognised by the database of the collector, until it forgets this forwarder: 30 days after its last row (database.forget_recorders).
///
/// The table needs the columns id INTEGER PRIMARY KEY, subject and payload. The ids have to be positive and to ascend in the order of the commits, as
/// those that SQLite gives do: a row that appears below the position is not forwarded, and a warning and --status say so. headers (a JSON object) and published_us are used if they are
/// there. Rows with a value in column stream are not sent: a collector has stored them from a stream. A row that no stream takes, while others
/// are stored, is given up after --give-up-after. It stays in its table, and table catchment_forward_dead_letters has the reason.
///
/// A row goes to the stream that takes its subject. With --stream the server refuses rows that another stream would take; the events then have the
/// header Nats-Expected-Stream. broker.stream of the settings is not used.
///
/// Without --once it runs until SIGINT or SIGTERM, also while the broker is away, and its exit status is 0 then.
#[derive(Args)]
#[allow(clippy::struct_excessive_bools, reason = "flags")]
pub struct Forward {
    #[command(flatten)]
    database: DatabaseArgs,

    #[command(flatten)]
    broker: BrokerArgs,

    /// The table
    #[arg(long, value_name = "NAME", default_value = "events")]
    table: String,

    /// Keep the position in this database instead, if the other may only be read. It is created if it is missing
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,

    /// Delete the rows that this command has forwarded, but always keep the last, so that its id is not used again
    #[arg(long, conflicts_with = "state")]
    delete: bool,

    /// Forward the rows that are there, and end. The exit status is 1 if some are left or were given up
    #[arg(long, visible_alias = "drain")]
    once: bool,

    /// Print how far the table is forwarded, also while another process forwards it, and end
    #[arg(long, conflicts_with_all = ["once", "delete"])]
    status: bool,

    /// How often to look for new rows
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = duration)]
    poll: Duration,

    /// How long a row that the server refuses is sent again, while the stream stores others. The time counts from the first refusal, in an
    /// earlier run too
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    give_up_after: Duration,

    /// By what a row that is sent again is recognised
    #[arg(long, value_enum, default_value_t)]
    identity: RecognisedBy,

    /// Print the result as JSON: {"forwarded", "given_up", "missed", "waiting", "position", "oldest_us", "error"}. forwarded and given_up
    /// count since the first start; missed counts the rows that appeared below the position
    #[arg(short, long)]
    json: bool,
}

/// By what a row that is sent again is recognised.
#[derive(Clone, Copy, Default, ValueEnum)]
enum RecognisedBy {
    /// By the stream within its duplicate window, and by the collector's database for 30 days (database.forget_recorders)
    #[default]
    Both,
    /// By the collector's database only. It costs the server less
    Database,
    /// As database, but the number of a JSON object is in the payload, as its member "catchment". The server and the collector have less to
    /// do. Other readers of the stream see the member
    Payload,
}

impl Forward {
    pub fn run(&self, settings: &Settings) -> anyhow::Result<()> {
        let config = if self.status {
            settings.for_database(&self.database)?
        } else {
            settings.for_broker(&self.database, &self.broker)?
        };
        let options = OutboxOptions {
            path: config.database.path.clone(),
            table: self.table.clone(),
            state: self.state.clone(),
            deletes: self.delete,
        };
        if self.status {
            return self.print(&options, &Ok(()));
        }
        let signals = Signals::catch()?;
        let identity = match self.identity {
            RecognisedBy::Both => Identity::Both,
            RecognisedBy::Database => Identity::Database,
            RecognisedBy::Payload => Identity::Payload,
        };
        let timeout = config.broker.timeout.max(LEAST_TIMEOUT);
        let (outbox, broker, poll, give_up_after) = (options.clone(), config.broker, self.poll, self.give_up_after);
        let expected_stream = self.broker.stream().map(str::to_owned);
        let config = TableForwardingConfig { outbox, broker, expected_stream, identity, give_up_after, poll };
        let forwarding = TableForwarding::start(config)?;
        let manager = ServiceManager::of_environment();
        manager.ready();
        let ended = self.forward(&forwarding, timeout, &signals);
        manager.stopping();
        forwarding.stop(STOP);
        match (&ended, self.once, self.json) {
            (Ok(()), false, false) => Ok(()),
            _ => self.print(&options, &ended),
        }?;
        ended
    }

    /// Forwards until all is done, or until a signal comes.
    fn forward(&self, forwarding: &TableForwarding, timeout: Duration, signals: &Signals) -> anyhow::Result<()> {
        let progress = Progress::new(None, "event", "forwarded");
        let (mut before, mut since) = ((0, 0), Instant::now());
        loop {
            let is_idle = forwarding.wait_idle(if self.once { POLL } else { Duration::ZERO });
            let counts = forwarding.counts();
            let note = forwarding.health().troubles.first().map_or(String::new(), |trouble| trouble.reason.clone());
            progress.show(counts.0, note);
            if let Some(error) = forwarding.failure() {
                return Err(error.into());
            }
            if counts != before {
                (before, since) = (counts, Instant::now());
            }
            if self.once && is_idle {
                anyhow::ensure!(counts.1 == 0, "{} given up: {}", counted(counts.1, "row"), self.where_they_are());
                return Ok(());
            }
            if signals.end_asked() {
                return match signals.interrupted().filter(|_| self.once) {
                    Some(status) => {
                        let message = format!("interrupted after {}; the rest stays", counted(counts.0, "event"));
                        Err(Interrupted { message, status }.into())
                    }
                    None => Ok(()),
                };
            }
            if self.once && since.elapsed() >= timeout {
                let troubles = forwarding.health().troubles;
                let why = troubles.first().map_or("no answer".to_owned(), |trouble| trouble.reason.clone());
                anyhow::bail!("not all rows are forwarded: {why}; the rest stays and is forwarded the next time");
            }
            if !self.once {
                std::thread::sleep(POLL);
            }
        }
    }

    fn where_they_are(&self) -> String {
        format!("table catchment_forward_dead_letters has the ids and the reasons of table {}", self.table)
    }

    /// Prints how far the table is forwarded.
    fn print(&self, options: &OutboxOptions, ended: &anyhow::Result<()>) -> anyhow::Result<()> {
        let OutboxStatus { position, waiting, forwarded, given_up, missed, oldest_us } = Outbox::status(options)?;
        let mut output = Output::optional();
        if self.json {
            let line = serde_json::json!({
                "forwarded": forwarded,
                "given_up": given_up,
                "missed": missed,
                "waiting": waiting,
                "position": position,
                "oldest_us": oldest_us,
                "error": ended.as_ref().err().map(failure::line),
            });
            writeln!(output, "{line}")?;
        } else if ended.is_ok() {
            let lost = if given_up == 0 { String::new() } else { format!(", {} given up", HumanCount(given_up)) };
            let oldest = oldest_us.map_or(String::new(), |us| format!(", the oldest since {}", shown_time(us)));
            let below = match missed {
                0 => String::new(),
                _ => format!("; {} below it not forwarded", counted(missed, "row")),
            };
            writeln!(
                output,
                "table {}: {} forwarded{lost}, up to id {position}; {} waiting{oldest}{below}",
                options.table,
                counted(forwarded, "row"),
                HumanCount(waiting),
            )?;
        }
        Ok(output.flush()?)
    }
}
