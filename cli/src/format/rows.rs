//! Lists of things: `table TEMPLATE`, `json`, or a Go template for each.

use std::collections::BTreeMap;

use gotmpl::Value;

use super::{table, template::Format};
use crate::outcome::Error;

/// A row's data by field.
pub(crate) type Row = BTreeMap<&'static str, Value>;

/// What a list looks like where nothing else is said.
pub(crate) struct Layout {
    /// Template of a table's row.
    pub(crate) table: &'static str,
    /// Template of a row with `-q`.
    pub(crate) quiet: &'static str,
    /// Field and heading.
    pub(crate) headings: &'static [(&'static str, &'static str)],
}

/// The text of a list.
///
/// # Errors
/// The format is no template, or asks for what a row does not have.
pub(crate) fn render(layout: &Layout, format: Option<&str>, quiet: bool, rows: Vec<Row>) -> Result<String, Error> {
    let (template, tabular) = match format.unwrap_or("table") {
        "table" | "" if quiet => (layout.quiet, false),
        "table" | "" => (layout.table, true),
        "json" => ("{{json .}}", false),
        given => match given.strip_prefix("table") {
            Some(rest) if rest.starts_with([' ', '{', '\\']) => (rest.trim_start(), true),
            _ => (given, false),
        },
    };
    let format = Format::parse(template)?;
    let mut lines = Vec::with_capacity(rows.len() + 1);
    if tabular {
        lines.push(format.execute(&heading(layout))?);
    }
    if rows.is_empty() && !tabular {
        // A field that there is not is a mistake whether there are rows or not.
        format.execute(&heading(layout))?;
    }
    for row in rows {
        lines.push(format.execute(&value(row))?);
    }
    if tabular {
        return Ok(table::align(&lines));
    }
    lines.push(String::new());
    Ok(lines.join("\n"))
}

/// What a template sees of a row.
pub(crate) fn value(row: Row) -> Value {
    Value::Map(std::sync::Arc::new(row.into_iter().map(|(name, value)| (name.into(), value)).collect()))
}

fn heading(layout: &Layout) -> Value {
    let named = layout.headings.iter().map(|(name, heading)| (*name, Value::from(*heading)));
    value(named.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUT: Layout = Layout {
        table: "{{.ID}}\t{{.Names}}",
        quiet: "{{.ID}}",
        headings: &[("ID", "CONTAINER ID"), ("Names", "NAMES")],
    };

    fn rows() -> Vec<Row> {
        vec![
            Row::from([("ID", "abc".into()), ("Names", "one".into())]),
            Row::from([("ID", "def".into()), ("Names", "two".into())]),
        ]
    }

    #[test]
    fn every_form() {
        let text = |format, quiet| render(&LAYOUT, format, quiet, rows()).unwrap();
        assert_eq!(text(None, false), "CONTAINER ID   NAMES\nabc            one\ndef            two\n");
        assert_eq!(text(None, true), "abc\ndef\n");
        assert_eq!(text(Some("{{.Names}}"), false), "one\ntwo\n");
        assert_eq!(text(Some("table {{.Names}}"), false), "NAMES\none\ntwo\n");
        assert_eq!(
            text(Some("table {{.Names}}\\t{{.ID}}"), false),
            "NAMES     CONTAINER ID\none       abc\ntwo       def\n"
        );
        assert_eq!(text(Some("json"), false).lines().next(), Some(r#"{"ID":"abc","Names":"one"}"#));
        assert!(render(&LAYOUT, Some("{{.Nope}}"), false, rows()).is_err());
        assert_eq!(render(&LAYOUT, Some("{{.ID}}"), false, vec![]).unwrap(), "");
        assert!(render(&LAYOUT, Some("{{.Nope}}"), false, vec![]).is_err());
    }
}
