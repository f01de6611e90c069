//! The commands at a terminal: tables that fit it, and the prompt of `sql`.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use rusqlite::Connection;

use crate::support::collector::{catchment, output, signal};
use crate::support::terminal::Terminal;

const TABLES: &str = "
CREATE TABLE messages(id INTEGER PRIMARY KEY, username TEXT NOT NULL, message TEXT);
INSERT INTO messages VALUES
    (1, 'ada', 'hello'),
    (1234567890123, 'bob', 'the quick brown fox jumps over the lazy dog and runs away from here'),
    (1234567890124, 'eve', NULL);
CREATE TABLE wide(id INTEGER PRIMARY KEY, json TEXT);
INSERT INTO wide VALUES (1234567890123, '{\"a\":\"a payload without any space in it\"}');
";

struct Database {
    folder: tempfile::TempDir,
}

impl Database {
    fn new() -> Self {
        let database = Self { folder: tempfile::tempdir().expect("a folder") };
        Connection::open(database.path()).and_then(|sqlite| sqlite.execute_batch(TABLES)).expect("a database");
        database
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("chat.db")
    }

    fn sql(&self, arguments: &[&str]) -> Command {
        let mut command = catchment();
        command.arg("sql").args(arguments).arg("--database").arg(self.path());
        command.env("XDG_STATE_HOME", self.folder.path().join("state"));
        command
    }

    #[track_caller]
    fn shown(&self, columns: u16, sql: &str) -> String {
        let (status, text) = Terminal::start(&mut self.sql(&[sql]), columns).ended();
        assert!(status.success(), "{text}");
        text
    }
}

#[test]
fn numbers_and_words_are_whole_on_a_narrow_terminal() {
    let database = Database::new();
    let narrow = "\
┌───────────────┬──────────┬──────────────────────────────────────────────┐
│ id            ┆ username ┆ message                                      │
╞═══════════════╪══════════╪══════════════════════════════════════════════╡
│             1 ┆ ada      ┆ hello                                        │
│ 1234567890123 ┆ bob      ┆ the quick brown fox jumps over the lazy dog  │
│               ┆          ┆ and runs away from here                      │
│ 1234567890124 ┆ eve      ┆ NULL                                         │
└───────────────┴──────────┴──────────────────────────────────────────────┘
";
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let shown = database.shown(75, "SELECT * FROM messages");
    assert!(shown.lines().all(|line| line.chars().count() <= 75), "{shown}");
    let without_borders = |text: &str| words(&text.replace(['─', '═'], ""));
    assert_eq!(without_borders(&shown), without_borders(narrow), "{shown}");
    let blocks = "\
── 1 ──
id        1
username  ada
message   hello
── 2 ──
id        1234567890123
username  bob
message   the quick brown fox jumps over
          the lazy dog and runs away
          from here
── 3 ──
id        1234567890124
username  eve
message   NULL
";
    assert_eq!(database.shown(40, "SELECT * FROM messages"), blocks);
    let block = "── 1 ──\nid    1234567890123\njson  {\"a\":\"a payload without\n      any space in it\"}\n";
    assert_eq!(database.shown(30, "SELECT * FROM wide"), block);
    assert_eq!(database.shown(9, "SELECT id FROM wide"), "── 1 ──\nid  1234567890123\n");
}

#[test]
fn a_pipe_gets_tables_as_wide_as_they_are() {
    let database = Database::new();
    let done = database.sql(&["SELECT * FROM messages"]).env("COLUMNS", "20").output().expect("runs");
    let table = String::from_utf8(done.stdout).expect("UTF-8");
    assert_eq!(table.lines().count(), 7, "{table}");
    assert!(table.contains("the quick brown fox jumps over the lazy dog and runs away from here"), "{table}");
}

