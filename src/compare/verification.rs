//! Checks that a run stored exactly the events that were recorded. Without that its figures mean nothing.

use std::fmt::Write;
use std::ops::ControlFlow;
use std::path::Path;

use super::options::Setup;
use super::workload::{Messages, Workload};
use super::{CompareError, Work, arms};
use crate::store::{Reader, StatementOutput, Value};

/// What the rows of a database are.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct RowCheck {
    pub(super) rows: u64,
    /// Messages of the workload that have a row.
    pub(super) distinct: u64,
    /// Rows with the identity of a message and other content.
    pub(super) changed: u64,
    /// Rows that are not a message of the workload.
    pub(super) foreign: u64,
    /// Messages without a row.
    pub(super) missing: u64,
    /// The first of them.
    pub(super) first_missing: Option<u64>,
    pub(super) dead_letters: u64,
    /// What the counters of the work add up to, where the work has counters.
    pub(super) counted: Option<u64>,
}

/// Reads the whole of these databases and compares them with the messages of the workload.
pub(super) fn inspect<'p>(
    databases: impl IntoIterator<Item = &'p Path>,
    workload: &Workload,
    work: Work,
) -> Result<RowCheck, CompareError> {
    let mut found = RowCheck::default();
    let mut seen = vec![false; workload.events as usize];
    let messages = Messages::new(workload, workload.events);
    for database in databases {
        let reader = Reader::open(database)?;
        reader.run::<()>("SELECT subject, payload FROM events", |answer| {
            if let StatementOutput::Row(values) = answer {
                found.row(&values, workload, &messages, &mut seen);
            }
            ControlFlow::Continue(())
        })?;
        found.dead_letters += number(&reader, "SELECT count(*) FROM catchment_dead_letters")?;
        if work != Work::Insert {
            let counted = number(&reader, "SELECT coalesce(sum(events), 0) FROM chat_stats")?;
            *found.counted.get_or_insert(0) += counted;
        }
    }
    found.missing = seen.iter().filter(|seen| !**seen).count() as u64;
    found.first_missing = seen.iter().position(|seen| !seen).map(|at| at as u64);
    Ok(found)
}

/// The number that a query returns.
pub(super) fn number(reader: &Reader, sql: &str) -> Result<u64, CompareError> {
    let answer = reader.run(sql, |answer| match answer {
        StatementOutput::Row(values) => match values.first() {
            Some(Value::Integer(number)) => ControlFlow::Break(number.unsigned_abs()),
            _ => ControlFlow::Break(0),
        },
        StatementOutput::Columns(_) | StatementOutput::End => ControlFlow::Continue(()),
    })?;
    Ok(answer.unwrap_or(0))
}

impl RowCheck {
    fn row(&mut self, values: &[Value], workload: &Workload, messages: &Messages, seen: &mut [bool]) {
        self.rows += 1;
        let (subject, payload) = match values {
            [Value::Text(subject), Value::Text(payload)] => (subject, payload.as_bytes()),
            [Value::Text(subject), Value::Blob(payload)] => (subject, payload.as_slice()),
            _ => {
                self.foreign += 1;
                return;
            }
        };
        let identity = workload.identity(payload).filter(|number| *number < workload.events);
        let Some(number) = identity else {
            self.foreign += 1;
            return;
        };
        let expected = messages.encode(&messages.message(number));
        let same = subject == messages.subject(number) && expected.is_ok_and(|expected| expected == payload);
        self.changed += u64::from(!same);
        self.distinct += u64::from(!std::mem::replace(&mut seen[number as usize], true));
    }

    /// Fails if rows and events differ. An arm that may lose events may have missing ones, but nothing else may differ.
    pub(super) fn verify(&self, setup: &Setup) -> Result<(), CompareError> {
        let lost = !arms::may_lose(setup.arm) && self.missing > 0;
        let counted = self.counted.is_some_and(|counted| counted != self.rows);
        let odd = self.rows != self.distinct || self.changed + self.foreign + self.dead_letters > 0;
        if !lost && !odd && !counted {
            return Ok(());
        }
        let mut detail = format!("{} rows for {} events", self.rows, setup.events);
        let first = self.first_missing.map_or(String::new(), |number| format!(" (the first: event {number})"));
        let counted = if counted { self.counted } else { None };
        for (number, words) in [
            (if lost { self.missing } else { 0 }, format!("missing{first}")),
            (self.rows - self.foreign - self.distinct, "duplicated".into()),
            (self.changed, "with changed content".into()),
            (self.foreign, "that were not recorded".into()),
            (self.dead_letters, "dead letters".into()),
            (counted.unwrap_or(0), "counted by the database's own counters".into()),
        ] {
            if number > 0 {
                let _ = write!(detail, ", {number} {words}");
            }
        }
        Err(CompareError::Mismatch { arm: arms::name(setup.arm).into(), detail })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::{Arm, Codec, Options};
    use crate::config::DatabaseConfig;
    use crate::store::{Database, Editor, Routes};

    fn setup(arm: Arm) -> Setup {
        Options::default().setup(arm, 5)
    }

    /// What is found after five events were stored and this SQL was run.
    fn found(sql: &str) -> RowCheck {
        let folder = tempfile::tempdir().expect("a folder");
        let config = DatabaseConfig { path: folder.path().join("a.db"), ..DatabaseConfig::default() };
        drop(Database::open(&config, &Routes::default()).expect("opens"));
        let workload = Workload { seed: 1, events: 5, codec: Codec::Json, subject: "events.chat".into() };
        let messages = Messages::new(&workload, 5);
        let editor = Editor::open(&config.path).expect("opens");
        for number in 0..5 {
            let payload = messages.encode(&messages.message(number)).expect("JSON");
            let subject = messages.subject(number);
            let payload = String::from_utf8(payload).expect("UTF-8");
            let sql = "INSERT INTO events(subject, published_us, payload)";
            editor.run(&format!("{sql} VALUES ('{subject}', 0, '{payload}')")).expect("inserts");
        }
        editor.run(sql).expect("runs");
        inspect([&*config.path], &workload, Work::Insert).expect("reads")
    }

    fn refusal(arm: Arm, sql: &str) -> String {
        found(sql).verify(&setup(arm)).expect_err("must be refused").to_string()
    }

    #[test]
    fn a_complete_database_is_accepted() {
        let found = found("");
        assert_eq!((found.rows, found.distinct, found.missing), (5, 5, 0));
        assert!(found.verify(&setup(Arm::Jetstream)).is_ok());
    }

    #[test]
    fn a_row_that_is_missing_is_an_error_except_in_core_nats() {
        let sql = "DELETE FROM events WHERE id = 3";
        let message = refusal(Arm::Jetstream, sql);
        assert!(message.contains("jetstream: 4 rows for 5 events, 1 missing (the first: event 2)"), "{message}");
        assert!(found(sql).verify(&setup(Arm::CoreNats)).is_ok());
    }

    #[test]
    fn duplicated_changed_or_foreign_rows_are_errors_in_every_arm() {
        let copy =
            "INSERT INTO events(subject, published_us, payload) SELECT subject, 0, payload FROM events WHERE id = 1";
        assert!(refusal(Arm::CoreNats, copy).contains("1 duplicated"));
        let change = "UPDATE events SET payload = replace(payload, 'viewer', 'viever') WHERE id = 1";
        assert!(refusal(Arm::CoreNats, change).contains("1 with changed content"));
        assert!(
            refusal(Arm::CoreNats, "UPDATE events SET payload = 'x' WHERE id = 1").contains("1 that were not recorded")
        );
    }
}
