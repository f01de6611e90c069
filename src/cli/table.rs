//! Tables for people.

use comfy_table::{Cell, ContentArrangement, Table, presets};

/// Rows of one table. This bounds memory; the column widths fit these rows.
pub const ROWS_AT_A_TIME: usize = 1_000;

/// An empty table with this header, at most as wide as the terminal.
pub fn empty_table(header: Vec<Cell>) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(header);
    table
}
