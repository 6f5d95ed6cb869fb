//! Loading archives: every form, and everything that can be wrong with one.

use berth_core::{Digest, Failure, Kind};
use berth_proto::berth::image::v1::{
    LoadRequest, LoadStart, LoadedImage, load_progress, load_request::Message as Sent,
};
use serde_json::json;

use crate::{
    archives::{Archive, gzip, hybrid, layout, old},
    made::{Layer, Made},
    node::Node,
    upstream::Upstream,
};

impl Node {
    async fn load_with(&self, start: LoadStart, archive: &[u8], piece: usize) -> Result<Vec<LoadedImage>, Failure> {
        let message = |message| LoadRequest { message: Some(message) };
        let data: Vec<_> = archive.chunks(piece).map(|data| message(Sent::Data(data.to_vec().into()))).collect();
        let messages = futures::stream::iter([message(Sent::Start(start))].into_iter().chain(data));
        let mut answers = self.client().load(messages).await.map_err(Failure::from)?.into_inner();
        let mut loaded = Vec::new();
        while let Some(answer) = answers.message().await.map_err(Failure::from)? {
            if let Some(load_progress::Message::Loaded(image)) = answer.message {
                loaded.push(image);
            }
        }
        Ok(loaded)
    }

    pub(crate) async fn load(&self, archive: &[u8]) -> Result<Vec<LoadedImage>, Failure> {
        self.load_with(LoadStart::default(), archive, 64 << 10).await
    }

    async fn refused(&self, archive: &[u8]) -> Failure {
        let failure = self.load(archive).await.unwrap_err();
        assert!(self.list(&[]).await.unwrap().is_empty());
        assert_eq!((self.blobs(), self.ingest()), (0, Vec::new()), "{failure}");
        failure
    }
}

fn made() -> Made {
    Made::new(&[Layer::plain("a", b"one"), Layer::noise(2, 100_000)])
}

