//! The routes' SQL, checked: every statement was compiled against the database and its parameters resolved by name.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::{Connection, Statement};

use super::authorizer::Authorizer;
use super::multi_row::{self, MultiRowInsert};
use super::{Route, Routes};
use crate::binding::Parameters;
use crate::config::DEFAULT_MAX_STEPS;
use crate::error::Error;
use crate::store::dead_letters::DeadLetterReason;
use crate::store::sqlite_error::{Violation, events_error, one_line, statement_error, violation_error};
use crate::store::suggestion::suggestion;

/// The name of table `events` in errors and dead letters, in place of a route's.
const EVENTS: &str = "events";
const EVENT_COLUMNS: [&str; 6] = ["subject", "stream", "sequence", "published_us", "headers", "payload"];
const INSERT_EVENT: &str =
    "INSERT INTO events(subject, stream, sequence, published_us, headers, payload) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";

/// The routes, ready to run on any connection to the database.
#[derive(Debug)]
pub(in crate::store) struct Plan {
    path: PathBuf,
    routes: Routes,
    /// Name and statement of table `events` for dead letters.
    events: (Arc<str>, Arc<str>),
    /// What has the effect of its statement for several events, if that is possible.
    multi_row_events: Option<String>,
    planned: Vec<PlannedRoute>,
    /// How many different statements there are.
    pub(in crate::store) slots: usize,
}

/// A route with its compiled statements.
#[derive(Debug)]
pub(in crate::store) struct PlannedRoute {
    /// Its name in errors and dead letters.
    pub(in crate::store) name: Arc<str>,
    /// The parameters of all its statements.
    pub(in crate::store) parameters: Parameters,
    pub(in crate::store) statements: Vec<PlannedStatement>,
    /// What has the effect of its statement for several events, if that is possible.
    pub(in crate::store) multi_row: Option<MultiRowInsert>,
    pub(in crate::store) reply: bool,
    /// How many steps of SQLite each statement may take.
    pub(in crate::store) max_steps: u64,
}

/// A statement of a route.
#[derive(Debug)]
pub(in crate::store) struct PlannedStatement {
    pub(in crate::store) sql: Arc<str>,
    /// Its number among the different statements of all routes, from 0.
    pub(in crate::store) slot: usize,
    /// The numbers of the route's parameters that its own are bound to, in SQLite's order.
    pub(in crate::store) bindings: Vec<usize>,
}

impl Plan {
    /// Compiles every statement once.
    ///
    /// # Errors
    ///
    /// Wrong SQL, a missing table or column, a parameter without a name, or a statement that does anything else than write rows.
    /// The error names the route, the statement's number and the position in it.
    pub(in crate::store) fn new(
        path: &Path,
        routes: &Routes,
        connection: &Connection,
        authorizer: &Authorizer,
    ) -> Result<Self, Error> {
        if routes.use_events() {
            let prepared = authorizer.enforce(|| connection.prepare(INSERT_EVENT).map(drop));
            prepared.map_err(|e| events_error(path, e, authorizer.take_violation()))?;
        }
        let mut distinct: Vec<Arc<str>> = Vec::new();
        let mut planned = Vec::new();
        let compiler = Compiler { path, connection, authorizer };
        for route in routes.iter() {
            planned.push(compiler.plan(route, &mut distinct)?);
        }
        let events = (EVENTS.into(), INSERT_EVENT.into());
        let multi_row_events = multi_row::of_columns("events", &EVENT_COLUMNS, EVENT_COLUMNS.len(), connection);
        let (path, routes) = (path.to_owned(), routes.clone());
        Ok(Self { path, routes, events, multi_row_events, planned, slots: distinct.len() })
    }

    pub(in crate::store) fn routes(&self) -> &Routes {
        &self.routes
    }

    /// Whether some route confirms events.
    pub(in crate::store) fn replies(&self) -> bool {
        self.planned.iter().any(|planned| planned.reply)
    }

    /// The names of all routes, by their numbers.
    pub(in crate::store) fn names(&self) -> impl Iterator<Item = Arc<str>> + '_ {
        self.planned.iter().map(|planned| Arc::clone(&planned.name))
    }

    pub(in crate::store) fn route(&self, number: usize) -> &PlannedRoute {
        &self.planned[number]
    }

    /// How many steps of SQLite a statement may take: see [`Budget`](super::budget::Budget).
    pub(in crate::store) fn max_steps(&self, id: StatementId) -> u64 {
        match id {
            StatementId::Events => DEFAULT_MAX_STEPS,
            StatementId::Route { route, .. } => self.planned[route].max_steps,
        }
    }

    /// The SQL of a statement.
    pub(in crate::store) fn sql(&self, id: StatementId) -> &str {
        match id {
            StatementId::Events => INSERT_EVENT,
            StatementId::Route { route, number } => &self.planned[route].statements[number].sql,
        }
    }

    /// Whether there is a statement that has the effect of this one for several events.
    pub(in crate::store) fn is_multi_row(&self, id: StatementId) -> bool {
        match id {
            StatementId::Events => self.multi_row_events.is_some(),
            StatementId::Route { route, .. } => self.planned[route].multi_row.is_some(),
        }
    }

    /// The INSERT of several rows into table `events`, if there is one.
    pub(in crate::store) fn multi_row_events(&self) -> Option<&str> {
        self.multi_row_events.as_deref()
    }

    /// The error for a statement that cannot be prepared.
    pub(in crate::store) fn refused(&self, id: StatementId, error: rusqlite::Error, authorizer: &Authorizer) -> Error {
        let violation = authorizer.take_violation();
        match id {
            StatementId::Events => events_error(&self.path, error, violation),
            StatementId::Route { route, number } => {
                let PlannedRoute { name, statements, .. } = &self.planned[route];
                let sql = &statements[number].sql;
                // Which tables there are now is not known here.
                statement_error(&self.path, &statement_name(name, number), sql, error, violation, "")
            }
        }
    }

    /// The reason of an event for which this statement failed.
    pub(in crate::store) fn reason(&self, id: StatementId, error: &rusqlite::Error) -> DeadLetterReason {
        let (route, statement) = match id {
            StatementId::Events => (Arc::clone(&self.events.0), Arc::clone(&self.events.1)),
            StatementId::Route { route, number } => {
                let planned = &self.planned[route];
                (Arc::clone(&planned.name), Arc::clone(&planned.statements[number].sql))
            }
        };
        DeadLetterReason { route: Some(route), statement: Some(statement), error: one_line(error) }
    }
}

