//! A comparison for a terminal: the main table first, the verdict last, next to the prompt.

use comfy_table::{Cell, CellAlignment, ColumnConstraint, ContentArrangement, Table as Grid, presets};

use super::document::{Block, faults, outages, recommendation, verdict_of, without_profile};
use super::figures::{self, plain};
use super::names;
use super::overview::{Overview, overview};
use super::prose;
use super::tables::{self, Table};
use super::variations;
use crate::compare::Comparison;

/// No table can be narrower than this.
const NARROWEST: usize = 40;
/// From this width on, names are not broken.
const UNBROKEN: usize = 72;
/// Widths of the columns of the main table, with their borders.
const NAME: usize = 37;
const VALUE: usize = 19;
const DIFFERENCE: usize = 27;
/// The number of hotspots shown for each process.
const TOP: usize = 3;

/// Text with lines no longer than `width`, as far as words and names allow.
#[must_use]
pub fn terminal(comparison: &Comparison, width: usize) -> String {
    let mut page = Page { text: String::new(), width: width.max(NARROWEST) };
    let settings = &comparison.settings;
    let counts = comparison.arms.iter().filter(|arm| !arm.runs.is_empty()).map(|arm| arm.events);
    let events = match (counts.clone().min(), counts.max()) {
        (Some(least), Some(most)) if least < most => {
            format!("{} to {}", figures::count(least), figures::counted(most, "event"))
        }
        (least, _) => figures::counted(least.unwrap_or(0), "event"),
    };
    page.paragraph(&format!(
        "{} of each arm, of {events}, {} each; {}, {}; {}",
        figures::counted(settings.pairs as u64, "run"),
        figures::bytes(settings.payload),
        names::work(&settings.work),
        names::value(&settings.codec),
        comparison.environment.processor,
    ));
    main_table(comparison, &mut page);
    page.paragraph(prose::cpu_sentence());
    page.table(&tables::ratios(comparison));
    if !comparison.costs.is_empty() {
        page.heading("Short and long runs");
        page.paragraph(prose::costs());
        for table in variations::costs(comparison) {
            page.table(&table);
        }
    }
    if !comparison.axes.is_empty() {
        page.heading("One setting varied");
        page.paragraph(prose::axes());
        if let Some(text) = variations::agreement(comparison) {
            page.paragraph(&text);
        }
    }
    for axis in &comparison.axes {
        page.table(&variations::axis(comparison, axis));
    }
    for block in faults(comparison).into_iter().chain(outages(comparison)) {
        page.block(&block);
    }
    profile(comparison, &mut page);
    page.heading("Verdict");
    for block in recommendation(&verdict_of(comparison)) {
        page.block(&block);
    }
    page.text
}

/// The first arm with as many others as fit; then tables for the rest.
fn main_table(comparison: &Comparison, page: &mut Page) {
    let overview = overview(comparison);
    let first = comparison.arms.first().map(|arm| arm.arm);
    let (base, others): (Vec<usize>, Vec<usize>) =
        (0..overview.arms.len()).partition(|at| Some(overview.arms[*at]) == first);
    let beside = page.width.saturating_sub(NAME + VALUE * base.len()) / (VALUE + DIFFERENCE);
    if others.is_empty() {
        page.table_with_names(&part(&overview, &base, &[]));
    }
    for some in others.chunks(beside.max(1)) {
        page.table_with_names(&part(&overview, &base, some));
    }
    for (at, note) in overview.notes.iter().enumerate() {
        page.item(&format!("[{}] ", at + 1), note);
    }
    if !overview.notes.is_empty() {
        page.text.push('\n');
    }
    page.paragraph(
        "An earlier study of an asyncio program counted function calls (here: instructions), event-loop iterations (voluntary \
         switches), context runs (involuntary switches) and I/O polls (system calls). A difference is the median of paired ratios \
         with the interval that decides whether it is shown; a difference without one comes from one run of each arm.",
    );
}

