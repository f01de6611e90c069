//! The partitions of a stream, and which of them is collected: `broker.partitions` and `broker.partition`.

use super::broker::BrokerConfig;
use super::core_nats::Mode;
use crate::error::Error;

/// The most partitions. Each needs a collector and a database.
const MOST: u32 = 1_024;

impl BrokerConfig {
    pub(super) fn validate_partitions(&self) -> Result<(), Error> {
        let Some(partitions) = self.partitions else {
            return match self.partition {
                None => Ok(()),
                Some(_) => Err(Error::config("broker.partition", "needs broker.partitions, the number of partitions")),
            };
        };
        if self.mode == Mode::Core {
            let detail = "needs a stream, and broker.mode is core";
            return Err(
                Error::config("broker.partitions", detail).with_remedy("remove it, or set mode = \"jetstream\"")
            );
        }
        if !(1..=MOST).contains(&partitions) {
            return Err(Error::config("broker.partitions", format!("is {partitions}; from 1 to {MOST}")));
        }
        match self.partition {
            Some(partition) if partition >= partitions => {
                let range =
                    if partitions == 1 { "0 is the only one".into() } else { format!("from 0 to {}", partitions - 1) };
                Err(Error::config(
                    "broker.partition",
                    format!("is {partition}; broker.partitions is {partitions}: {range}"),
                ))
            }
            _ => Ok(()),
        }
    }

    /// What is collected of a stream with partitions, as in a log line: `partition 1 of 4`, `all 4 partitions`. `None` without partitions.
    pub(crate) fn shown_partition(&self) -> Option<String> {
        Some(match (self.partitions?, self.partition) {
            (partitions, Some(partition)) => format!("partition {partition} of {partitions}"),
            (1, None) => "the only partition".into(),
            (partitions, None) => format!("all {partitions} partitions"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_that_cannot_be_is_refused_by_name() {
        let refused = |partitions, partition| {
            let broker = BrokerConfig { partitions, partition, ..BrokerConfig::default() };
            broker.validate().err().map(|error| error.to_string().replace("configuration: ", ""))
        };
        for (partitions, partition) in [(None, None), (Some(1), Some(0)), (Some(4), Some(3)), (Some(1_024), None)] {
            assert_eq!(refused(partitions, partition), None, "{partitions:?} {partition:?}");
        }
        for (partitions, partition, said) in [
            (None, Some(0), "broker.partition: needs broker.partitions, the number of partitions"),
            (Some(0), None, "broker.partitions: is 0; from 1 to 1024"),
            (Some(1_025), None, "broker.partitions: is 1025; from 1 to 1024"),
            (Some(4), Some(4), "broker.partition: is 4; broker.partitions is 4: from 0 to 3"),
            (Some(1), Some(1), "broker.partition: is 1; broker.partitions is 1: 0 is the only one"),
        ] {
            assert_eq!(refused(partitions, partition).as_deref(), Some(said));
        }
        let core = BrokerConfig { partitions: Some(2), mode: Mode::Core, ..BrokerConfig::default() };
        let said = core.validate().expect_err("must be refused").to_string();
        assert!(said.contains("broker.partitions: needs a stream, and broker.mode is core; remove it"), "{said}");
    }
}
