//! What the routes' SQL turned out to be: every statement compiled against the database, its parameters known by name.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::{Connection, Statement};

use super::authorizer::Authorizer;
use super::{Route, Routes};
use crate::binding::Parameters;
use crate::config::DEFAULT_MAX_STEPS;
use crate::error::Error;
use crate::store::dead_letters::DeadLetterReason;
use crate::store::sqlite_error::{detail, events_error, statement_error};

/// What stands for a route's name where no route takes an event.
const EVENTS: &str = "events";
const INSERT_EVENT: &str =
    "INSERT INTO events(subject, stream, sequence, published_us, headers, payload) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";

/// The routes, ready to be run on any connection to the database.
#[derive(Debug)]
pub(in crate::store) struct Plan {
    path: PathBuf,
    routes: Routes,
    /// What dead letters call table `events`, and its statement.
    events: (Arc<str>, Arc<str>),
    planned: Vec<Planned>,
    /// How many different statements there are.
    pub(in crate::store) statements: usize,
}

/// A route.
#[derive(Debug)]
pub(in crate::store) struct Planned {
    /// What errors and dead letters call it.
    pub(in crate::store) name: Arc<str>,
    /// What all its statements ask for.
    pub(in crate::store) parameters: Parameters,
    pub(in crate::store) steps: Vec<Step>,
    pub(in crate::store) reply: bool,
    /// Steps of SQLite that each statement may take.
    pub(in crate::store) max_steps: u64,
}

/// A statement of a route.
#[derive(Debug)]
pub(in crate::store) struct Step {
    pub(in crate::store) sql: Arc<str>,
    /// Counts the different statements of all routes, from 0.
    pub(in crate::store) statement: usize,
    /// The numbers of the parameters that its own, from SQLite's index 1 on, are bound to.
    pub(in crate::store) bindings: Vec<usize>,
}

impl Plan {
    /// Compiles every statement once.
    ///
    /// # Errors
    ///
    /// With the route's name, the statement's number and the place in it: wrong SQL, a table or column that is not there, a
    /// parameter without a name, one that does anything else than write rows.
    pub(in crate::store) fn new(
        path: &Path,
        routes: &Routes,
        connection: &Connection,
        authorizer: &Authorizer,
    ) -> Result<Self, Error> {
        if routes.use_events() {
            let prepared = authorizer.watch(|| connection.prepare(INSERT_EVENT).map(drop));
            prepared.map_err(|e| events_error(path, e, authorizer.refusal()))?;
        }
        let mut distinct: Vec<Arc<str>> = Vec::new();
        let mut planned = Vec::new();
        let compiler = Compiler { path, connection, authorizer };
        for route in routes.iter() {
            planned.push(compiler.plan(route, &mut distinct)?);
        }
        let events = (EVENTS.into(), INSERT_EVENT.into());
        Ok(Self { path: path.to_owned(), routes: routes.clone(), events, planned, statements: distinct.len() })
    }

    pub(in crate::store) fn routes(&self) -> &Routes {
        &self.routes
    }

    /// Whether some route answers the events that ask for it.
    pub(in crate::store) fn replies(&self) -> bool {
        self.planned.iter().any(|planned| planned.reply)
    }

    pub(in crate::store) fn route(&self, number: usize) -> &Planned {
        &self.planned[number]
    }

    /// How many steps of SQLite a statement may take: see [`Budget`](super::budget::Budget).
    pub(in crate::store) fn max_steps(&self, place: Place) -> u64 {
        match place {
            Place::Events => DEFAULT_MAX_STEPS,
            Place::Route { route, .. } => self.planned[route].max_steps,
        }
    }

    /// The SQL of a statement.
    pub(in crate::store) fn sql(&self, place: Place) -> &str {
        match place {
            Place::Events => INSERT_EVENT,
            Place::Route { route, step } => &self.planned[route].steps[step].sql,
        }
    }

