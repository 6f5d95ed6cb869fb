//! How an image came to be: the steps that its configuration tells, with what is known of them here.

use std::{collections::HashMap, sync::Arc};

use berth_core::Digest;
use serde::Deserialize;

use crate::{
    error::Error,
    images::Images,
    store::{All, Record},
};

/// A step.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) image: Option<Digest>,
    pub(crate) names: Vec<String>,
    pub(crate) created: String,
    pub(crate) created_by: String,
    pub(crate) comment: String,
    pub(crate) size: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Document {
    created: String,
    history: Vec<Entry>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Entry {
    created: Option<String>,
    created_by: Option<String>,
    comment: Option<String>,
    empty_layer: bool,
}

/// The steps of an image, newest first.
pub(crate) async fn history(images: &Arc<Images>, text: &str) -> Result<Vec<Step>, Error> {
    let record = images.find(text)?;
    let stored = images.config(&record.id).await?;
    let document: Document = serde_json::from_slice(&stored.bytes).map_err(|error| Error::Unusable {
        what: format!("the image {}", record.id.short()),
        why: format!("its history is malformed: {error}"),
    })?;
    let sizes = images.snapshots.sizes().await?;
    let all = images.store.records.all();
    // Of an image that was committed here the one that it was made on is known, and so on.
    let line: Vec<(&Record, usize)> = ancestors(&all, &record).collect();
    Ok(steps(&document, &record, &sizes, &line))
}

/// An image and those below it that are here, each with how many steps above it there are.
fn ancestors<'a>(all: &'a All, record: &'a Record) -> impl Iterator<Item = (&'a Record, usize)> {
    std::iter::successors(Some(record), |record| all.get(record.parent.as_ref()?)).take(1000).zip(0..)
}

fn steps(document: &Document, record: &Record, sizes: &HashMap<String, u64>, line: &[(&Record, usize)]) -> Vec<Step> {
    let mut layers = record.diff_ids.iter();
    let mut steps: Vec<Step> = document
        .history
        .iter()
        .map(|entry| {
            let layer = if entry.empty_layer { None } else { layers.next() };
            Step {
                created: entry.created.clone().unwrap_or_default(),
                created_by: entry.created_by.clone().unwrap_or_default(),
                comment: entry.comment.clone().unwrap_or_default(),
                size: layer.and_then(|layer| sizes.get(&layer.to_string())).copied().unwrap_or(0),
                ..Step::default()
            }
        })
        .collect();
    // Some builders tell nothing, or not of all layers.
    steps.extend(layers.map(|layer| Step {
        created: document.created.clone(),
        size: sizes.get(&layer.to_string()).copied().unwrap_or(0),
        ..Step::default()
    }));
    steps.reverse();
    for (image, back) in line {
        if let Some(step) = steps.get_mut(*back) {
            step.image = Some(image.id.clone());
            step.names = image.names.iter().cloned().collect();
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::tests::{all, record};

    #[test]
    fn steps_have_their_layers_and_images() {
        let base = record("base", &["base:1"]);
        let layers: Vec<Digest> = [&b"a"[..], b"b"].into_iter().map(Digest::sha256).collect();
        let top = Record { parent: Some(base.id.clone()), diff_ids: layers.clone(), ..record("top", &[]) };
        let text = r#"{"history":[{"created_by":"one"},{"created_by":"two","empty_layer":true},{"comment":"three"}]}"#;
        let document: Document = serde_json::from_str(text).unwrap();
        let sizes = [(layers[0].to_string(), 5), (layers[1].to_string(), 7)].into();
        let all = all(&[base.clone(), top.clone()]);
        let line: Vec<_> = ancestors(&all, &top).collect();
        let steps = steps(&document, &top, &sizes, &line);
        assert_eq!(steps.iter().map(|step| step.size).collect::<Vec<_>>(), [7, 0, 5]);
        assert_eq!(steps[0].image.as_ref(), Some(&top.id));
        assert_eq!((steps[1].image.as_ref(), steps[1].names.len()), (Some(&base.id), 1));
        assert_eq!((&steps[2].image, steps[2].created_by.as_str()), (&None, "one"));
    }

    #[test]
    fn layers_that_nobody_tells_of_are_steps_too() {
        let layer = Digest::sha256(b"a");
        let image = Record { diff_ids: vec![layer.clone()], ..record("x", &[]) };
        let steps = steps(&Document::default(), &image, &[(layer.to_string(), 3)].into(), &[(&image, 0)]);
        assert_eq!((steps.len(), steps[0].size, steps[0].image.is_some()), (1, 3, true));
    }
}
