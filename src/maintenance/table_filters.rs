//! Which rows of a table to print or to export: by subject, by time, by an SQL expression.

use crate::config::{Config, RouteConfig};
use crate::error::Error;
use crate::printable::printable;
use crate::store::{InsertStatement, Reader, RowFilter, RowTable, Value};
use crate::subject::Filter;

const US_A_SECOND: f64 = 1e6;

/// The conditions of the command line.
pub struct TableFilters {
    pub subject: Option<Filter>,
    /// In microseconds since 1970.
    pub since_us: Option<i64>,
    /// An SQL expression.
    pub condition: Option<String>,
    routes: Vec<RouteConfig>,
}

impl TableFilters {
    pub fn new(subject: Option<Filter>, since_us: Option<i64>, condition: Option<String>, config: &Config) -> Self {
        Self { subject, since_us, condition, routes: config.routes.clone() }
    }

    /// The conditions for the rows of this table, or why they do not fit it, in one line.
    ///
    /// # Errors
    ///
    /// The database cannot be read.
    pub fn of(&self, reader: &Reader, table: &RowTable) -> Result<Result<RowFilter, String>, Error> {
        let mut filter = RowFilter::default();
        let name = printable(&table.name);
        let routes =
            if self.subject.is_some() || self.since_us.is_some() { self.routes_of(reader, table)? } else { Vec::new() };
        if let Some(subject) = &self.subject {
            match self.by_subject(subject, &routes, table, filter) {
                Ok(with) => filter = with,
                Err(reason) => return Ok(Err(format!("--subject does not fit table {name}: {reason}"))),
            }
        }
        if let Some(since) = self.since_us {
            let Some(with) = by_time(reader, since, &routes, table, filter) else {
                let reason =
                    "no column has the publish time, from :published_s or :published_us of a route; use --where";
                return Ok(Err(format!("--since does not fit table {name}: {reason}")));
            };
            filter = with;
        }
        if let Some(sql) = &self.condition {
            filter = filter.expression(sql);
            if let Some(reason) = reader.misfit(table, &filter)? {
                return Ok(Err(format!("--where does not fit table {name}: {reason}")));
            }
        }
        Ok(Ok(filter))
    }

    /// The routes that add rows to this table.
    fn routes_of(&self, reader: &Reader, table: &RowTable) -> Result<Vec<&RouteConfig>, Error> {
        let mut routes = Vec::new();
        for route in &self.routes {
            if reader.inserted_tables(route.sql.iter().map(String::as_str))?.contains(&table.name) {
                routes.push(route);
            }
        }
        Ok(routes)
    }

    /// Rows of events on this subject: by a column with the subject, or all rows if the table has no others.
    fn by_subject(
        &self,
        subject: &Filter,
        routes: &[&RouteConfig],
        table: &RowTable,
        filter: RowFilter,
    ) -> Result<RowFilter, String> {
        let column = inserts(routes, table).find_map(|insert| insert.column_of("subject").map(str::to_owned));
        if let Some(column) = column.or_else(|| column_of(table, "subject")) {
            return Ok(filter.subject(&column, subject));
        }
        let is_outside = |route: &&RouteConfig| !route.subject.parse().is_ok_and(|of: Filter| subject.covers(&of));
        let outside: Vec<&str> = routes.iter().copied().filter(is_outside).map(RouteConfig::name).collect();
        let is_disjoint = |route: &&RouteConfig| route.subject.parse().is_ok_and(|of: Filter| !subject.overlaps(&of));
        if !routes.is_empty() && routes.iter().all(is_disjoint) {
            return Err(format!("only events on other subjects fill it (route {})", outside.join(", ")));
        }
        match (routes.is_empty(), outside.is_empty()) {
            (true, _) if self.routes.is_empty() => Err("it has no column subject; use --where".into()),
            (true, _) => Err("no route fills it, and it has no column subject; use --where".into()),
            (false, true) => Ok(filter),
            (false, false) => Err(format!(
                "it has no column subject, and events on other subjects fill it too (route {}); use --where",
                outside.join(", ")
            )),
        }
    }
}

/// The statements of the routes that add a row to this table.
fn inserts<'r>(routes: &[&'r RouteConfig], table: &RowTable) -> impl Iterator<Item = InsertStatement<'r>> {
    let all = routes.iter().flat_map(|route| &route.sql).filter_map(|sql| InsertStatement::of(sql));
    all.filter(|insert| insert.is_into(&table.name))
}

/// Rows of events that were published at this time or later. Which column has the time, and in which unit, is known from the routes.
fn by_time(
    reader: &Reader,
    since_us: i64,
    routes: &[&RouteConfig],
    table: &RowTable,
    filter: RowFilter,
) -> Option<RowFilter> {
    for insert in inserts(routes, table) {
        for (column, expression) in insert.filled_columns() {
            if !expression.contains(":published_") {
                continue;
            }
            let (then, later) = (since_us, since_us.saturating_add(86_400_000_000));
            let (Some(then), Some(later)) = (reader.value_at(expression, then), reader.value_at(expression, later))
            else {
                continue;
            };
            if let Some(scale) = units_a_second(&then, &later) {
                return Some(filter.since(column, then.borrowed(), scale));
            }
        }
    }
    if let Some(column) = column_of(table, "published_us") {
        return Some(filter.since(&column, Value::Integer(since_us).borrowed(), US_A_SECOND));
    }
    let column = column_of(table, "published_s")?;
    Some(filter.since(&column, Value::Integer(since_us.div_euclid(1_000_000)).borrowed(), 1.0))
}

/// In which unit a column has times, by the values for two times with a day in between. `None` if it has no times.
fn units_a_second(then: &Value, later: &Value) -> Option<f64> {
    const DAY: f64 = 86_400.0;
    #[allow(clippy::cast_precision_loss, reason = "a unit is a power of ten")]
    let difference = match (then, later) {
        (Value::Integer(then), Value::Integer(later)) => (later - then) as f64,
        (Value::Real(then), Value::Real(later)) => later - then,
        (Value::Text(then), Value::Text(later)) if then < later => DAY,
        _ => return None,
    };
    (difference > 0.0).then_some(difference / DAY)
}

/// The column with this name, as the table spells it.
fn column_of(table: &RowTable, name: &str) -> Option<String> {
    table.columns.iter().find(|column| column.eq_ignore_ascii_case(name)).cloned()
}
