//! How much disk a tree takes.

use std::{
    collections::HashSet,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// Bytes of blocks of everything in a directory; a file with several names counts once, and what cannot be read counts
/// nothing. Blocks.
pub(super) fn of(directory: &Path) -> u64 {
    let (mut bytes, mut seen) = (0, HashSet::new());
    let mut waiting: Vec<PathBuf> = vec![directory.into()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            // Of the entry itself: a link leads wherever whoever wrote it liked.
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                waiting.push(entry.path());
            }
            if metadata.nlink() < 2 || metadata.is_dir() || seen.insert((metadata.dev(), metadata.ino())) {
                bytes += metadata.blocks() * 512;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_one_file_count_once_and_links_lead_nowhere() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::create_dir(path("d")).unwrap();
        fs::write(path("d/a"), vec![1; 100_000]).unwrap();
        let once = of(directory.path());
        assert!(once >= 100_000);
        fs::hard_link(path("d/a"), path("b")).unwrap();
        std::os::unix::fs::symlink("/usr", path("link")).unwrap();
        assert!(of(directory.path()) < once + 10_000);
        assert_eq!(of(&path("missing")), 0);
    }
}
