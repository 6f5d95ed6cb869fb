//! Before a real registry, with real clients.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Stdio},
};

use crate::{
    archives::layout,
    made::{Layer, Made},
    node::Node,
    patience::PATIENCE,
    place::Place,
};

struct Registry(Child, String);

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Registry {
    /// docker-registry on a free port, which its log names.
    fn start(place: &Place, directory: &Path) -> Self {
        let config = directory.join("config.yml");
        let storage = directory.join("storage");
        let text = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {storage:?}}}}}\n\
             http: {{addr: '127.0.0.1:0'}}\n"
        );
        fs::write(&config, text).unwrap();
        let mut child = place
            .command("docker-registry")
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

fn skopeo(place: &Place, arguments: &[&str]) {
    let done = place.command("skopeo").arg("--insecure-policy").args(arguments).output().unwrap();
    assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_skopeo_pushes_and_saves_is_what_is_here() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).display().to_string();
    let place = Place::new();
    let registry = Registry::start(&place, directory.path());
    let made = Made::new(&[Layer::plain("a", b"one").gzip(), Layer::noise(1, 3 << 20)]);
    let named = serde_json::json!({ "annotations": { "org.opencontainers.image.ref.name": "app:1" } });
    fs::write(at("made.tar"), layout(&[(&made, named)])).unwrap();
    let node = Node::start_in(place.clone(), tempfile::tempdir().unwrap(), "");
    for (format, tag) in [("oci", "1"), ("v2s2", "2")] {
        let reference = format!("{}/some/app:{tag}", registry.1);
        let (from, to) = (format!("oci-archive:{}:app:1", at("made.tar")), format!("docker://{reference}"));
        skopeo(&place, &["copy", "--dest-tls-verify=false", "--format", format, &from, &to]);
        let image = node.pull(&reference).await.done().image.unwrap();
        let output = place.command("skopeo").args(["inspect", "--raw", "--tls-verify=false", &to]).output().unwrap();
        assert_eq!(image.manifest_digest, berth_core::Digest::sha256(&output.stdout).to_string());
        assert_eq!(image.diff_ids, made.layers.iter().map(|layer| layer.diff_id.to_string()).collect::<Vec<_>>());
        // As a tar, in the form of `docker save`.
        let archive = at(&format!("{tag}.tar"));
        skopeo(&place, &["copy", "--src-tls-verify=false", &to, &format!("docker-archive:{archive}:saved:{tag}")]);
        let fresh = Node::start();
        let loaded = fresh.load(&fs::read(archive).unwrap()).await.unwrap();
        assert_eq!(loaded[0].name, format!("saved:{tag}"));
        assert_eq!(loaded[0].image.as_ref().unwrap().diff_ids, image.diff_ids);
    }
    let absent = node.pull(&format!("{}/some/none:1", registry.1)).await.failure();
    assert!(absent.message.contains("manifest unknown") && absent.message.contains(&registry.1), "{absent}");
}
