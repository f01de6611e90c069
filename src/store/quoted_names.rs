//! Text in double quotes: names only.
//!
//! SQLite takes a name in double quotes that it does not find for a text, unless it is told not to
//! (<https://sqlite.org/quirks.html#double_quoted_string_literals_are_accepted>). Then a misspelt column is no error: a route stores the
//! name instead of the value, and a rule of `[retention]` deletes rows that it should keep.

use rusqlite::Connection;
use rusqlite::config::DbConfig;

/// Refuses such texts in the statements of this connection. What a database has already keeps its meaning.
pub(super) fn names_only(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DDL, false)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_in_double_quotes_is_a_name_or_an_error() {
        let connection = Connection::open_in_memory().expect("memory");
        connection
            .execute_batch(
                r#"CREATE TABLE t("user name"); INSERT INTO t VALUES ('a'); CREATE VIEW v AS SELECT "text" AS x"#,
            )
            .expect("SQL");
        names_only(&connection).expect("is set");
        let run = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, String>(0));
        assert_eq!(run(r#"SELECT "user name" FROM t"#).expect("a column"), "a");
        let error = run(r#"SELECT "user nam" FROM t"#).expect_err("no column").to_string();
        assert!(error.contains("no such column"), "{error}");
        assert!(connection.execute_batch(r#"CREATE VIEW w AS SELECT "text" AS x; SELECT * FROM w"#).is_err());
    }
}
