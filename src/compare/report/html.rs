//! A comparison as one page: no script, nothing fetched, light and dark, on a phone and on paper.

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::charts::{self, palette};
use super::document::{Block, document};
use super::figures::plain;
use super::tables::Sheet;
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
        Block::Table(sheet) => table(sheet),
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

/// In a box of its own that scrolls, for a phone is narrower than five arms. It can be reached by keyboard for that.
fn table(sheet: &Sheet) -> String {
    let title = escaped(&sheet.title);
    let head: String = sheet.head.iter().map(|head| element("th", " scope=\"col\"", &escaped(head))).collect();
    let rows: String = sheet.rows.iter().map(|row| element("tr", "", &cells(row))).collect();
    let inside =
        [element("caption", "", &title), element("thead", "", &element("tr", "", &head)), element("tbody", "", &rows)];
    let kind = if sheet.figures { " class=\"figures\"" } else { " class=\"words\"" };
    let scrolls = format!(" class=\"scroll\" role=\"region\" tabindex=\"0\" aria-label=\"{title}\"");
    element("div", &scrolls, &element("table", kind, &inside.concat()))
}

fn cells(row: &[String]) -> String {
    let cell = |(at, cell): (usize, &String)| match at {
        0 => element("th", " scope=\"row\"", &escaped(cell)),
        _ => element("td", "", &escaped(cell)),
    };
    row.iter().enumerate().map(cell).collect()
}

fn link(label: &str, file: &str) -> String {
    match relative(file) {
        Some(href) => format!("<a href=\"{}\">{}</a>", escaped(&href), escaped(label)),
        None => format!("{}: {}", escaped(label), escaped(file)),
    }
}

/// The address of a file beside the report; none if it lies anywhere else.
pub fn relative(file: &str) -> Option<String> {
    /// What would end an address or begin another part of it, in HTML or in Markdown.
    const SPECIAL: &AsciiSet = &CONTROLS
        .add(b' ')
        .add(b'"')
        .add(b'#')
        .add(b'%')
        .add(b'<')
        .add(b'>')
        .add(b'?')
        .add(b'(')
        .add(b')')
        .add(b':')
        .add(b'\\');
    let beside = !file.is_empty() && !file.starts_with('/') && !file.split('/').any(|part| part == "..");
    beside.then(|| utf8_percent_encode(file, SPECIAL).to_string())
}

/// Text that means itself, in content and in attributes.
pub fn escaped(text: &str) -> String {
    let text = plain(text);
    let mut shown = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '&' => shown.push_str("&amp;"),
            '<' => shown.push_str("&lt;"),
            '>' => shown.push_str("&gt;"),
            '"' => shown.push_str("&quot;"),
            '\'' => shown.push_str("&#39;"),
            c => shown.push(c),
        }
    }
    shown
}