fn part(overview: &Overview, base: &[usize], others: &[usize]) -> Table {
    let title = |at: &usize| names::title(overview.arms[*at]).to_string();
    let with_difference = |name: String| if base.is_empty() { vec![name] } else { vec![name, "difference".into()] };
    let mut head = vec!["median of the runs".to_string()];
    head.extend(base.iter().map(title));
    head.extend(others.iter().flat_map(|at| with_difference(title(at))));
    let row = |row: &super::overview::Row| {
        let mut cells = vec![row.name.clone()];
        cells.extend(base.iter().map(|at| row.values[*at].clone()));
        for at in others {
            cells.push(row.values[*at].clone());
            cells.extend((!base.is_empty()).then(|| row.differences[*at].clone()));
        }
        cells
    };
    let figures = (0..head.len()).map(|at| at > 0).collect();
    Table { title: String::new(), head, rows: overview.rows.iter().map(row).collect(), figures }
}

fn profile(comparison: &Comparison, page: &mut Page) {
    page.heading("Hotspots");
    if comparison.hotspots.is_empty() {
        page.paragraph(&without_profile(comparison));
    }
    for hotspots in tables::profiles(comparison) {
        page.table(&tables::hotspots(hotspots, TOP));
    }
    if let Some(text) = tables::without_samples(comparison) {
        page.paragraph(&text);
    }
    if let Some(shares) = tables::shares(comparison) {
        page.table(&shares);
    }
}

struct Page {
    text: String,
    width: usize,
}

impl Page {
    fn block(&mut self, block: &Block) {
        match block {
            Block::Heading(_, text) => self.heading(text),
            Block::Paragraph(text) | Block::Headline(text) => self.paragraph(text),
            Block::List(items) => {
                for item in items {
                    self.item("- ", item);
                }
                self.text.push('\n');
            }
            Block::Notes(notes) => {
                for (at, note) in notes.iter().enumerate() {
                    self.item(&format!("[{}] ", at + 1), note);
                }
            }
            Block::Table(table) => self.table(table),
            Block::Chart(_) | Block::Links(_) => {}
        }
    }

    fn heading(&mut self, text: &str) {
        self.line(text);
        self.line(&"-".repeat(text.chars().count()));
    }

    fn paragraph(&mut self, text: &str) {
        self.item("", text);
        self.text.push('\n');
    }

    /// Text after a mark; further lines are indented by its width.
    fn item(&mut self, mark: &str, text: &str) {
        let indent = mark.chars().count();
        let mut line = mark.to_string();
        let mut length = indent;
        for word in plain(text).split_whitespace() {
            let more = word.chars().count();
            if length > indent && length + 1 + more > self.width {
                self.line(&line);
                (line, length) = (" ".repeat(indent), indent);
            }
            if length > indent {
                line.push(' ');
                length += 1;
            }
            line.push_str(word);
            length += more;
        }
        self.line(&line);
    }

    /// A table whose names are not broken, where the page is wide enough: figures are wrapped instead.
    fn table_with_names(&mut self, table: &Table) {
        let mut grid = self.grid(table);
        if self.width >= UNBROKEN
            && let Some(names) = grid.column_mut(0)
        {
            names.set_constraint(ColumnConstraint::ContentWidth);
        }
        self.line(&grid.to_string());
        self.text.push('\n');
    }

    fn table(&mut self, table: &Table) {
        if !table.title.is_empty() {
            self.line(&table.title);
        }
        let grid = self.grid(table);
        self.line(&grid.to_string());
        self.text.push('\n');
    }

    fn grid(&self, table: &Table) -> Grid {
        let mut grid = Grid::new();
        grid.load_preset(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
        grid.set_width(u16::try_from(self.width).unwrap_or(u16::MAX));
        grid.set_header(table.head.iter().map(|title| Cell::new(plain(title))));
        let aligned = |(at, text): (usize, &String)| {
            let cell = Cell::new(plain(text));
            if table.figures[at] { cell.set_alignment(CellAlignment::Right) } else { cell }
        };
        for row in &table.rows {
            grid.add_row(row.iter().enumerate().map(aligned));
        }
        grid
    }

    fn line(&mut self, text: &str) {
        self.text.push_str(text);
        self.text.push('\n');
    }
}
