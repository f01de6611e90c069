//! Which rows of a table are read: by subject, by publish time, by an SQL expression of the user.

use rusqlite::functions::FunctionFlags;
use rusqlite::{Connection, Statement};

use super::schema::quoted;
use super::sql_tokens::tokens;
use super::sqlite_error::{message, position};
use super::suggestion::suggestion;
use crate::binding::Value;
use crate::subject::Filter;

/// The function of SQL that says whether a subject matches a filter.
const MATCHES: &str = "catchment_subject_matches";

/// Conditions for the rows of one table. All of them must be true. The default has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowFilter {
    conditions: Vec<String>,
    /// SQL of the user.
    expression: Option<String>,
}

impl RowFilter {
    /// The subject in this column matches.
    #[must_use]
    pub fn subject(mut self, column: &str, filter: &Filter) -> Self {
        self.conditions.push(format!("{MATCHES}({}, {})", literal(filter.as_str()), quoted(column)));
        self
    }

    /// The time in this column is at least this one. The column has times in the unit of `least`, which is also `scale` units a
    /// second, or texts that SQLite reads as times.
    #[must_use]
    pub fn since(mut self, column: &str, least: Value<'_>, scale: f64) -> Self {
        let column = quoted(column);
        self.conditions.push(match least {
            Value::Text(text) => format!("{column} >= {}", literal(text)),
            Value::Integer(least) => format!("{} >= {least}", number_of(&column, scale)),
            Value::Real(least) => format!("{} >= {least:?}", number_of(&column, scale)),
            Value::Null | Value::Blob(_) => "true".into(),
        });
        self
    }

    /// This expression of SQL is true. [`Reader::misfit`] must have accepted it.
    #[must_use]
    pub fn expression(mut self, sql: &str) -> Self {
        self.expression = Some(sql.to_owned());
        self
    }

    /// Whether there are no conditions.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.conditions.is_empty() && self.expression.is_none()
    }

    /// The expression of the user.
    pub(super) fn user_expression(&self) -> Option<&str> {
        self.expression.as_deref()
    }

    /// The conditions in SQL.
    pub(super) fn sql(&self) -> String {
        // A line end: the expression may end with a comment.
        let expression = self.expression.iter().map(|sql| format!("(\n{sql}\n)"));
        let all: Vec<String> = self.conditions.iter().cloned().chain(expression).collect();
        if all.is_empty() { "true".into() } else { all.join(" AND ") }
    }
}

/// Adds the function that filters call.
pub(super) fn add_functions(sqlite: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    sqlite.create_scalar_function(MATCHES, 2, flags, |arguments| {
        let (filter, subject) = (arguments.get_raw(0).as_str(), arguments.get_raw(1).as_str());
        let (Ok(filter), Ok(subject)) = (filter, subject) else { return Ok(false) };
        Ok(filter.parse::<Filter>().is_ok_and(|filter| filter.matches(subject)))
    })
}

/// A column's time as a number. A text that is no time is NULL.
fn number_of(column: &str, scale: f64) -> String {
    format!("CASE typeof({column}) WHEN 'text' THEN unixepoch({column}, 'subsec') * {scale:?} ELSE {column} END")
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Why this expression of the user cannot be a condition for the rows of a table: it is wrong, is more than one expression, or has
/// parameters. `None` if it can be one. Nothing is run.
///
/// # Errors
///
/// Whatever is not the expression's fault.
pub(super) fn misfit(connection: &Connection, table: &str, expression: &str) -> rusqlite::Result<Option<String>> {
    if let Some(reason) = not_one_expression(expression) {
        return Ok(Some(reason.to_owned()));
    }
    let before = format!("SELECT 1 FROM {} WHERE (\n", quoted(table));
    // A line end: the expression may end with a comment.
    let sql = format!("{before}{expression}\n)");
    match connection.prepare(&sql) {
        Ok(statement) => Ok(parameter_of(&statement)),
        Err(error) => {
            let meant = suggestion(connection, &sql, &error);
            let rusqlite::Error::SqlInputError { error, msg, offset, .. } = error else { return Err(error) };
            let offset = offset.saturating_sub(i32::try_from(before.len()).unwrap_or(i32::MAX));
            let error = rusqlite::Error::SqlInputError { error, msg, offset, sql: expression.to_owned() };
            Ok(Some(message(&error) + &position(expression, &error) + &meant))
        }
    }
}

/// Why a statement with a parameter cannot be used. `None` if it has none.
pub(super) fn parameter_of(statement: &Statement<'_>) -> Option<String> {
    let count = statement.parameter_count();
    // A `?` has no name.
    let name = (1..=count).find_map(|index| statement.parameter_name(index)).unwrap_or("?");
    (count > 0).then(|| format!("the parameter {name} has no value here"))
}

/// Why this text is not a single expression: between brackets it would be more, or less.
fn not_one_expression(sql: &str) -> Option<&'static str> {
    if sql.trim().is_empty() {
        return Some("it is empty");
    }
    if sql.contains('\0') {
        return Some("it has a NUL character");
    }
    let mut open = 0_usize;
    for token in tokens(sql) {
        match token.text.as_bytes()[0] {
            b'/' if token.is_open => return Some("a comment has no end"),
            b'[' if token.is_open => return Some("a bracket [ has no end"),
            _ if token.is_open => return Some("a quote has no end"),
            b'(' => open += 1,
            b')' => match open.checked_sub(1) {
                Some(left) => open = left,
                None => return Some("a bracket ) has no beginning"),
            },
            b';' => return Some("it has a semicolon; write one expression"),
            _ => {}
        }
    }
    (open > 0).then_some("a bracket ( has no end")
}
