//! Puts dead letters back into the spool.
//!
//! The server may have stored an event that was given up, so that it is sent under its own number again, if the database can tell from it
//! whether it has the event. It can if no number of the same name that is [`WIDTH`] higher, or more, was ever sent. If it cannot, but the
//! event is certain to be nowhere, it gets another number: copies of the spool give it the same. The rest stays, unless the caller accepts
//! that it may be stored twice. So do the dead letters of the last start in a copy: the original may have sent them under their numbers.

use data_encoding::BASE32_NOPAD;
use rusqlite::{Connection, params};
use sha2::{Digest, Sha256};

use super::starts::UNKNOWN;
use super::{Spool, Sum};
use crate::error::Error;
use crate::event_id::WIDTH;
use crate::unix_time::now_us;

/// What became of the dead letters of a spool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetriedLetters {
    /// They are sent again under their own numbers.
    pub same: u64,
    /// They are sent under other numbers.
    pub renumbered: u64,
    /// They stay: they may be stored already, and under another number they would be stored twice.
    pub left: u64,
}

struct Letter {
    id: i64,
    name: String,
    number: i64,
    size: u64,
    may_be_stored: bool,
    /// The positions of its name, if that is known.
    range: Option<(i64, i64)>,
}

impl Letter {
    /// The position that it had, if a database can tell whether it has its number.
    fn own_position(&self) -> Option<i64> {
        let (first, through) = self.range?;
        let position = first.checked_add(self.number)?;
        let behind = through.checked_sub(position)?;
        (through != UNKNOWN && behind >= 0 && behind.unsigned_abs() < WIDTH).then_some(position)
    }

    /// Whether it is stored nowhere, and no copy of the spool sends it under its own number.
    fn is_nowhere(&self) -> bool {
        !self.may_be_stored && self.range.is_some_and(|(_, through)| through != UNKNOWN)
    }

    /// A name for it alone. Copies of the spool give it the same.
    fn new_name(&self) -> String {
        let digest = Sha256::digest(format!("{}-{}", self.name, self.number));
        BASE32_NOPAD.encode(&digest[..12]).to_ascii_lowercase()
    }
}

impl Spool {
    /// Puts the dead letters back into the spool. Those that would get another number, and may be stored already, only if `all` is set.
    /// Open the spool again to forward them.
    ///
    /// # Errors
    ///
    /// [`Error::Database`]. Nothing is changed then.
    pub fn retry_dead_letters(&self, all: bool) -> Result<RetriedLetters, Error> {
        let mut retried = RetriedLetters::default();
        let moved = self.change("FULL", |transaction| {
            let (mut done, mut added) = (RetriedLetters::default(), Sum::default());
            // The position before it has this start's name.
            let mut last = self.first();
            for letter in letters(transaction)? {
                let position = match letter.own_position() {
                    Some(position) => {
                        done.same += 1;
                        position.unsigned_abs()
                    }
                    None if all || letter.is_nowhere() => {
                        done.renumbered += 1;
                        last += 1;
                        let sql = "INSERT INTO catchment_spool_names(first, name, started_us, through) VALUES (?1, ?2, ?3, ?1)";
                        transaction.prepare_cached(sql)?.execute(params![last, letter.new_name(), now_us()])?;
                        last
                    }
                    None => {
                        done.left += 1;
                        continue;
                    }
                };
                let sql = "INSERT INTO catchment_spool_events(position, recorded_us, size, subject, headers, payload)
                           SELECT ?1, recorded_us, size, subject, headers, payload FROM catchment_spool_dead_letters WHERE id = ?2";
                transaction.prepare_cached(sql)?.execute(params![position, letter.id])?;
                let sql = "DELETE FROM catchment_spool_dead_letters WHERE id = ?";
                transaction.prepare_cached(sql)?.execute([letter.id])?;
                added.add(letter.size);
            }
            transaction.execute(
                "UPDATE catchment_spool SET events = events + ?1, bytes = bytes + ?2, last = max(last, ?3),
                     dead_letters = (SELECT count(*) FROM catchment_spool_dead_letters)",
                params![added.events, added.bytes, last],
            )?;
            retried = done;
            Ok(None)
        });
        moved.map_err(|problem| problem.at(self.path()))?;
        Ok(retried)
    }
}

fn letters(connection: &Connection) -> rusqlite::Result<Vec<Letter>> {
    let sql = "SELECT id, name, number, size, may_be_stored, first, through
               FROM catchment_spool_dead_letters LEFT JOIN catchment_spool_names USING (name) ORDER BY id";
    let letter = |row: &rusqlite::Row<'_>| {
        let (first, through): (Option<i64>, Option<i64>) = (row.get(5)?, row.get(6)?);
        Ok(Letter {
            id: row.get(0)?,
            name: row.get(1)?,
            number: row.get(2)?,
            size: row.get(3)?,
            may_be_stored: row.get(4)?,
            range: first.zip(through),
        })
    };
    connection.prepare(sql)?.query_map([], letter)?.collect()
}
