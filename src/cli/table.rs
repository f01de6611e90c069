//! Tables for people.
//!
//! A table is as wide as its content. If the terminal is narrower, long texts are wrapped between words. If that is not enough,
//! each row becomes a block with a line for each column, as it does where a text is very long. Numbers and words are never broken.

use std::io::{self, IsTerminal, Write};

use comfy_table::{Attribute, Cell, CellAlignment, Table, presets};
use unicode_width::UnicodeWidthStr;

/// Rows of one table. The column widths fit these rows.
const ROWS_AT_A_TIME: usize = 1_000;

/// Columns of the terminal that one table may take, all its rows together, unless it has a single row. With [`ROWS_AT_A_TIME`] this bounds
/// memory.
const AREA_AT_A_TIME: usize = 4 << 20;

/// A longer text makes blocks: a table fills each row with spaces to its width.
const LONGEST_TEXT: usize = 10_000;

/// Texts are not wrapped to less than this: narrower columns would make tall rows.
const NARROWEST_TEXT: usize = 24;

/// Columns between two contents: two spaces and a border.
const BETWEEN: usize = 3;

/// The dashes before the number of a block.
const RULE: &str = "──";

/// Rows under one header, printed a thousand at a time, or fewer if they are long.
pub struct Grid {
    header: Vec<String>,
    rows: Vec<Vec<GridCell>>,
    /// The lengths of the header and of these rows.
    lengths: Vec<Lengths>,
    /// How many rows were printed.
    printed: u64,
    are_blocks: bool,
    /// Columns of the terminal; `None` if lines may have any length.
    width: Option<usize>,
}

/// A value in one line.
pub enum GridCell {
    Text(String),
    /// On the right of its column.
    Number(String),
    /// `NULL` on a terminal, else empty.
    Null,
}

impl Grid {
    /// Rows with this header for standard output.
    pub fn new(header: Vec<String>) -> Self {
        Self::with_width(header, terminal_width())
    }

    fn with_width(header: Vec<String>, width: Option<usize>) -> Self {
        Self { lengths: of_header(&header), header, rows: Vec::new(), printed: 0, are_blocks: false, width }
    }

    /// Adds a row. Prints when there are enough.
    pub fn row(&mut self, to: &mut impl Write, row: Vec<GridCell>) -> io::Result<()> {
        let mut with_it = self.lengths.clone();
        include(&mut with_it, &row);
        let area = with_it.iter().map(|of| of.longest).sum::<usize>().saturating_mul(self.rows.len() + 1);
        if self.rows.len() >= ROWS_AT_A_TIME || (area > AREA_AT_A_TIME && !self.rows.is_empty()) {
            self.print(to)?;
            include(&mut self.lengths, &row);
        } else {
            self.lengths = with_it;
        }
        self.rows.push(row);
        Ok(())
    }

    /// Whether there was no row so far.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.printed == 0
    }

    /// Prints the rest. If there was no row at all, prints the header.
    pub fn finish(mut self, to: &mut impl Write) -> io::Result<()> {
        if self.rows.is_empty() && self.printed > 0 { Ok(()) } else { self.print(to) }
    }

    fn print(&mut self, to: &mut impl Write) -> io::Result<()> {
        let rows = std::mem::take(&mut self.rows);
        let lengths = std::mem::replace(&mut self.lengths, of_header(&self.header));
        let is_too_long = lengths.iter().any(|of| of.longest > LONGEST_TEXT);
        let fitting = fitting(&lengths, self.width.filter(|_| !rows.is_empty())).filter(|_| !is_too_long);
        self.are_blocks |= fitting.is_none();
        match fitting {
            Some(widths) if !self.are_blocks => writeln!(to, "{}", table(&self.header, &rows, &widths))?,
            _ => {
                for (number, row) in (self.printed + 1..).zip(&rows) {
                    block(to, number, &self.header, row, self.width.unwrap_or(usize::MAX))?;
                }
            }
        }
        self.printed += rows.len() as u64;
        Ok(())
    }
}

impl GridCell {
    fn text(&self) -> &str {
        match self {
            Self::Text(text) | Self::Number(text) => text,
            Self::Null if is_styled() => "NULL",
            Self::Null => "",
        }
    }
}

