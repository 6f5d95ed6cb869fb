//! Outside judges: an image unpacked by umoci, and an image laid down by us and mounted, are the same to GNU tar.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
};

use berth_core::Digest;

use crate::{
    archive::{Archive, Layer, gzip},
    both_drivers,
    mounted::Mounted,
    service::{Service, run},
};

both_drivers!(as_umoci_unpacks_it);

/// An OCI layout of these layers.
fn layout(home: &Path, layers: &[Layer]) -> PathBuf {
    let layout = home.join("layout");
    let blobs = layout.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    let put = |bytes: &[u8], media_type: &str| {
        let digest = Digest::sha256(bytes);
        std::fs::write(blobs.join(digest.hex()), bytes).unwrap();
        serde_json::json!({"mediaType": media_type, "digest": digest.to_string(), "size": bytes.len()})
    };
    let diff_ids: Vec<&str> = layers.iter().map(|layer| layer.diff_id.as_str()).collect();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}
    });
    let config = put(config.to_string().as_bytes(), "application/vnd.oci.image.config.v1+json");
    let layers: Vec<_> = layers.iter().map(|l| put(&l.blob, "application/vnd.oci.image.layer.v1.tar+gzip")).collect();
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": layers
    });
    let mut manifest = put(manifest.to_string().as_bytes(), "application/vnd.oci.image.manifest.v1+json");
    manifest["annotations"] = serde_json::json!({"org.opencontainers.image.ref.name": "test"});
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [manifest]});
    std::fs::write(layout.join("index.json"), index.to_string()).unwrap();
    std::fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#).unwrap();
    layout
}

/// What GNU tar says of a tree: names, owners, modes, sizes, times, link targets, attributes, and digests of content.
/// Directories without their times, which umoci changes when it puts a later layer into them.
fn picture(tree: &Path) -> Vec<String> {
    let script = "cd \"$1\" && tar --create --sort=name --numeric-owner --xattrs --xattrs-include='*' \
                  --xattrs-exclude='trusted.overlay.*' --pax-option=delete=atime,delete=ctime --format=pax . \
                  | tar --list --verbose --verbose --full-time --numeric-owner --xattrs --xattrs-include='*' \
                  | sed -E '/^d/s/ [0-9]{4}-[0-9-]+ [0-9:.]+ / /' \
                  && find . -type f -links +1 -printf '%p %n\\n' | sort \
                  && find . -type f -print0 | sort -z | xargs -0 -r sha256sum";
    let told = run("sh", &["-ec", script, "sh", tree.to_str().unwrap()].map(OsStr::new));
    // Columns are as wide as the widest, and attributes come in the file system's own order.
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut lines: Vec<String> = String::from_utf8_lossy(&told).lines().map(words).collect();
    for attributes in lines.chunk_by_mut(|a, b| a.starts_with("x: ") && b.starts_with("x: ")) {
        attributes.sort();
    }
    lines
}

async fn as_umoci_unpacks_it(driver: &'static str) {
    let service = Service::start(driver).await;
    // Trees of the machine itself, as many kinds of files as it has.
    let tar = |arguments: &[&str]| {
        let fixed = ["--create", "--file=-", "--directory=/", "--numeric-owner"];
        run("tar", &fixed.iter().chain(arguments).map(OsStr::new).collect::<Vec<_>>())
    };
    let capability: &[u8] = &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let layers: Vec<Layer> = vec![
        Archive::new().entry(tar::EntryType::Directory, "./", b"", |header| header.set_mode(0o750)).layer(),
        Layer::of(tar(&[
            "--format=pax",
            "--xattrs",
            "--xattrs-include=*",
            "etc",
            "bin",
            "sbin",
            "usr/bin/passwd",
            "usr/bin/mount",
            "usr/bin/chage",
        ])),
        Layer::of(tar(&[
            "--format=gnu",
            "usr/share/doc/tar",
            "usr/lib/os-release",
            "var/log",
            "usr/share/zoneinfo/Europe",
        ])),
        Archive::new()
            .directory("usr")
            .file("usr/.wh.bin", "")
            .directory("usr/share")
            .file("usr/share/.wh..wh..opq", "")
            .directory("etc")
            .file("etc/.wh.fstab", "")
            .pax(&[("SCHILY.xattr.security.capability", capability), ("SCHILY.xattr.user.x", b"y")])
            .file("etc/capable", "x")
            .hard_link("etc/other", "etc/capable")
            .device(tar::EntryType::Char, "etc/null", 1, 3)
            .layer(),
    ];
    let layers: Vec<Layer> = layers.into_iter().map(|layer| layer.blob(gzip)).collect();
    let layout = layout(service.home(), &layers);
    let bundle = service.home().join("bundle");
    let image = format!("{}:test", layout.display());
    run("umoci", &["unpack", "--image", &image, bundle.to_str().unwrap()].map(OsStr::new));
    let top = service.image(&layers).await.unwrap();
    let mounted = Mounted::new(&service.view("view", &top).await.unwrap());
    let (theirs, ours) = (picture(&bundle.join("rootfs")), picture(&mounted.path("")));
    for (theirs, ours) in theirs.iter().zip(&ours) {
        assert_eq!(theirs, ours);
    }
    assert_eq!(theirs.len(), ours.len());
    assert!(ours.len() > 500);
}
