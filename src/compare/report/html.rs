//! A comparison as one page without scripts that fetches nothing; for light and dark screens, phones and paper.

use super::charts::{self, palette};
use super::document::{Block, document};
use super::escape::{escaped, relative};
use super::tables::Table;
use crate::compare::Comparison;

const STYLE: &str = include_str!("style.css");

/// The whole report.
#[must_use]
pub fn html(comparison: &Comparison) -> String {
    let body: String = document(comparison).iter().map(|block| render(comparison, block)).collect();
    let palette = palette::style();
    format!(
        r#"<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Direct or through NATS: what it costs</title>
<style>
{STYLE}{palette}</style>
</head>
<body>
<main>
{body}</main>
</body>
</html>
"#
    )
}

fn render(comparison: &Comparison, block: &Block) -> String {
    match block {
        Block::Heading(level, text) => element(&format!("h{level}"), "", &escaped(text)),
        Block::Paragraph(text) => element("p", "", &escaped(text)),
        Block::Headline(text) => element("p", " class=\"headline\"", &escaped(text)),
        Block::List(items) => list("ul", "", items.iter().map(|item| escaped(item))),
        Block::Notes(notes) => list("ol", " class=\"notes\"", notes.iter().map(|note| escaped(note))),
        Block::Table(table) => render_table(table),
        Block::Chart(chart) => charts::figure(comparison, *chart),
        Block::Links(links) => list("ul", "", links.iter().map(|(label, file)| link(label, file))),
    }
}

fn element(name: &str, attributes: &str, inside: &str) -> String {
    format!("<{name}{attributes}>{inside}</{name}>\n")
}

fn list(name: &str, attributes: &str, items: impl Iterator<Item = String>) -> String {
    let items: String = items.map(|item| element("li", "", &item)).collect();
    element(name, attributes, &format!("\n{items}"))
}

/// A table in a box that scrolls, because a phone is narrower than five arms. The keyboard reaches the box.
fn render_table(table: &Table) -> String {
    let title = escaped(&table.title);
    let class = |at: usize| if table.figures[at] { " class=\"figure\"" } else { "" };
    let head = table.head.iter().enumerate();
    let head: String =
        head.map(|(at, head)| element("th", &format!(" scope=\"col\"{}", class(at)), &escaped(head))).collect();
    let cell = |(at, cell): (usize, &String)| match at {
        0 => element("th", " scope=\"row\"", &escaped(cell)),
        _ => element("td", class(at), &escaped(cell)),
    };
    let row = |row: &Vec<String>| element("tr", "", &row.iter().enumerate().map(cell).collect::<String>());
    let rows: String = table.rows.iter().map(row).collect();
    let inside =
        [element("caption", "", &title), element("thead", "", &element("tr", "", &head)), element("tbody", "", &rows)];
    let kind = if table.figures.contains(&true) { " class=\"figures\"" } else { " class=\"words\"" };
    let scrolls = format!(" class=\"scroll\" role=\"region\" tabindex=\"0\" aria-label=\"{title}\"");
    element("div", &scrolls, &element("table", kind, &inside.concat()))
}

fn link(label: &str, file: &str) -> String {
    match relative(file) {
        Some(href) => format!("<a href=\"{}\">{}</a>", escaped(&href), escaped(label)),
        None => format!("{}: {}", escaped(label), escaped(file)),
    }
}