    /// The error for a statement that cannot be prepared.
    pub(in crate::store) fn refused(&self, place: Place, error: rusqlite::Error, authorizer: &Authorizer) -> Error {
        let refusal = authorizer.refusal();
        match place {
            Place::Events => events_error(&self.path, error, refusal),
            Place::Route { route, step } => {
                let Planned { name, steps, .. } = &self.planned[route];
                statement_error(&self.path, &named_place(name, step), &steps[step].sql, error, refusal)
            }
        }
    }

    /// Why an event failed there.
    pub(in crate::store) fn reason(&self, place: Place, error: &rusqlite::Error) -> DeadLetterReason {
        let (route, statement) = match place {
            Place::Events => (Arc::clone(&self.events.0), Arc::clone(&self.events.1)),
            Place::Route { route, step } => {
                let planned = &self.planned[route];
                (Arc::clone(&planned.name), Arc::clone(&planned.steps[step].sql))
            }
        };
        DeadLetterReason { route: Some(route), statement: Some(statement), error: detail(error) }
    }
}

/// A statement of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Place {
    /// The one that adds to table `events`.
    Events,
    /// One of a route, both counted from 0.
    Route { route: usize, step: usize },
}

fn named_place(route: &str, step: usize) -> String {
    format!("route {route}, statement {}", step + 1)
}

/// What statements are compiled with.
struct Compiler<'c> {
    path: &'c Path,
    connection: &'c Connection,
    authorizer: &'c Authorizer,
}

impl Compiler<'_> {
    fn plan(&self, route: &Route, distinct: &mut Vec<Arc<str>>) -> Result<Planned, Error> {
        let config = &route.config;
        let mut names: Vec<String> = Vec::new();
        let mut steps = Vec::new();
        for (at, sql) in config.sql.iter().enumerate() {
            let asked = self.parameters(&named_place(config.name(), at), sql)?;
            let bindings = asked.into_iter().map(|name| position(&mut names, name)).collect();
            // The cache of a connection knows a statement without the white space around it.
            let sql: Arc<str> = sql.trim().into();
            let statement = position(distinct, Arc::clone(&sql));
            steps.push(Step { sql, statement, bindings });
        }
        let parameters = Parameters::new(names.iter().map(String::as_str), &config.bind, config.codec)
            .map_err(|reason| Error::config(format!("route {}", config.name()), reason))?;
        Ok(Planned { name: config.name().into(), parameters, steps, reply: config.reply, max_steps: config.max_steps })
    }

    /// The names of a statement's parameters, in SQLite's order.
    fn parameters(&self, place: &str, sql: &str) -> Result<Vec<String>, Error> {
        let Self { path, connection, authorizer } = self;
        let wrong = |error: rusqlite::Error, why| statement_error(path, place, sql, error, why);
        let misused = |why: String| wrong(rusqlite::Error::InvalidQuery, Some(why));
        authorizer.saw_writing();
        let statement = match authorizer.watch(|| connection.prepare(sql)) {
            Ok(statement) => statement,
            Err(error) => return Err(wrong(error, authorizer.refusal())),
        };
        // Of no statement at all SQLite has no text.
        if statement.expanded_sql().is_none() {
            return Err(misused("is empty".into()));
        }
        if !authorizer.saw_writing() || statement.is_explain() != 0 {
            return Err(misused("writes nothing: a route's statements insert, update or delete rows".into()));
        }
        if statement.column_count() > 0 {
            return Err(misused("answers rows, and nobody reads them; leave RETURNING out".into()));
        }
        named(&statement).map_err(misused)
    }
}

fn position<T: PartialEq>(items: &mut Vec<T>, item: T) -> usize {
    items.iter().position(|known| *known == item).unwrap_or_else(|| {
        items.push(item);
        items.len() - 1
    })
}

fn named(statement: &Statement<'_>) -> Result<Vec<String>, String> {
    let named = |index| match statement.parameter_name(index).map(|name| name.split_at(1)) {
        Some((":" | "@" | "$", name)) => Ok(name.to_owned()),
        _ => Err("has a parameter ? without a name; give it the name of what it is bound to, as :username".to_owned()),
    };
    (1..=statement.parameter_count()).map(named).collect()
}

#[cfg(test)]
mod tests;