/// The lengths of a column's contents: the longest, and the longest part that must not be broken.
#[derive(Clone, Copy)]
struct Lengths {
    longest: usize,
    unbroken: usize,
}

fn of_header(header: &[String]) -> Vec<Lengths> {
    header.iter().map(|name| Lengths { longest: name.width(), unbroken: name.width() }).collect()
}

/// The same with this row.
fn include(all: &mut [Lengths], row: &[GridCell]) {
    for (lengths, cell) in all.iter_mut().zip(row) {
        let length = cell.text().width();
        let unbroken = match cell {
            GridCell::Text(text) => text.split(' ').map(UnicodeWidthStr::width).max().unwrap_or(0),
            _ => length,
        };
        *lengths = Lengths { longest: lengths.longest.max(length), unbroken: lengths.unbroken.max(unbroken) };
    }
}

/// Widths of the columns for a table of at most this width; `None` if there are none.
fn fitting(lengths: &[Lengths], width: Option<usize>) -> Option<Vec<usize>> {
    let least = |of: &Lengths| of.unbroken.max(of.longest.min(NARROWEST_TEXT));
    let mut widths: Vec<usize> = lengths.iter().map(|of| of.longest).collect();
    let Some(width) = width else { return Some(widths) };
    let mut room = width.checked_sub(lengths.len() * BETWEEN + 1)?.checked_sub(lengths.iter().map(least).sum())?;
    // The room beyond the least goes to the column that is wrapped the least, so that most columns are not wrapped at all.
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&at| lengths[at].longest - least(&lengths[at]));
    for at in order {
        let more = (lengths[at].longest - least(&lengths[at])).min(room);
        widths[at] = least(&lengths[at]) + more;
        room -= more;
    }
    Some(widths)
}

/// Lines of at most this width, broken at spaces. A word that is longer has a line of its own.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut taken = 0;
    for word in text.split(' ') {
        let line = lines.last_mut().expect("never empty");
        let wide = word.width();
        if line.is_empty() {
            line.push_str(word);
            taken = wide;
        } else if taken + 1 + wide <= width {
            line.push(' ');
            line.push_str(word);
            taken += 1 + wide;
        } else {
            lines.push(word.to_owned());
            taken = wide;
        }
    }
    lines
}

fn table(header: &[String], rows: &[Vec<GridCell>], widths: &[usize]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED).set_header(header);
    for row in rows {
        table.add_row(row.iter().zip(widths).map(|(cell, width)| match cell {
            GridCell::Text(text) if text.width() > *width => Cell::new(wrapped(text, *width).join("\n")),
            GridCell::Text(text) => Cell::new(text),
            GridCell::Number(text) => Cell::new(text).set_alignment(CellAlignment::Right),
            GridCell::Null if is_styled() => Cell::new(cell.text()).add_attribute(Attribute::Dim),
            GridCell::Null => Cell::new(""),
        }));
    }
    table
}

/// A row as a block: a line with its number, then each column.
fn block(to: &mut impl Write, number: u64, header: &[String], row: &[GridCell], width: usize) -> io::Result<()> {
    writeln!(to, "{RULE} {number} {RULE}")?;
    let names = header.iter().map(|name| name.width()).max().unwrap_or(0);
    let room = width.saturating_sub(names + 2);
    for (name, cell) in header.iter().zip(row) {
        let text = cell.text();
        // In too little room a terminal's own line breaks read better.
        let lines = if room < NARROWEST_TEXT / 2 { vec![text.to_owned()] } else { wrapped(text, room) };
        for (at, line) in lines.iter().enumerate() {
            let name = if at == 0 { name } else { "" };
            let padding = " ".repeat(names - name.width());
            writeln!(to, "{}", format!("{name}{padding}  {line}").trim_end())?;
        }
    }
    Ok(())
}

/// Columns of the terminal, if standard output is one.
fn terminal_width() -> Option<usize> {
    let (terminal_size::Width(columns), _) = terminal_size::terminal_size_of(io::stdout())?;
    Some(usize::from(columns)).filter(|columns| *columns > 0)
}

