//! Before a real registry, for a real client.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use berth_core::Digest;

use berth_tests::patience::PATIENCE;

use crate::{proxy::Proxy, upstream::noise};

struct Registry(Child, String);

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Registry {
    /// docker-registry on a free port, which its log names.
    fn start(directory: &Path) -> Self {
        let config = directory.join("config.yml");
        let storage = directory.join("storage");
        let text = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {storage:?}}}}}\n\
             http: {{addr: '127.0.0.1:0'}}\n"
        );
        fs::write(&config, text).unwrap();
        let mut child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            // All of it: a full pipe would stop the registry.
            for line in lines.map_while(Result::ok) {
                if let Some((_, address)) = line.split_once("listening on ") {
                    let _ = tell.send(address.split(['"', ' ']).next().unwrap().to_owned());
                }
            }
        });
        let address = told.recv_timeout(PATIENCE);
        let registry = Self(child, address.clone().unwrap_or_default());
        address.expect("the registry says where it listens");
        registry
    }
}

fn skopeo(from: &str, to: &str) {
    let done = Command::new("skopeo")
        .args(["--insecure-policy", "copy", "--src-tls-verify=false", "--dest-tls-verify=false", from, to])
        .output()
        .unwrap();
    assert!(done.status.success(), "{from} to {to}: {}", String::from_utf8_lossy(&done.stderr));
}

/// An OCI layout with one image of one layer.
fn layout(directory: &Path) {
    let put = |bytes: &[u8]| {
        let digest = Digest::sha256(bytes);
        fs::create_dir_all(directory.join("blobs/sha256")).unwrap();
        fs::write(directory.join("blobs/sha256").join(digest.hex()), bytes).unwrap();
        (digest, bytes.len())
    };
    // A tar of one file.
    let mut tar = vec![0; 512];
    let content = noise(2 << 20);
    tar[..4].copy_from_slice(b"file");
    tar[100..107].copy_from_slice(b"0000644");
    tar[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
    tar[156] = b'0';
    tar[257..265].copy_from_slice(b"ustar\x0000");
    tar[148..156].fill(b' ');
    let sum: u32 = tar.iter().map(|byte| u32::from(*byte)).sum();
    tar[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    tar.extend_from_slice(&content);
    tar.extend_from_slice(&[0; 1024]);
    let (layer, layer_size) = put(&tar);
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": { "type": "layers", "diff_ids": [layer] },
    });
    let (config, config_size) = put(config.to_string().as_bytes());
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": crate::upstream::MANIFEST,
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": config_size },
        "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer, "size": layer_size }],
    });
    let (manifest, manifest_size) = put(manifest.to_string().as_bytes());
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": [{
        "mediaType": crate::upstream::MANIFEST, "digest": manifest, "size": manifest_size,
        "annotations": { "org.opencontainers.image.ref.name": "latest" },
    }] });
    fs::write(directory.join("index.json"), index.to_string()).unwrap();
    fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn skopeo_copies_from_the_mirror_of_a_real_registry() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let oci = |name: &str| format!("oci:{}:latest", at(name).display());
    fs::create_dir_all(at("made")).unwrap();
    layout(&at("made"));
    let registry = Registry::start(directory.path());
    let original = format!("docker://{}/library/a:1", registry.1);
    // Compresses the layer on its way.
    skopeo(&oci("made"), &original);
    skopeo(&original, &oci("original"));
    let mut proxy = Proxy::start(&[("docker.io", &format!("http://{}", registry.1))], "tag_ttl = 0").await;
    skopeo(&format!("docker://{}/docker.io/library/a:1", proxy.address), &oci("mirrored"));
    assert_same(&at("original"), &at("mirrored"));
    let tags = proxy.get("library/a/tags/list").await.text().await.unwrap();
    assert!(tags.contains("\"1\""), "{tags}");
    // Once more, without the registry.
    drop(registry);
    proxy.kill_and_start().await;
    skopeo(&format!("docker://{}/a:1", proxy.address), &oci("again"));
    assert_same(&at("original"), &at("again"));
}

fn assert_same(original: &Path, mirrored: &Path) {
    let blobs = fs::read_dir(original.join("blobs/sha256")).unwrap().map(Result::unwrap);
    let same = blobs.map(|blob| {
        let copied = fs::read(mirrored.join("blobs/sha256").join(blob.file_name())).unwrap();
        assert!(copied == fs::read(blob.path()).unwrap(), "{:?}", blob.file_name());
    });
    assert_eq!(same.count(), 3, "manifest, configuration, layer");
}
