//! The table, column or function that a name in SQL was probably meant as, when SQLite does not find it.

use rusqlite::Connection;

use super::schema::quoted;
use super::sqlite_error::message;
use crate::closest::did_you_mean;

/// The end of the message for a statement that cannot be prepared: `; did you mean username?`. Empty if it has no unknown name, or one
/// that is like no other. `connection` sees the tables of the statement.
pub(super) fn suggestion(connection: &Connection, sql: &str, error: &rusqlite::Error) -> String {
    let said = message(error);
    let after = |words: &str| said.split_once(words).map(|(before, name)| (before, name.trim()));
    if let Some((_, column)) = after("no such column: ") {
        let (table, column) = column.rsplit_once('.').map_or((None, column), |(table, column)| (Some(table), column));
        return like(column, &columns_in(connection, sql, table));
    }
    // `table users has no column named usernme`
    if let Some((table, column)) = after(" has no column named ") {
        return like(column, &columns(connection, table.trim_start_matches("table ")));
    }
    if let Some((_, table)) = after("no such table: ") {
        return like(table.rsplit('.').next().unwrap_or(table), &tables(connection));
    }
    if let Some((_, function)) = after("no such function: ") {
        return like(function, &functions(connection));
    }
    String::new()
}

/// SQLite compares names without regard to case.
fn like(name: &str, candidates: &[String]) -> String {
    let exact = did_you_mean(name, candidates.iter().map(String::as_str));
    if !exact.is_empty() {
        return exact;
    }
    let lower: Vec<String> = candidates.iter().map(|candidate| candidate.to_lowercase()).collect();
    did_you_mean(&name.to_lowercase(), lower.iter().map(String::as_str))
}

/// The columns of the tables that the statement names; of all tables if it names none, as in a trigger. `table` may be an alias.
fn columns_in(connection: &Connection, sql: &str, table: Option<&str>) -> Vec<String> {
    let all = tables(connection);
    let is_one = |name: &&String| table.is_some_and(|table| table.eq_ignore_ascii_case(name));
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let is_named = |name: &&String| {
        let mut words = sql.split(|c| !is_word(c));
        words.any(|word| word.eq_ignore_ascii_case(name)) || !name.chars().all(is_word)
    };
    let mut used: Vec<&String> = all.iter().filter(is_one).collect();
    if used.is_empty() {
        used = all.iter().filter(is_named).collect();
    }
    if used.is_empty() {
        used = all.iter().collect();
    }
    let mut found: Vec<String> = used.into_iter().flat_map(|table| columns(connection, table)).collect();
    found.sort();
    found.dedup();
    found
}

/// The columns of a table or view. Asked by a statement, because the authorizer of queries refuses PRAGMAs.
fn columns(connection: &Connection, table: &str) -> Vec<String> {
    let statement = connection.prepare(&format!("SELECT * FROM {} LIMIT 0", quoted(table)));
    statement.map(|statement| statement.column_names().into_iter().map(str::to_owned).collect()).unwrap_or_default()
}

fn tables(connection: &Connection) -> Vec<String> {
    names(
        connection,
        "SELECT name FROM sqlite_schema WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite^_%' ESCAPE '^'",
    )
}

fn functions(connection: &Connection) -> Vec<String> {
    names(connection, "SELECT DISTINCT name FROM pragma_function_list WHERE name GLOB '[a-z]*'")
}

/// What this statement lists; nothing if it is refused.
fn names(connection: &Connection, sql: &str) -> Vec<String> {
    let list = || connection.prepare(sql)?.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>();
    list().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "toml")]
    #[test]
    fn unknown_names_are_followed_by_those_that_are_like_them() {
        let connection = Connection::open_in_memory().expect("memory");
        let schema =
            "CREATE TABLE users(username TEXT, lines INTEGER, \"last seen\" TEXT); CREATE TABLE other(usernames, x);
                      CREATE VIEW recent AS SELECT username AS who FROM users";
        connection.execute_batch(schema).expect("SQL");
        for (sql, meant) in [
            ("SELECT usernme FROM users", "; did you mean username?"),
            ("SELECT u.usernme FROM users AS u", "; did you mean username?"),
            ("SELECT users.usernme FROM users", "; did you mean username?"),
            ("SELECT USERNME FROM users", "; did you mean username?"),
            ("INSERT INTO users(usernme) VALUES (1)", "; did you mean username?"),
            ("UPDATE users SET linse = 1", "; did you mean lines?"),
            ("SELECT \"last sen\" + lins FROM users", "; did you mean lines?"),
            ("SELECT hwo FROM recent", "; did you mean who?"),
            ("SELECT 1 FROM usres", "; did you mean users?"),
            ("SELECT 1 FROM main.usres", "; did you mean users?"),
            ("DELETE FROM recnt", "; did you mean recent?"),
            ("SELECT json_extrct(1)", "; did you mean json_extract?"),
            ("SELECT room FROM users", ""),
            ("SELECT 1 FROM rooms", ""),
            ("SELECT 1 FORM users", ""),
        ] {
            let error = connection.prepare(sql).expect_err(sql);
            assert_eq!(suggestion(&connection, sql, &error), meant, "{sql}: {error}");
        }
    }
}
