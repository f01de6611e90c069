//! By what a table is recognised: digests of some of the rows that were passed, of the last ones and, the longer ago, the fewer.
//!
//! If rows are deleted, SQLite may use their ids again. Then the table has other rows under ids that are passed, and they are not to be
//! taken for the rows that were forwarded. A row whose content was changed is no new one, and is not forwarded again.

use rusqlite::Connection;

use super::rows::{Digested, Rows};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct History {
    /// How many rows were passed.
    count: u64,
    /// In the order of their ids.
    samples: Vec<Sample>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Sample {
    /// Which row of those that were passed it is, from 1.
    at: u64,
    id: u64,
    digested: Digested,
    digest: String,
}

/// What is known of a table.
pub(super) struct Known {
    /// All rows up to this one are passed.
    pub(super) position: u64,
    /// All rows up to this one were read.
    pub(super) named: u64,
    /// The schema has not been changed since the samples were taken.
    pub(super) is_same_schema: bool,
}

/// What has become of a table.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It has the rows that were forwarded, or they were deleted.
    Same,
    /// The content of these rows was changed.
    Changed(Vec<u64>),
    /// Rows were deleted at its end, and their ids are used again, or it was restored: this is the last row that is known to be the same.
    Shortened(u64),
    /// Its rows are others.
    Restarted(String),
}

impl History {
    /// From the column of a table.
    pub(super) fn parse(text: &str) -> Self {
        let sample = |part: &str| {
            let mut fields = part.split(':');
            let mut number = || fields.next()?.parse().ok();
            let (at, id) = (number()?, number()?);
            let columns = fields.next()?;
            let digested = Digested { headers: columns.contains('h'), time: columns.contains('t') };
            Some(Sample { at, id, digested, digest: fields.next()?.to_owned() })
        };
        let samples: Vec<Sample> = text.split(',').filter_map(sample).collect();
        Self { count: samples.last().map_or(0, |last| last.at), samples }
    }

    pub(super) fn text(&self) -> String {
        let part = |Sample { at, id, digested, digest }: &Sample| {
            let (headers, time) = (if digested.headers { "h" } else { "" }, if digested.time { "t" } else { "" });
            format!("{at}:{id}:{headers}{time}:{digest}")
        };
        self.samples.iter().map(part).collect::<Vec<_>>().join(",")
    }

    /// The history after these rows were passed too. Those that are not in the table any more are left out.
    pub(super) fn with(&self, connection: &Connection, rows: &Rows, ids: &[u64]) -> rusqlite::Result<Self> {
        let count = self.count + ids.len() as u64;
        // The last 32, and four of each 64, 128, 256 and so on before them.
        let stays = |at: u64| count - at < 32 || count - at < 4 << at.trailing_zeros().min(60);
        let mut samples: Vec<Sample> = self.samples.iter().filter(|sample| stays(sample.at)).cloned().collect();
        for (at, id) in (self.count + 1..).zip(ids).filter(|(at, _)| stays(*at)) {
            let digested = rows.digested();
            if let Some(digest) = rows.digest(connection, *id, digested)? {
                samples.push(Sample { at, id: *id, digested, digest });
            }
        }
        Ok(Self { count, samples })
    }

    /// The history without the rows after this one.
    pub(super) fn through(&self, id: u64) -> Self {
        let samples = self.samples.iter().filter(|sample| sample.id <= id).cloned().collect();
        Self { samples, ..*self }
    }

    /// The history with the present content of these rows.
    pub(super) fn refreshed(mut self, connection: &Connection, rows: &Rows, ids: &[u64]) -> rusqlite::Result<Self> {
        for sample in self.samples.iter_mut().filter(|sample| ids.contains(&sample.id)) {
            sample.digested = rows.digested();
            if let Some(digest) = rows.digest(connection, sample.id, sample.digested)? {
                sample.digest = digest;
            }
        }
        Ok(self)
    }

    /// Whether this row is in the table as it was when it was passed.
    pub(super) fn has(&self, connection: &Connection, rows: &Rows, id: u64) -> rusqlite::Result<bool> {
        let Some(sample) = self.samples.iter().find(|sample| sample.id == id) else { return Ok(false) };
        Ok(compared(connection, rows, sample)? == Some(true))
    }

    /// Compares the table with what is known of it.
    pub(super) fn verdict(&self, connection: &Connection, rows: &Rows, known: &Known) -> rusqlite::Result<Verdict> {
        let Known { position, named, is_same_schema } = *known;
        let last = rows.last(connection)?;
        if last >= named && self.has(connection, rows, position)? {
            return Ok(Verdict::Same);
        }
        let (mut same, mut changed) = (None, Vec::new());
        for sample in &self.samples {
            match compared(connection, rows, sample)? {
                Some(true) => same = Some(sample.id),
                Some(false) => changed.push(sample.id),
                None => {}
            }
        }
        if let Some(same) = same {
            return Ok(match (last < named, changed.is_empty()) {
                // What follows may be new.
                (true, _) => Verdict::Shortened(same.min(last)),
                (false, true) => Verdict::Same,
                (false, false) => Verdict::Changed(changed),
            });
        }
        if last < named {
            let detail = format!("it ends at row {last}, before row {named}, which was read already");
            return Ok(Verdict::Restarted(detail));
        }
        if changed.is_empty() {
            return Ok(Verdict::Same);
        }
        // With AUTOINCREMENT, another row under the same id is in another table. Otherwise ids that are used again begin at 1, so that other
        // rows are below: the only row that is left of several was changed.
        let is_update = if rows.has_sequence() {
            is_same_schema
        } else {
            changed == [position] && position > 1 && rows.below(connection, position)? == 1
        };
        if is_update {
            return Ok(Verdict::Changed(changed));
        }
        let detail = match &changed[..] {
            [id] => format!("row {id} is not the one that was forwarded"),
            ids => format!(
                "{} rows that were looked at, up to row {}, are not those that were forwarded",
                ids.len(),
                ids[ids.len() - 1]
            ),
        };
        Ok(Verdict::Restarted(detail))
    }
}

/// Whether a row is as it was. `None` if that cannot be said: it is gone, or columns are gone.
fn compared(connection: &Connection, rows: &Rows, sample: &Sample) -> rusqlite::Result<Option<bool>> {
    if !rows.digested().has(sample.digested) {
        return Ok(None);
    }
    let found = rows.digest(connection, sample.id, sample.digested)?;
    Ok(found.map(|found| found == sample.digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_stays_short_and_is_read_back() {
        let connection = Connection::open_in_memory().expect("memory");
        let sql = "CREATE TABLE t(id INTEGER PRIMARY KEY, subject, payload);
                   WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
                   INSERT INTO t SELECT i, 'a', i FROM n;";
        connection.execute_batch(sql).expect("SQL");
        let rows = Rows::of("t.db".as_ref(), &connection, "t").expect("a table");
        let mut history = History::default();
        for first in (1..=20_000).step_by(500) {
            let ids: Vec<u64> = (first..first + 500).collect();
            history = history.with(&connection, &rows, &ids).expect("reads");
        }
        assert_eq!((history.count, history.samples.len() < 100), (20_000, true), "{}", history.samples.len());
        let ids: Vec<u64> = history.samples.iter().map(|sample| sample.id).collect();
        assert!(ids.is_sorted() && ids[0] <= 16_384 && ids.ends_with(&[19_997, 19_998, 19_999, 20_000]), "{ids:?}");
        assert_eq!(History::parse(&history.text()), history);
        assert_eq!(History::parse(""), History::default());
    }
}
