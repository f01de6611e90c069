//! A comparison as Markdown.

use super::document::{Block, document};
use super::escape::relative;
use super::figures::plain;
use super::tables::Table;
use crate::compare::Comparison;

/// The whole report, without its charts.
#[must_use]
pub fn markdown(comparison: &Comparison) -> String {
    let mut to = String::new();
    for block in document(comparison) {
        render(&block, &mut to);
    }
    to.truncate(to.trim_end().len());
    to.push('\n');
    to
}

fn render(block: &Block, to: &mut String) {
    match block {
        Block::Heading(level, text) => line(to, &format!("{} {}", "#".repeat(usize::from(*level)), escaped(text))),
        Block::Paragraph(text) => line(to, &escaped(text)),
        Block::Headline(text) => line(to, &format!("**{}**", escaped(text))),
        Block::List(items) => items.iter().for_each(|item| line(to, &format!("- {}", escaped(item)))),
        Block::Notes(notes) => {
            for (at, note) in notes.iter().enumerate() {
                line(to, &format!("{}. {}", at + 1, escaped(note)));
            }
        }
        Block::Table(table) => render_table(table, to),
        Block::Links(links) => links.iter().for_each(|(label, file)| line(to, &format!("- {}", link(label, file)))),
        Block::Chart(_) => return,
    }
    to.push('\n');
}

fn line(to: &mut String, text: &str) {
    to.push_str(text);
    to.push('\n');
}

fn link(label: &str, file: &str) -> String {
    match relative(file) {
        Some(href) => format!("[{}]({href})", escaped(label)),
        None => format!("{}: {}", escaped(label), escaped(file)),
    }
}

fn render_table(table: &Table, to: &mut String) {
    let row = |cells: &[String]| format!("| {} |", cells.join(" | "));
    let shown = |cells: &[String]| row(&cells.iter().map(|cell| escaped(cell)).collect::<Vec<_>>());
    let rule = |at: usize| if table.figures[at] { "--:" } else { ":--" };
    line(to, &format!("**{}**\n", escaped(&table.title)));
    line(to, &shown(&table.head));
    line(to, &row(&(0..table.head.len()).map(|at| rule(at).to_string()).collect::<Vec<_>>()));
    table.rows.iter().for_each(|cells| line(to, &shown(cells)));
}

/// Text without Markdown in it.
fn escaped(text: &str) -> String {
    let text = plain(text);
    let mut shown = String::with_capacity(text.len() + 8);
    let mut before = ' ';
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        // Inside a word an underscore is plain text; elsewhere it may begin emphasis.
        let in_word = before.is_alphanumeric() && rest.peek().is_some_and(|next| next.is_alphanumeric());
        match c {
            '\\' | '`' | '*' | '[' | ']' | '|' | '~' => shown.extend(['\\', c]),
            '_' if !in_word => shown.push_str("\\_"),
            '<' => shown.push_str("&lt;"),
            '>' => shown.push_str("&gt;"),
            '&' => shown.push_str("&amp;"),
            c => shown.push(c),
        }
        before = c;
    }
    shown
}
