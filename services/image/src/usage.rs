//! How much disk images use, each thing counted once: layers that are laid down, and the content that they came from.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use berth_core::Digest;

use crate::{
    error::Error,
    images::{Images, blocking},
    store::All,
};

/// What one image takes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ImageUsage {
    pub(crate) id: Digest,
    /// Bytes of its layers and of its content.
    pub(crate) size: u64,
    /// Those of them that other images have too.
    pub(crate) shared: u64,
}

/// What all images take.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// By ID.
    pub(crate) images: Vec<ImageUsage>,
    /// Bytes of everything that images have.
    pub(crate) total: u64,
    /// Bytes that go when all images go that no container uses.
    pub(crate) unused: u64,
}

/// Something that images have on disk: a layer by its diff ID, or content by its digest. A plain tar's digests are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Item<'a> {
    Layer(&'a Digest),
    Content(&'a Digest),
}

/// Measures. Costs a look at each blob of each image, and a question to the snapshotter.
pub(crate) async fn usage(images: &Arc<Images>) -> Result<Usage, Error> {
    let layers = images.snapshots.sizes().await?;
    let images = Arc::clone(images);
    blocking(move || {
        let all = images.store.records.all();
        let content = |digest: &Digest| images.store.blobs.path(digest).metadata().map_or(0, |file| file.len());
        Ok(count(&all, &layers, content, |id| !images.uses.of(id).is_empty()))
    })
    .await
}

fn count(
    all: &All,
    layers: &HashMap<String, u64>,
    content: impl Fn(&Digest) -> u64,
    used: impl Fn(&Digest) -> bool,
) -> Usage {
    // Each item: its bytes, how many images have it, whether one of them is used.
    let mut items: BTreeMap<Item<'_>, (u64, usize, bool)> = BTreeMap::new();
    let of = |id: &Digest| {
        let record = &all[id];
        let mut items: Vec<_> =
            record.diff_ids.iter().map(Item::Layer).chain(record.blobs().map(Item::Content)).collect();
        items.sort_unstable();
        items.dedup();
        items
    };
    for id in all.keys() {
        let used = used(id);
        for item in of(id) {
            let measure = || match item {
                Item::Layer(layer) => layers.get(&layer.to_string()).copied().unwrap_or(0),
                Item::Content(digest) => content(digest),
            };
            let entry = items.entry(item).or_insert_with(|| (measure(), 0, false));
            entry.1 += 1;
            entry.2 |= used;
        }
    }
    let images = all.keys().map(|id| {
        let mut usage = ImageUsage { id: id.clone(), size: 0, shared: 0 };
        for (bytes, owners, _) in of(id).iter().map(|item| items[item]) {
            usage.size += bytes;
            usage.shared += if owners > 1 { bytes } else { 0 };
        }
        usage
    });
    Usage {
        images: images.collect(),
        total: items.values().map(|(bytes, ..)| bytes).sum(),
        unused: items.values().filter(|(.., used)| !used).map(|(bytes, ..)| bytes).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        images::tests::{all, record},
        store::Record,
    };

    #[test]
    fn everything_is_counted_once() {
        let digest = |text: &str| Digest::sha256(text.as_bytes());
        let (base, own) = (digest("base"), digest("own"));
        // The same layer twice in one image is there once.
        let one =
            Record { diff_ids: vec![base.clone(), base.clone()], layers: vec![digest("b")], ..record("one", &[]) };
        let two = Record {
            diff_ids: vec![base.clone(), own.clone()],
            layers: vec![digest("b"), digest("o")],
            packed: [(digest("o"), 9)].into(),
            ..record("two", &[])
        };
        let layers = [(base.to_string(), 100), (own.to_string(), 20)].into();
        let content = |of: &Digest| if *of == digest("b") { 50 } else { 0 };
        let all = all(&[one.clone(), two.clone()]);
        let of = |usage: &Usage, id: &Digest| {
            let image = usage.images.iter().find(|image| image.id == *id).unwrap();
            (image.size, image.shared)
        };
        let usage = count(&all, &layers, content, |id| *id == two.id);
        assert_eq!((of(&usage, &one.id), of(&usage, &two.id)), ((150, 150), (170, 150)));
        assert_eq!((usage.total, usage.unused), (170, 0));
        assert_eq!(count(&all, &layers, content, |id| *id == one.id).unused, 20);
        assert_eq!(count(&all, &layers, content, |_| false).unused, 170);
    }
}