#[test]
fn the_prompt_runs_statements_and_keeps_a_history() {
    let database = Database::new();
    let mut prompt = Terminal::start(&mut database.sql(&[]), 100);
    prompt.ends_with("chat> ");
    prompt.types(".tables\r");
    prompt.shows("│ messages ┆ table │");
    prompt.ends_with("chat> ");
    // Several lines up to the semicolon; a name is completed.
    prompt.types("select userna\t\rfrom messages limit 1;\r");
    prompt.shows("│ ada      │");
    for (typed, shown) in [
        ("delete from messages;", "only statements that read are run here"),
        (".mode json", "rows are printed as json"),
        ("select id from wide;", "{\"id\":1234567890123}"),
        (".schema wide", "\"sql\":\"CREATE TABLE wide("),
        (".schema \"no such\"", "there is no table or view no such; .tables lists them"),
        ("select :a;", "the parameter :a has no value here; write a value instead"),
        (".schema nope", "there is no table or view nope; .tables lists them"),
        (".nonsense", "there is no command .nonsense; .help lists them"),
        (".help", "…;        run SQL that reads"),
    ] {
        prompt.ends_with("chat> ");
        prompt.types(format!("{typed}\r"));
        prompt.shows(shown);
    }
    // Ctrl-C discards the line, Ctrl-D ends.
    prompt.ends_with("chat> ");
    prompt.types("select nothing");
    prompt.ends_with("chat> select nothing");
    prompt.types("\u{3}");
    prompt.ends_with("chat> ");
    prompt.types("select 'after' as it;\r");
    prompt.shows("{\"it\":\"after\"}");
    prompt.ends_with("chat> ");
    prompt.types("\u{4}");
    assert!(prompt.ended().0.success());

    let history = database.folder.path().join("state/catchment/sql_history");
    let mode = std::fs::metadata(&history).expect("is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(std::fs::read_to_string(history).expect("reads").contains("select username\\nfrom messages limit 1;\n"));
    let mut again = Terminal::start(&mut database.sql(&["--json"]), 100);
    again.ends_with("chat> ");
    again.types("\u{10}\r");
    again.shows("{\"it\":\"after\"}");
    again.ends_with("chat> ");
    again.types(".quit\r");
    assert!(again.ended().0.success());
}

#[test]
fn an_interrupt_ends_the_statement_and_not_the_prompt() {
    let database = Database::new();
    let mut prompt = Terminal::start(&mut database.sql(&["--json"]), 100);
    prompt.ends_with("chat> ");
    prompt.types("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n;\r");
    prompt.shows("{\"i\":1000}");
    signal(prompt.pid(), "INT");
    prompt.shows("interrupted");
    prompt.ends_with("chat> ");
    prompt.types("SELECT 'still here' AS it;\r");
    prompt.shows("{\"it\":\"still here\"}");
    prompt.ends_with("chat> ");
    prompt.types("quit\r");
    assert!(prompt.ended().0.success());
}

#[test]
fn a_signal_that_ends_the_prompt_leaves_the_terminal_as_it_was() {
    let database = Database::new();
    for name in ["TERM", "HUP", "QUIT"] {
        let mut prompt = Terminal::start(&mut database.sql(&[]), 100);
        prompt.ends_with("chat> ");
        prompt.types("select");
        prompt.ends_with("chat> select");
        assert!(!prompt.echoes(), "the prompt edits the line itself");
        signal(prompt.pid(), name);
        assert!(!prompt.ended().0.success());
        assert!(prompt.echoes(), "{name}");
    }
}

#[test]
fn data_does_not_steer_a_terminal_and_is_exact_elsewhere() {
    let database = Database::new();
    let sql = "SELECT char(27) || '[31mred' || char(155) || '2J' || char(8238) AS a";
    let (steering, escaped) = ("\u{1b}[31mred\u{9b}2J\u{202e}", r"\u001b[31mred\u009b2J\u202e");
    for (format, shown, piped) in [
        (&["--csv"][..], format!("a\n{escaped}\n"), format!("a\n{steering}\n")),
        (
            &["--json"],
            format!("{{\"a\":\"{escaped}\"}}\n"),
            format!("{{\"a\":\"{}\"}}\n", steering.replace('\u{1b}', r"\u001b")),
        ),
    ] {
        let (status, text) = Terminal::start(database.sql(format).arg(sql), 100).ended();
        assert!(status.success(), "{text}");
        assert_eq!(text, shown);
        let done = output(database.sql(format).arg(sql));
        assert_eq!(String::from_utf8_lossy(&done.stdout), piped);
    }
    assert!(database.shown(100, sql).contains(&format!("│ {escaped} │")));
}

#[test]
fn bytes_that_are_not_utf_8_end_the_line_and_not_the_prompt() {
    let database = Database::new();
    let mut prompt = Terminal::start(&mut database.sql(&["--json"]), 100);
    prompt.ends_with("chat> ");
    prompt.types(b"select '\xff");
    prompt.shows("what was typed is not UTF-8; the line is discarded");
    prompt.ends_with("chat> ");
    prompt.types("select 'still here' as it;\r");
    prompt.shows("{\"it\":\"still here\"}");
    prompt.ends_with("chat> ");
    // A statement that fails has no header.
    prompt.types(".mode table\r");
    prompt.shows("rows are printed as table");
    prompt.ends_with("chat> ");
    prompt.types("select json('x') as header_of_nothing;\r");
    prompt.shows("malformed JSON");
    prompt.ends_with("chat> ");
    assert!(!prompt.text().contains("┌"), "{}", prompt.text());
    prompt.types("quit\r");
    assert!(prompt.ended().0.success());
}
