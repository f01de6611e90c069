//! How the events of each route are looked for: by a column that has their sequence, or by the number of rows.

use rusqlite::Connection;

use crate::error::Error;
use crate::store::insert_statement::InsertStatement;
use crate::store::routes::authorizer::Authorizer;
use crate::store::routes::plan::Plan;
use crate::store::schema;
use crate::store::sqlite_error::one_line;

/// A column that has the sequences of routed events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) table: String,
    pub(super) column: String,
}

/// How the events of a route are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RouteTarget {
    /// By the key with this number.
    Key(usize),
    /// By the number of rows of the table with this number.
    Count(usize),
    /// Not at all: its statements do not add one row for each event.
    Unknown,
}

/// A table that is compared by the number of its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CountedTable {
    /// Its name.
    pub table: String,
    /// How many rows it has.
    pub rows: u64,
    /// How many messages of the stream its routes take, so far.
    pub messages: u64,
}

/// How the events of all routes are looked for.
#[derive(Debug)]
pub(super) struct RouteTargets {
    pub(super) keys: Vec<Key>,
    /// By the numbers of the routes.
    pub(super) routes: Vec<RouteTarget>,
    /// The tables that are compared by the number of their rows.
    pub(super) tables: Vec<CountedTable>,
}

impl RouteTargets {
    /// For these routes. `given` names columns: `messages.seq`.
    pub(super) fn new(
        plan: &Plan,
        sqlite: &Connection,
        authorizer: &Authorizer,
        given: &[String],
    ) -> Result<Self, Error> {
        let mut keys: Vec<Key> = Vec::new();
        let mut tables: Vec<CountedTable> = Vec::new();
        let mut unused: Vec<&String> = given.iter().collect();
        let named = given.iter().map(|key| parse_key(key, sqlite)).collect::<Result<Vec<_>, _>>()?;
        let mut targets = Vec::new();
        for number in 0..plan.names().count() {
            let statements = &plan.route(number).statements;
            let inserts: Vec<String> =
                statements.iter().flat_map(|one| authorizer.inserts(|| drop(sqlite.prepare(&one.sql)))).collect();
            let fills = |key: &Key| inserts.iter().any(|table| table.eq_ignore_ascii_case(&key.table));
            let read: Vec<InsertStatement> =
                statements.iter().filter_map(|one| InsertStatement::of(&one.sql)).collect();
            let of_statement = || {
                let of_plain = |insert: &InsertStatement| {
                    let column = insert.column_of("sequence").filter(|_| insert.is_plain)?;
                    Some(Key { table: insert.table.clone(), column: column.to_owned() })
                };
                read.iter().find_map(of_plain)
            };
            let key = named.iter().position(fills).map(|at| {
                unused.retain(|key| **key != given[at]);
                named[at].clone()
            });
            targets.push(match (key.or_else(of_statement), read.iter().find(|insert| insert.is_plain)) {
                (Some(key), _) => RouteTarget::Key(position_of(&mut keys, key, PartialEq::eq)),
                (None, Some(insert)) => {
                    let table = CountedTable { table: insert.table.clone(), rows: 0, messages: 0 };
                    RouteTarget::Count(position_of(&mut tables, table, |one, other| one.table == other.table))
                }
                (None, None) => RouteTarget::Unknown,
            });
        }
        match unused.first() {
            Some(key) => Err(Error::config("VerifyOptions::keys", format!("no route fills the table of {key}"))),
            None => Ok(Self { keys, routes: targets, tables }),
        }
    }
}

fn position_of<T>(all: &mut Vec<T>, one: T, is_same: impl Fn(&T, &T) -> bool) -> usize {
    all.iter().position(|known| is_same(known, &one)).unwrap_or_else(|| {
        all.push(one);
        all.len() - 1
    })
}

/// A key as it is written: `table.column`.
fn parse_key(text: &str, sqlite: &Connection) -> Result<Key, Error> {
    let refused = |detail: String| Error::config("VerifyOptions::keys", detail);
    let Some((table, column)) = text.split_once('.').filter(|(table, column)| !table.is_empty() && !column.is_empty())
    else {
        return Err(refused(format!("{text:?} is not a table and a column; an example is messages.seq")));
    };
    // Qualified: SQLite takes a quoted name alone for a text if there is no such column.
    let (of, name) = (schema::quoted(table), schema::quoted(column));
    match sqlite.prepare(&format!("SELECT {of}.{name} FROM {of} LIMIT 0")) {
        Ok(_) => Ok(Key { table: table.to_owned(), column: column.to_owned() }),
        Err(error) => Err(refused(format!("{text} is no column of the database: {}", one_line(&error)))),
    }
}
