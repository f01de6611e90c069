//! The first start of a collector for a partition.

use crate::broker::StreamReader;
use crate::config::BrokerConfig;
use crate::error::{BrokerFault, Error};
use crate::pipeline::{EpochProgress, Mark};
use crate::store::Database;

/// Notes the partition in the database, and how far it has the stream from before that. Events from before the stream had partitions are
/// in none of them: a database that has collected some of them must have all, and for a new one that is logged.
///
/// # Errors
///
/// [`Error::Broker`]: the database lacks such events. [`Error::Database`].
pub(super) fn begin(config: &BrokerConfig, database: &Database, history: &[EpochProgress]) -> Result<(), Error> {
    if config.partitions.is_none() {
        return Ok(());
    }
    let after = history.last().map_or(Mark::START, |progress| progress.mark).sequence;
    let reader = StreamReader::open(config, &[])?;
    if let Some(first) = reader.first_undivided(after + 1)? {
        let stream = &config.stream;
        let what = format!("message {first} of stream {stream} is from before it had partitions");
        if after > 0 {
            let (fault, server) = (BrokerFault::Stream, config.shown_servers());
            let detail = format!("{what}, and the database does not have it");
            let remedy =
                "collect such messages first: catchment run --drain without broker.partitions and broker.partition";
            return Err(Error::Broker { fault, server, detail, remedy: None }.with_remedy(remedy));
        }
        log::warn!(
            event = "stream.undivided", stream = stream, sequence = first;
            "broker: {what}: such messages are in no partition, and only a collector without broker.partitions collects them"
        );
    }
    database.note_partition(config, after)
}