fn names(loaded: &[LoadedImage]) -> Vec<&str> {
    loaded.iter().map(|image| image.name.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn both_forms_of_docker_save() {
    let made = made();
    for archive in [old(&[(&made, &["some/app:1", "app:latest"])]), hybrid(&made, &["some/app:1", "app:latest"])] {
        let node = Node::start();
        let loaded = node.load(&archive).await.unwrap();
        assert_eq!(names(&loaded), ["some/app:1", "app:latest"]);
        let image = node.get("app").await.unwrap();
        assert_eq!((image.id, image.names.len(), image.config), (made.id().to_string(), 2, made.config.clone().into()));
        assert!(image.repo_digests.is_empty());
        assert_eq!((node.blobs(), node.ingest()), (4, Vec::new()));
        // Once more, in the smallest pieces: nothing is new.
        let start = LoadStart::default();
        node.load_with(start, &archive[..], 777).await.unwrap();
        assert_eq!((node.blobs(), node.list(&[]).await.unwrap().len()), (4, 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_images_with_shared_layers_and_one_without_a_name() {
    let node = Node::start();
    let base = Layer::noise(1, 50_000);
    let [one, two] = [1, 2].map(|n| Made::new(&[base.clone(), Layer::plain("n", &[n])]));
    let loaded = node.load(&old(&[(&one, &["one:1"]), (&two, &[])])).await.unwrap();
    assert_eq!(names(&loaded), ["one:1", ""]);
    assert_eq!(node.list(&["dangling=true"]).await.unwrap()[0].id, two.id().to_string());
    assert_eq!(node.blobs(), 3 + 2 + 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn oci_layouts() {
    let node = Node::start();
    let (amd, arm) = (made(), Made::with(&[Layer::plain("arm", b"")], json!({ "architecture": "arm64" })));
    let named = |name: &str| json!({ "annotations": { "org.opencontainers.image.ref.name": name } });
    // A tag of nothing, a whole name, containerd's name, and a name from the caller.
    assert_eq!(names(&node.load(&layout(&[(&amd, named("latest"))])).await.unwrap()), [""]);
    assert_eq!(names(&node.load(&layout(&[(&amd, named("some/app:2"))])).await.unwrap()), ["some/app:2"]);
    let containerd = json!({ "annotations": { "io.containerd.image.name": "docker.io/library/app:3" } });
    assert_eq!(names(&node.load(&layout(&[(&amd, containerd)])).await.unwrap()), ["app:3"]);
    let start = LoadStart { name: "given:1".into(), ..Default::default() };
    assert_eq!(names(&node.load_with(start, &layout(&[(&amd, json!({}))]), 4096).await.unwrap()), ["given:1"]);
    assert_eq!(node.get("given:1").await.unwrap().manifest_digest, amd.digest().to_string());
    // Several platforms of one name.
    let on = |architecture: &str| {
        json!({ "annotations": { "org.opencontainers.image.ref.name": "multi:1" },
            "platform": { "os": "linux", "architecture": architecture } })
    };
    let archive = layout(&[(&amd, on("amd64")), (&arm, on("arm64"))]);
    node.load(&archive).await.unwrap();
    assert_eq!(node.get("multi:1").await.unwrap().id, amd.id().to_string());
    let start = LoadStart { platform: "linux/arm64".into(), ..Default::default() };
    node.load_with(start, &archive, 4096).await.unwrap();
    assert_eq!(node.get("multi:1").await.unwrap().id, arm.id().to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn compressed_archives() {
    let node = Node::start();
    let archive = old(&[(&made(), &["a:1"])]);
    for compressed in [gzip(&archive), zstd::encode_all(&*archive, 1).unwrap()] {
        assert_eq!(names(&node.load(&compressed).await.unwrap()), ["a:1"]);
        let cut = &compressed[..compressed.len() - 20];
        assert!(node.load(cut).await.unwrap_err().message.contains("cut off"));
    }
    let xz = node.load(b"\xfd7zXZ\0\0\0").await.unwrap_err();
    assert!(xz.message.contains("xz -dc"), "{xz}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loaded_image_is_not_fetched_again() {
    let (upstream, node) = Upstream::with_node("").await;
    let plain = Layer::noise(1, 300_000);
    let (loaded, pulled) = (Made::new(std::slice::from_ref(&plain)), Made::new(&[plain.clone().gzip()]));
    assert_eq!(loaded.id(), pulled.id(), "the same image, compressed only for the registry");
    node.load(&old(&[(&loaded, &["app:1"])])).await.unwrap();
    let reference = upstream.image("app:1", &pulled);
    let done = node.pull(&reference).await.done();
    assert_eq!(done.image.unwrap().names.len(), 2);
    assert_eq!(upstream.count("/blobs/"), 0);
    // Another image with the same layer.
    let other = Made::with(&[plain.gzip()], json!({ "author": "other" }));
    node.pull(&upstream.image("other:1", &other)).await.done();
    assert_eq!(upstream.count("/blobs/"), 1, "its configuration");
    // And the other way round.
    node.load(&old(&[(&loaded, &["app:2"])])).await.unwrap();
    assert_eq!(node.get("app:2").await.unwrap().manifest_digest, pulled.digest().to_string());
    for name in ["app:1", "app:2", reference.as_str()] {
        node.remove(name, false).await.unwrap();
    }
    // The layer is still needed.
    node.pull(&reference).await.done();
    assert_eq!(upstream.count("/blobs/"), 2, "the configuration again");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_lead_outside_are_only_names() {
    let node = Node::start();
    let made = made();
    let entries = |layer: &str| {
        json!([{ "Config": "/etc/config.json", "RepoTags": ["a:1"], "Layers": [layer, "../../l1"] }]).to_string()
    };
    // Files named so are found by these names; nothing is written where they point.
    let archive = Archive::default()
        .file("/etc/config.json", &made.config)
        .file("../../l1", &made.layers[1].blob)
        .file("real", &made.layers[0].blob)
        .link("linked", "/../../real", false)
        .file("manifest.json", entries("linked").as_bytes());
    assert_eq!(names(&node.load(&archive.tar()).await.unwrap()), ["a:1"]);
    node.remove("a:1", false).await.unwrap();
    // A link to a file of the machine is a link to nothing, and circles end.
    for target in ["/etc/passwd", "../../../../../../etc/passwd", "linked", "manifest.json/../linked"] {
        let archive = Archive::default()
            .file("/etc/config.json", &made.config)
            .file("../../l1", &made.layers[1].blob)
            .link("linked", target, false)
            .file("manifest.json", entries("linked").as_bytes());
        let failure = node.refused(&archive.tar()).await;
        assert!(failure.message.contains("\"linked\" and does not have it"), "{target}: {failure}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_and_broken_archives_are_refused() {
    let node = Node::start();
    let made = made();
    let whole = old(&[(&made, &["a:1"])]);
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("nothing", Vec::new(), "empty"),
        ("noise", crate::made::noise(1, 10_000), "no tar"),
        ("no manifest", Archive::default().file("a", b"b").tar(), "neither a manifest.json"),
        ("no JSON", Archive::default().file("manifest.json", b"[{").tar(), "manifest.json is malformed"),
        ("cut off", whole[..whole.len() / 2].to_vec(), "cut off"),
        (
            "a file that says it is huge",
            Archive::default().claiming(tar::EntryType::Regular, "a", 1 << 60),
            "no space left",
        ),
        ("a name without end", Archive::default().claiming(tar::EntryType::GNULongName, "a", 1 << 33), "cut off"),
        ("twice", Archive::default().file("a", b"b").file("a", b"c").tar(), "\"a\" twice"),
        ("bad name", old(&[(&made, &["A:1:2"])]), "invalid reference"),
        (
            "layer missing",
            Archive::default()
                .file("c", &made.config)
                .file("manifest.json", br#"[{"Config":"c","Layers":["l"]}]"#)
                .tar(),
            "\"l\" and does not have it",
        ),
        (
            "fewer layers",
            Archive::default().file("c", &made.config).file("manifest.json", br#"[{"Config":"c","Layers":[]}]"#).tar(),
            "0 layers and 2 diff IDs",
        ),
    ];
    let squashed = made.edited("application/vnd.oci.image.layer.v1.tar", "application/x-squashfs");
    let cases = cases.into_iter().chain([(
        "a layer of another sort",
        layout(&[(&squashed, json!({}))]),
        "of the type \"application/x-squashfs",
    )]);
    for (what, archive, why) in cases {
        let failure = node.refused(&archive).await;
        assert!(failure.message.contains(why), "{what}: {failure}");
    }
    // Long pax records, truly there, compressed to nearly nothing.
    let mut bomb = Archive::default().claiming(tar::EntryType::XHeader, "a", 64 << 20);
    bomb.resize(bomb.len() + (64 << 20), b'0');
    let failure = node.refused(&gzip(&bomb)).await;
    assert!(failure.message.contains("headers are too long"), "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn digests_of_an_archive_are_checked() {
    let node = Node::start();
    let made = made();
    // A blob of a layout under another's name.
    let hex = made.layers[1].digest();
    let swap = |archive: Vec<u8>, hex: &str| {
        let other = Digest::sha256(b"other");
        let text: Vec<u8> = archive;
        // The name in the header and wherever it is written.
        let mut text = replace(&text, hex.as_bytes(), other.hex().as_bytes());
        fix_checksums(&mut text);
        text
    };
    let failure = node.refused(&swap(hybrid(&made, &["a:1"]), made.id().hex())).await;
    assert_eq!(failure.kind, Kind::DataLoss, "{failure}");
    let failure = node.refused(&swap(hybrid(&made, &["a:1"]), hex.hex())).await;
    assert!(failure.message.contains("is not sha256:"), "{failure}");
    let failure = node.refused(&swap(layout(&[(&made, json!({}))]), made.digest().hex())).await;
    assert_eq!(failure.kind, Kind::DataLoss, "{failure}");
    // A layer that is not what the configuration says.
    let mut lying = made.clone();
    lying.layers[0] = Layer::plain("a", b"two");
    let failure = node.refused(&old(&[(&lying, &["a:1"])])).await;
    assert_eq!(failure.kind, Kind::DataLoss, "{failure}");
}

fn replace(text: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut text = text.to_vec();
    let mut at = 0;
    while let Some(found) = text[at..].windows(from.len()).position(|window| window == from) {
        text[at + found..at + found + from.len()].copy_from_slice(to);
        at += found + from.len();
    }
    text
}

fn fix_checksums(tar: &mut [u8]) {
    let mut at = 0;
    while at + 512 <= tar.len() && tar[at] != 0 {
        let mut header = tar::Header::new_old();
        header.as_mut_bytes().copy_from_slice(&tar[at..at + 512]);
        header.set_cksum();
        tar[at..at + 512].copy_from_slice(header.as_bytes());
        at += 512 + usize::try_from(header.size().unwrap()).unwrap().next_multiple_of(512);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_goes_away_leaves_nothing() {
    let node = Node::start();
    let archive = old(&[(&made(), &["a:1"])]);
    let (sender, messages) = tokio::sync::mpsc::channel(1);
    let messages = tokio_stream::wrappers::ReceiverStream::new(messages);
    let mut client = node.client();
    let loading = tokio::spawn(async move { client.load(messages).await });
    let message = |message| LoadRequest { message: Some(message) };
    sender.send(message(Sent::Start(LoadStart::default()))).await.unwrap();
    sender.send(message(Sent::Data(archive[..50_000].to_vec().into()))).await.unwrap();
    loading.abort();
    drop(sender);
    // The next one is not in its way.
    node.load(&archive).await.unwrap();
    assert_eq!(node.list(&[]).await.unwrap().len(), 1);
}
