//! An image as rows of `images`: one for each of its names.

use berth_core::Reference;
use berth_proto::berth::image::v1::Image;
use gotmpl::Value;
use jiff::Timestamp;

use super::{
    container::id,
    rows::{Layout, Row},
    template::LABELS,
    units,
};

const HEADINGS: &[(&str, &str)] = &[
    ("ID", "IMAGE ID"),
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("Digest", "DIGEST"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("Size", "SIZE"),
    ("VirtualSize", "VIRTUAL SIZE"),
    ("UniqueSize", "UNIQUE SIZE"),
    ("SharedSize", "SHARED SIZE"),
    ("Containers", "CONTAINERS"),
];

/// How `images` looks.
pub(crate) const LAYOUT: Layout = Layout {
    table: "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}",
    quiet: "{{.ID}}",
    headings: HEADINGS,
};

/// How `images --digests` looks.
pub(crate) const LAYOUT_WITH_DIGESTS: Layout =
    Layout { table: "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}", ..LAYOUT };

const NONE: &str = "<none>";

/// The rows of an image.
pub(crate) fn rows(image: &Image, now: Timestamp, truncate: bool) -> Vec<Row> {
    let mut rows: Vec<_> = image.names.iter().filter_map(|name| name.parse::<Reference>().ok()).collect::<Vec<_>>();
    rows.sort();
    let digest = |repository: &str| {
        let of = |text: &&String| text.split_once('@').is_some_and(|(name, _)| name == repository);
        image.repo_digests.iter().find(of).and_then(|text| text.split_once('@')).map_or(NONE, |(_, digest)| digest)
    };
    let mut all: Vec<_> = rows
        .iter()
        .map(|name| {
            let tag = name.tag().unwrap_or(NONE);
            row(image, now, truncate, &name.familiar_repository(), tag, digest(&name.repository()))
        })
        .collect();
    if all.is_empty() {
        // One that was pulled by digest, or lost its name.
        let pulled = image.repo_digests.first().and_then(|text| text.parse::<Reference>().ok());
        let repository = pulled.as_ref().map_or(NONE.to_owned(), Reference::familiar_repository);
        let digest = pulled.as_ref().and_then(Reference::digest).map_or(NONE.to_owned(), ToString::to_string);
        all.push(row(image, now, truncate, &repository, NONE, &digest));
    }
    all
}

fn row(image: &Image, now: Timestamp, truncate: bool, repository: &str, tag: &str, digest: &str) -> Row {
    let size = Value::from(units::size(image.size));
    Row::from([
        ("ID", id(&image.id, truncate).into()),
        ("Repository", repository.into()),
        ("Tag", tag.into()),
        ("Digest", digest.into()),
        ("CreatedSince", units::ago(&image.created, now).into()),
        ("CreatedAt", units::local(&image.created).into()),
        ("Size", size.clone()),
        ("VirtualSize", size),
        ("UniqueSize", "N/A".into()),
        ("SharedSize", "N/A".into()),
        ("Containers", "N/A".into()),
        (LABELS, gotmpl::to_value(&image.labels).unwrap_or(Value::Nil)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_for_each_name() {
        let image = Image {
            id: format!("sha256:{}", "a".repeat(64)),
            names: vec!["docker.io/library/redis:4".into(), "localhost:5000/x:y".into()],
            repo_digests: vec![format!("docker.io/library/redis@sha256:{}", "b".repeat(64))],
            size: 4_040_000,
            ..Image::default()
        };
        let rows = rows(&image, Timestamp::UNIX_EPOCH, true);
        let text = |at: usize, field: &str| rows[at][field].to_string();
        assert_eq!((rows.len(), text(0, "Repository"), text(0, "Tag")), (2, "redis".into(), "4".into()));
        assert!(text(0, "Digest").starts_with("sha256:bbb") && text(1, "Digest") == "<none>");
        assert_eq!(
            (text(1, "Repository"), text(1, "ID"), text(1, "Size")),
            ("localhost:5000/x".into(), "a".repeat(12), "4.04MB".into())
        );
        assert_eq!(super::rows(&Image::default(), Timestamp::UNIX_EPOCH, true)[0]["Repository"].to_string(), "<none>");
    }
}
