//! Columns that are as wide as their widest cell, three blanks apart and at least ten wide, as Docker's are.

use unicode_width::UnicodeWidthStr as _;

const PADDING: usize = 3;
const MIN_WIDTH: usize = 10;

/// Lays out lines whose cells end in tabs; what follows the last tab is not padded.
pub(crate) fn align(lines: &[String]) -> String {
    align_at_least(MIN_WIDTH, lines)
}

/// The same, with a least width for all columns but the last.
pub(crate) fn align_at_least(least: usize, lines: &[String]) -> String {
    let rows: Vec<Vec<&str>> = lines.iter().map(|line| line.split('\t').collect()).collect();
    let mut widths: Vec<usize> = Vec::new();
    for row in &rows {
        for (at, cell) in row[..row.len() - 1].iter().enumerate() {
            if widths.len() == at {
                widths.push(least);
            }
            widths[at] = widths[at].max(cell.width() + PADDING);
        }
    }
    let mut text = String::new();
    for row in rows {
        for (at, cell) in row.iter().enumerate() {
            text.push_str(cell);
            if at + 1 < row.len() {
                text.extend(std::iter::repeat_n(' ', widths[at] - cell.width()));
            }
        }
        text.push('\n');
    }
    text
}

/// At most this many columns, the last one an ellipsis where something was cut off.
pub(crate) fn ellipsis(text: &str, columns: usize) -> String {
    if text.width() <= columns {
        return text.to_owned();
    }
    let mut cut = String::new();
    for c in text.chars() {
        let mut buffer = [0; 4];
        if cut.width() + c.encode_utf8(&mut buffer).width() >= columns {
            break;
        }
        cut.push(c);
    }
    cut + "…"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_each_other() {
        let lines = ["CONTAINER ID\tIMAGE\tX".to_owned(), "0123456789ab\tbusybox:1.37\t".to_owned()];
        assert_eq!(align(&lines), "CONTAINER ID   IMAGE          X\n0123456789ab   busybox:1.37   \n");
        assert_eq!(align(&["A\tB".to_owned()]), "A         B\n");
    }

    #[test]
    fn long_texts_are_cut() {
        assert_eq!(ellipsis("short", 20), "short");
        assert_eq!(ellipsis("0123456789", 5), "0123…");
    }
}