/// A statement of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum StatementId {
    /// The one that inserts into table `events`.
    Events,
    /// A statement of a route, both counted from 0.
    Route { route: usize, number: usize },
}

fn statement_name(route: &str, number: usize) -> String {
    format!("route {route}, statement {}", number + 1)
}

/// Compiles the statements of routes.
struct Compiler<'c> {
    path: &'c Path,
    connection: &'c Connection,
    authorizer: &'c Authorizer,
}

impl Compiler<'_> {
    fn plan(&self, route: &Route, distinct: &mut Vec<Arc<str>>) -> Result<PlannedRoute, Error> {
        let config = &route.config;
        let mut names: Vec<String> = Vec::new();
        let mut statements = Vec::new();
        for (at, sql) in config.sql.iter().enumerate() {
            let parameters = self.parameters(&statement_name(config.name(), at), sql)?;
            let bindings = parameters.into_iter().map(|name| position(&mut names, name)).collect();
            // A connection's statement cache trims the SQL too.
            let sql: Arc<str> = sql.trim().into();
            let slot = position(distinct, Arc::clone(&sql));
            statements.push(PlannedStatement { sql, slot, bindings });
        }
        let multi_row = match &statements[..] {
            [only] => self.multi_row(&only.sql, &mut names, distinct),
            _ => None,
        };
        let parameters = Parameters::new(names.iter().map(String::as_str), &config.bind, config.codec)
            .map_err(|reason| Error::config(format!("route {}", config.name()), reason))?;
        Ok(PlannedRoute {
            name: config.name().into(),
            parameters,
            statements,
            multi_row,
            reply: config.reply,
            max_steps: config.max_steps,
        })
    }

    /// The INSERT of several rows that has the effect of a route's only statement.
    fn multi_row(&self, sql: &str, names: &mut Vec<String>, distinct: &mut Vec<Arc<str>>) -> Option<MultiRowInsert> {
        let (sql, parameters) = multi_row::of(sql, self.connection)?;
        let sql: Arc<str> = sql.into();
        let slot = position(distinct, Arc::clone(&sql));
        let bindings = parameters.into_iter().map(|name| position(names, name)).collect();
        Some(MultiRowInsert { sql, slot, bindings })
    }

    /// The names of a statement's parameters, in SQLite's order.
    fn parameters(&self, name: &str, sql: &str) -> Result<Vec<String>, Error> {
        let Self { path, connection, authorizer } = self;
        let refuse = |violation| violation_error(path, name, violation);
        authorizer.take_writes();
        let statement = match authorizer.enforce(|| connection.prepare(sql)) {
            Ok(statement) => statement,
            Err(error) => {
                let violation = authorizer.take_violation();
                let meant = suggestion(connection, sql, &error);
                return Err(statement_error(path, name, sql, error, violation, &meant));
            }
        };
        // SQLite has no text for an empty statement.
        if statement.expanded_sql().is_none() {
            return Err(refuse(Violation::new("is empty")));
        }
        if !authorizer.take_writes() || statement.is_explain() != 0 {
            return Err(refuse(Violation::new("writes nothing: a route's statements insert, update or delete rows")));
        }
        if statement.column_count() > 0 {
            return Err(refuse(Violation::with_remedy("returns rows, which are not read", "leave RETURNING out")));
        }
        names(&statement).map_err(refuse)
    }
}

fn position<T: PartialEq>(items: &mut Vec<T>, item: T) -> usize {
    items.iter().position(|known| *known == item).unwrap_or_else(|| {
        items.push(item);
        items.len() - 1
    })
}

fn names(statement: &Statement<'_>) -> Result<Vec<String>, Violation> {
    let named = |index| match statement.parameter_name(index).map(|name| name.split_at(1)) {
        Some((":" | "@" | "$", name)) => Ok(name.to_owned()),
        _ => Err(Violation::with_remedy(
            "has a parameter ? without a name",
            "give it the name of what it is bound to, as :username",
        )),
    };
    (1..=statement.parameter_count()).map(named).collect()
}

#[cfg(test)]
mod tests;