fn is_styled() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(width: Option<usize>, header: &[&str], rows: &[&[&str]]) -> String {
        let mut grid = Grid::with_width(header.iter().map(|&name| name.to_owned()).collect(), width);
        let mut to = Vec::new();
        for row in rows {
            let cell = |text: &&str| match text.parse::<f64>() {
                Ok(_) => GridCell::Number((*text).to_owned()),
                Err(_) => GridCell::Text((*text).to_owned()),
            };
            grid.row(&mut to, row.iter().map(cell).collect()).expect("writes");
        }
        grid.finish(&mut to).expect("writes");
        String::from_utf8(to).expect("UTF-8")
    }

    const HEADER: [&str; 3] = ["id", "subject", "error"];
    const ROW: [&str; 3] =
        ["1234567", "chat.message.log", "NOT NULL constraint failed: messages.message, in the route lines"];

    #[test]
    fn a_table_is_as_wide_as_its_content_where_that_fits() {
        let wide = printed(None, &HEADER, &[&ROW]);
        let row = "│ 1234567 ┆ chat.message.log ┆ NOT NULL constraint failed: messages.message, in the route lines │";
        assert_eq!(wide.lines().nth(3), Some(row), "{wide}");
        assert_eq!(printed(Some(row.width()), &HEADER, &[&ROW]), wide);
        assert_eq!(printed(Some(row.width() - 1), &HEADER, &[&ROW]).lines().count(), 6);
    }

    #[test]
    fn a_long_text_is_wrapped_between_words() {
        let expected = "\
┌─────────┬──────────────────┬─────────────────────────────┐
│ id      ┆ subject          ┆ error                       │
╞═════════╪══════════════════╪═════════════════════════════╡
│ 1234567 ┆ chat.message.log ┆ NOT NULL constraint failed: │
│         ┆                  ┆ messages.message, in the    │
│         ┆                  ┆ route lines                 │
└─────────┴──────────────────┴─────────────────────────────┘
";
        assert_eq!(printed(Some(62), &HEADER, &[&ROW]), expected);
    }

    #[test]
    fn a_row_that_is_too_wide_becomes_a_block() {
        let expected = "\
── 1 ──
id       1234567
subject  chat.message.log
error    NOT NULL constraint failed:
         messages.message, in the route
         lines
── 2 ──
id       2
subject
error    0123456789012345678901234567890123456789
";
        let rows: [&[&str]; 2] = [&ROW, &["2", "", "a0123456789012345678901234567890123456789"]];
        assert_eq!(printed(Some(40), &HEADER, &rows), expected.replace("error    0123", "error    a0123"));
    }

    #[test]
    fn a_very_long_text_makes_blocks_with_one_line_in_a_pipe() {
        let (long, longer) = ("word ".repeat(LONGEST_TEXT / 5) + "x", "x".repeat(1 << 20));
        let text = printed(None, &HEADER, &[&["1", "a", &long], &["2", "b", &longer]]);
        assert_eq!(
            text,
            format!(
                "── 1 ──\nid       1\nsubject  a\nerror    {long}\n── 2 ──\nid       2\nsubject  b\nerror    {longer}\n"
            )
        );
    }

    #[test]
    fn long_rows_are_printed_a_few_at_a_time() {
        let mut grid = Grid::with_width(vec!["text".into()], None);
        let mut to = Vec::new();
        for _ in 0..1_000 {
            grid.row(&mut to, vec![GridCell::Text("x".repeat(LONGEST_TEXT))]).expect("writes");
            assert!(grid.rows.len() * LONGEST_TEXT <= AREA_AT_A_TIME);
        }
        grid.finish(&mut to).expect("writes");
        let text = String::from_utf8(to).expect("UTF-8");
        let (rows, headers) = (text.matches("│ x").count(), text.matches("│ text ").count());
        assert_eq!((rows, headers), (1_000, (1_000 * LONGEST_TEXT).div_ceil(AREA_AT_A_TIME)));
    }

    #[test]
    fn a_table_without_rows_is_its_header() {
        for width in [None, Some(3), Some(80)] {
            let empty = printed(width, &["a", "b"], &[]);
            assert!(empty.contains("│ a ┆ b │") && empty.lines().count() == 4, "{empty}");
        }
    }

    #[test]
    fn wide_characters_count_twice() {
        assert_eq!(wrapped("漢字 漢字", 8), ["漢字", "漢字"]);
        assert_eq!(wrapped("a  b", 9), ["a  b"]);
        assert_eq!(wrapped("", 9), [""]);
    }
}
