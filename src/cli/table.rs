//! Tables for eyes.

use comfy_table::{Cell, ContentArrangement, Table, presets};

/// Rows of one table: its columns are as wide as these need, and memory holds no more of them.
pub const ROWS_AT_A_TIME: usize = 1_000;

/// A table with this header, as wide as the terminal at most.
pub fn empty_table(header: Vec<Cell>) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(header);
    table
}
