//! Which gRPC services answer on which of a node's sockets. Health knows them by these names.

use std::path::Path;

const IMAGE: &[&str] = &["berth.image.v1.Images"];
const SNAPSHOTTER: &[&str] = &["berth.snapshotter.v1.Layers", "containerd.services.snapshots.v1.Snapshots"];
const RUNTIME: &[&str] = &[
    "berth.runtime.v1.Containers",
    "berth.runtime.v1.Networks",
    "berth.runtime.v1.Volumes",
    "berth.runtime.v1.System",
];
const REGISTRY: &[&str] = &["berth.registry.v1.Registry"];

/// The full names of the services behind the socket at `path`; none behind one that is no node's.
pub fn on(path: &Path) -> Vec<&'static str> {
    let parts: &[&[&str]] = match path.file_name().and_then(|name| name.to_str()) {
        Some("image.sock") => &[IMAGE],
        Some("snapshotter.sock") => &[SNAPSHOTTER],
        Some("runtime.sock") => &[RUNTIME],
        Some("registry.sock") => &[REGISTRY],
        // What belongs to a neighbour is passed on, and waits while the neighbour restarts.
        Some("berth.sock") => &[IMAGE, SNAPSHOTTER, RUNTIME, REGISTRY],
        _ => &[],
    };
    parts.concat()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_service_of_the_contracts_is_named() {
        let proto = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
        let mut declared = BTreeSet::new();
        for part in
            ["berth/image", "berth/snapshotter", "berth/runtime", "berth/registry", "containerd/services/snapshots"]
        {
            for file in std::fs::read_dir(proto.join(part).join("v1")).unwrap() {
                let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
                let behind = |word: &'static str| {
                    text.lines().filter_map(move |line| line.strip_prefix(word)?.split([' ', ';', '{']).next())
                };
                let package = behind("package ").next().unwrap();
                declared.extend(behind("service ").map(|service| format!("{package}.{service}")));
            }
        }
        let named: BTreeSet<_> = on(Path::new("berth.sock")).into_iter().map(str::to_owned).collect();
        assert_eq!(named, declared);
        assert!(on(Path::new("/etc/passwd")).is_empty());
    }
}
