//! A step of an image's history as a row of `history`.

use berth_proto::berth::image::v1::HistoryStep;
use jiff::Timestamp;

use super::{
    container::id,
    rows::{Layout, Row},
    table::ellipsis,
    units,
};

const HEADINGS: &[(&str, &str)] = &[
    ("ID", "IMAGE"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("CreatedBy", "CREATED BY"),
    ("Size", "SIZE"),
    ("Comment", "COMMENT"),
];
/// What is shown of a command line.
const COLUMNS: usize = 45;

/// How `history` looks.
pub(crate) const LAYOUT: Layout = Layout {
    table: "{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}",
    quiet: "{{.ID}}",
    headings: HEADINGS,
};

/// How `history --human=false` looks.
pub(crate) const LAYOUT_EXACT: Layout =
    Layout { table: "{{.ID}}\t{{.CreatedAt}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}", ..LAYOUT };

/// The row of a step.
pub(crate) fn row(step: &HistoryStep, now: Timestamp, truncate: bool, human: bool) -> Row {
    let by = step.created_by.replace('\t', " ");
    let at = match step.created.parse::<Timestamp>() {
        Ok(time) => {
            time.to_zoned(units::zone().clone()).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string().replace("+00:00", "Z")
        }
        Err(_) => step.created.clone(),
    };
    let image = if step.image_id.is_empty() { "<missing>" } else { id(&step.image_id, truncate) };
    Row::from([
        ("ID", image.into()),
        ("CreatedSince", if human { units::ago(&step.created, now) } else { at.clone() }.into()),
        ("CreatedAt", at.into()),
        ("CreatedBy", if truncate { ellipsis(&by, COLUMNS) } else { by }.into()),
        ("Size", if human { units::size(step.size) } else { step.size.to_string() }.into()),
        ("Comment", step.comment.as_str().into()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_people_read_it_and_exactly() {
        let step = HistoryStep {
            image_id: format!("sha256:{}", "a".repeat(64)),
            created: "2026-01-01T00:00:00Z".into(),
            created_by: format!("/bin/sh -c\t{}", "x".repeat(60)),
            size: 4_040_000,
            ..HistoryStep::default()
        };
        let now: Timestamp = "2026-01-01T00:03:00Z".parse().unwrap();
        let text = |row: &Row, field: &str| row[field].to_string();
        let human = row(&step, now, true, true);
        assert_eq!((text(&human, "ID"), text(&human, "CreatedSince")), ("a".repeat(12), "3 minutes ago".into()));
        assert_eq!(text(&human, "CreatedBy").chars().count(), 45);
        assert_eq!(text(&human, "Size"), "4.04MB");
        let exact = row(&HistoryStep { image_id: String::new(), ..step }, now, false, false);
        assert_eq!((text(&exact, "ID"), text(&exact, "Size")), ("<missing>".into(), "4040000".into()));
        assert!(text(&exact, "CreatedBy").ends_with(&"x".repeat(60)));
    }
}
