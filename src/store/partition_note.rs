//! Which partition of a stream a database has. Another one would mix with it: what it lacks of the other would be neither collected nor
//! missed.

use std::path::Path;

use rusqlite::{Connection, params};

use super::Database;
use super::meta;
use super::sqlite_error::database_error;
use crate::config::BrokerConfig;
use crate::error::{DatabaseFault, Error};

/// What is noted for a database that has all partitions.
const ALL: &str = "all";

/// The key of the note in `catchment_meta`.
fn key(stream: &str) -> String {
    format!("partition of {stream}")
}

/// The key of the note how far the stream was collected before it had partitions.
fn undivided_key(stream: &str) -> String {
    format!("undivided of {stream}")
}

/// The note for these settings; `None` without partitions.
fn of(broker: &BrokerConfig) -> Option<String> {
    broker.partitions?;
    Some(broker.partition.map_or_else(|| ALL.to_owned(), |partition| partition.to_string()))
}

pub(super) fn read(connection: &Connection, stream: &str) -> rusqlite::Result<Option<String>> {
    meta::get(connection, &key(stream))
}

/// The sequence up to which the database has the stream from before it had partitions. A replay of its partition does not read these events.
pub(super) fn read_undivided(connection: &Connection, stream: &str) -> rusqlite::Result<Option<u64>> {
    let noted: Option<String> = meta::get(connection, &undivided_key(stream))?;
    Ok(noted.and_then(|sequence| sequence.parse().ok()))
}

/// Refuses settings with another partition than the noted one.
pub(super) fn compare(path: &Path, noted: Option<&str>, broker: &BrokerConfig) -> Result<(), Error> {
    let now = of(broker);
    let Some(noted) = noted.filter(|noted| now.as_deref() != Some(noted)) else { return Ok(()) };
    let shown = |partition: &str| match partition {
        ALL => "all partitions".to_owned(),
        partition => format!("partition {partition}"),
    };
    let stream = &broker.stream;
    let (settings, remedy) = match (now, noted) {
        (None, _) => ("are without partitions".into(), "set broker.partitions, and broker.partition, as they were"),
        (Some(now), _) => (
            format!("are for {}", shown(&now)),
            "name the database of that partition in database.path, or a new one; each partition needs its own",
        ),
    };
    let detail = format!("it has {} of stream {stream}, and the settings {settings}", shown(noted));
    Err(Error::database(DatabaseFault::Conflict, path, detail).with_remedy(remedy))
}

impl Database {
    /// Refuses settings with another partition than the one that the database has. Returns whether one is noted.
    ///
    /// # Errors
    ///
    /// [`Error::Database`]: it has another partition, or it cannot be read.
    pub fn must_have_partition(&self, broker: &BrokerConfig) -> Result<bool, Error> {
        let connection = self.connect()?;
        let path = self.file().path();
        let noted = read(&connection.sqlite, &broker.stream).map_err(|e| database_error(path, e))?;
        compare(path, noted.as_deref(), broker)?;
        Ok(noted.is_some())
    }

    /// Notes the partition of the settings, if they have one, and that the database has the stream up to this sequence from before that.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] when it cannot be written.
    pub fn note_partition(&self, broker: &BrokerConfig, undivided: u64) -> Result<(), Error> {
        let Some(note) = of(broker) else { return Ok(()) };
        let connection = self.connect()?;
        let mut notes = vec![(key(&broker.stream), note)];
        if undivided > 0 {
            notes.push((undivided_key(&broker.stream), undivided.to_string()));
        }
        let insert = || {
            let transaction = connection.sqlite.unchecked_transaction()?;
            for (key, value) in notes {
                let sql = "INSERT OR IGNORE INTO catchment_meta(key, value) VALUES (?, ?)";
                transaction.execute(sql, params![key, value])?;
            }
            transaction.commit()
        };
        insert().map_err(|e| database_error(self.file().path(), e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Unmatched;
    use crate::store::Inspection;
    use crate::store::fixture::Fixture;

    #[test]
    fn a_database_keeps_its_partition() {
        let fixture = Fixture::with_routes("", &[], Unmatched::Store).expect("opens");
        let database = fixture.open();
        let broker = |partitions, partition| BrokerConfig { partitions, partition, ..BrokerConfig::default() };
        let (none, all, first, second) =
            (broker(None, None), broker(Some(2), None), broker(Some(2), Some(0)), broker(Some(2), Some(1)));
        let refused = |broker: &BrokerConfig| database.must_have_partition(broker).err().map(|error| error.to_string());
        database.note_partition(&none, 7).expect("nothing to note");
        for broker in [&none, &all, &first, &second] {
            assert_eq!(database.must_have_partition(broker).ok(), Some(false), "nothing is noted yet");
        }
        database.note_partition(&second, 7).expect("notes");
        let undivided =
            |stream: &str| read_undivided(&database.connect().expect("connects").sqlite, stream).expect("reads");
        assert_eq!((undivided("EVENTS"), undivided("OTHER")), (Some(7), None));
        assert_eq!(database.must_have_partition(&second).ok(), Some(true));
        assert_eq!(refused(&broker(Some(4), Some(1))), None, "their number may change");
        assert!(refused(&first).is_some_and(|said| {
            said.contains(
                "it has partition 1 of stream EVENTS, and the settings are for partition 0; name the database",
            )
        }));
        assert!(refused(&all).is_some_and(|said| said.contains("the settings are for all partitions")));
        assert!(
            refused(&none)
                .is_some_and(|said| said.contains("the settings are without partitions; set broker.partitions"))
        );
        let other = BrokerConfig { stream: "OTHER".into(), ..first };
        assert_eq!(database.must_have_partition(&other).ok(), Some(false), "a note is for one stream");
        let inspection = Inspection::open(&fixture.config.path).expect("opens");
        assert!(inspection.must_have_partition(&second).is_ok() && inspection.must_have_partition(&none).is_err());
    }
}
