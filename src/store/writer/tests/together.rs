//! Batches whose rows are inserted by multi-row statements.

use crate::config::{RouteConfig, Unmatched};
use crate::pipeline::Batch;
use crate::store::fixture::{Fixture, batch_of, route};

const SCHEMA: &str = "
    CREATE TABLE lines(id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL CHECK (name <> 'eve'), at INTEGER, text TEXT);
    CREATE TABLE counts(name TEXT PRIMARY KEY, lines INTEGER CHECK (lines < 3));
";

fn fixture() -> Fixture {
    let routes: [RouteConfig; 3] = [
        route("line", &["INSERT INTO lines(name, text, at) VALUES (:name, :payload, :sequence)"]),
        route("again", &["INSERT INTO lines(at, name) VALUES (:at, :name)"]),
        route("count", &["INSERT INTO counts VALUES (:name, 1) ON CONFLICT(name) DO UPDATE SET lines = lines + 1"]),
    ];
    Fixture::with_routes(SCHEMA, &routes, Unmatched::Store).expect("opens")
}

/// Commits the batch, and returns everything that it left.
fn result(fixture: &mut Fixture, batches: &[Batch]) -> (Vec<String>, usize) {
    let dead: usize = batches.iter().map(|batch| fixture.commit(batch).dead_letters).sum();
    let all = "SELECT concat_ws(' ', 'line', id, name, at, text) FROM lines
               UNION ALL SELECT concat_ws(' ', 'count', name, lines) FROM counts
               UNION ALL SELECT concat_ws(' ', 'event', id, subject, stream, sequence, published_us, headers, payload) FROM events
               UNION ALL SELECT concat_ws(' ', 'dead', sequence, error) FROM catchment_dead_letters";
    (fixture.texts(all), dead)
}

#[test]
fn together_they_have_the_effect_of_single_statements() {
    let long = format!(r#"{{"name":"long","text":"{}"}}"#, "x".repeat(5_000));
    let (ann, bob, nobody) = (r#"{"name":"ann"}"#, r#"{"name":"bob"}"#, "{}");
    let run = |subject, payload, count| std::iter::repeat_n((subject, payload), count);
    let cases: [Vec<(&str, &str)>; 10] = [
        run("line", ann, 16).collect(),
        run("line", ann, 15).collect(),
        run("line", ann, 37).collect(),
        run("elsewhere", "x", 50).collect(),
        run("line", ann, 20).chain(run("elsewhere", "y", 20)).chain(run("line", bob, 20)).collect(),
        run("line", ann, 9).chain([("line", long.as_str())]).chain(run("line", bob, 9)).collect(),
        run("line", ann, 20).chain([("line", nobody)]).chain(run("line", bob, 20)).collect(),
        run("line", ann, 17).chain(run("count", bob, 5)).chain(run("line", "no JSON", 2)).collect(),
        // The constraint refuses one, by itself and in a statement of several rows.
        run("line", ann, 18).chain([("again", r#"{"name":"eve","at":2}"#)]).chain(run("line", bob, 18)).collect(),
        run("line", ann, 20).chain([("line", r#"{"name":"eve"}"#)]).chain(run("line", bob, 20)).collect(),
    ];
    for (number, events) in cases.iter().enumerate() {
        let together = result(&mut fixture(), &[batch_of(0, events)]);
        let singly: Vec<_> = events.iter().enumerate().map(|(at, event)| batch_of(at, &[*event])).collect();
        assert_eq!(together, result(&mut fixture(), &singly), "case {number}");
        // Two events of one count are one row.
        assert_eq!(together.0.len(), events.len() - usize::from(number == 7), "case {number}");
    }
}

#[test]
fn sixteen_rows_are_one_statement() {
    for (events, rows_of_the_last) in [(15, 1), (16, 16), (32, 16), (33, 1)] {
        for subject in ["line", "elsewhere"] {
            let mut fixture = fixture();
            fixture.commit(&batch_of(0, &vec![(subject, r#"{"name":"ann"}"#); events]));
            let connection = fixture.writer.pool.get().expect("a connection");
            assert_eq!(connection.sqlite.changes(), rows_of_the_last, "{events} of {subject}");
        }
    }
}
