//! Tables of what there is: a head, a line for each thing, and columns that a person can follow.

use comfy_table::{ColumnConstraint, ContentArrangement, Table, presets};

use super::screen::plain;

/// A table of at most `width` columns where that matters. Only the last column is ever broken: the others are there to
/// be copied. Empty where there are no rows.
pub(super) fn table<const N: usize>(
    head: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
    width: Option<u16>,
) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(head);
    match width {
        Some(width) => table
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_width(width),
        None => table
            .force_no_tty()
            .set_content_arrangement(ContentArrangement::Disabled),
    };
    table.add_rows(rows.into_iter().map(|row| row.map(|cell| plain(&cell))));
    if table.is_empty() {
        return String::new();
    }
    for (number, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if number + 1 < N {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
    format!("{}\n", table.trim_fmt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table() {
        let rows = || [["a", "1"], ["bb", "two\u{1b}[2J words"]].map(|row| row.map(str::to_owned));
        insta::assert_snapshot!(table(["NAME", "VALUE"], rows(), None), @r"
        NAME  VALUE
        a     1
        bb    two\u{1b}[2J words
        ");
        insta::assert_snapshot!(table(["NAME", "VALUE"], rows(), Some(24)), @r"
        NAME  VALUE
        a     1
        bb    two\u{1b}[2J
              words
        ");
        assert_eq!(table(["NAME", "VALUE"], [], None), "");
    }
}
