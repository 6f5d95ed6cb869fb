//! Names: given, moved, looked up, filtered, taken away by Docker's rules; and who uses an image.

use berth_core::{Failure, Kind};
use berth_proto::berth::image::v1::{GetRequest, ReleaseRequest, SetUsesRequest, Use};
use serde_json::json;

use crate::{
    made::{Layer, Made},
    node::Node,
    upstream::Upstream,
};

impl Node {
    async fn begin_use(&self, reference: &str, owner: &str) -> Result<(), Failure> {
        let request = GetRequest { reference: reference.into(), use_by: owner.into(), platform: String::new() };
        self.client().get(request).await.map(|_| ()).map_err(Failure::from)
    }

    async fn release(&self, owner: &str) {
        self.client().release(ReleaseRequest { owner: owner.into() }).await.unwrap();
    }

    async fn set_uses(&self, owner_prefix: &str, uses: &[(&str, &Made)]) {
        let uses = uses.iter().map(|(owner, made)| Use { owner: (*owner).into(), image_id: made.id().to_string() });
        let request = SetUsesRequest { owner_prefix: owner_prefix.into(), uses: uses.collect() };
        self.client().set_uses(request).await.unwrap();
    }
}

fn made(n: u8) -> Made {
    Made::with(
        &[Layer::plain("a", b"shared"), Layer::plain("n", &[n])],
        json!({
            "created": format!("2026-01-0{n}T00:00:00Z"), "config": { "Labels": { "n": n.to_string(), "all": "" } },
        }),
    )
}

async fn with(count: u8) -> (Upstream, Node, Vec<Made>) {
    let (upstream, node) = Upstream::with_node("").await;
    let all: Vec<Made> = (1..=count).map(made).collect();
    for (n, made) in all.iter().enumerate() {
        let reference = upstream.image(&format!("app:{}", n + 1), made);
        node.pull(&reference).await.done();
        node.tag(&reference, &format!("app:{}", n + 1)).await.unwrap();
        node.remove(&reference, false).await.unwrap();
    }
    (upstream, node, all)
}

#[tokio::test(flavor = "multi_thread")]
async fn looked_up_by_everything_that_is_unambiguous() {
    let (_upstream, node, all) = with(2).await;
    let id = all[0].id();
    for text in ["app:1", "docker.io/library/app:1", "index.docker.io/app:1", id.short(), id.hex(), &id.to_string()] {
        assert_eq!(node.get(text).await.unwrap().id, id.to_string(), "{text}");
    }
    let absent = node.get("app").await.unwrap_err();
    assert_eq!((absent.kind, absent.reason.as_str()), (Kind::NotFound, "IMAGE_NOT_FOUND"));
    assert_eq!(absent.message, "No such image: app:latest");
    assert_eq!(node.get("app:1:2").await.unwrap_err().kind, Kind::InvalidArgument);
    // So many images that two IDs begin alike.
    let many: Vec<Made> = (0..17).map(|n| Made::with(&[], json!({ "author": n.to_string() }))).collect();
    let tags: Vec<String> = (0..17).map(|n| format!("many:{n}")).collect();
    let tags: Vec<[&str; 1]> = tags.iter().map(|tag| [tag.as_str()]).collect();
    let entries: Vec<(&Made, &[&str])> = many.iter().zip(&tags).map(|(made, tag)| (made, &tag[..])).collect();
    node.load(&crate::archives::old(&entries)).await.unwrap();
    let firsts: Vec<String> = many.iter().map(|made| made.id().hex()[..1].to_owned()).collect();
    let twice = firsts.iter().enumerate().find(|(n, first)| firsts[..*n].contains(first)).unwrap().1;
    let ambiguous = node.get(twice).await.unwrap_err();
    assert_eq!(ambiguous.kind, Kind::InvalidArgument);
    assert!(ambiguous.message.contains("could be several images"), "{ambiguous}");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_given_and_move() {
    let (upstream, node, all) = with(2).await;
    node.tag("app:1", "other/name").await.unwrap();
    assert_eq!(node.get("other/name:latest").await.unwrap().id, all[0].id().to_string());
    node.tag(all[1].id().short(), "other/name:latest").await.unwrap();
    assert_eq!(node.get("other/name").await.unwrap().id, all[1].id().to_string());
    assert_eq!(node.get("app:1").await.unwrap().names, ["docker.io/library/app:1"]);
    for bad in ["Upper", "a@sha256:12", &format!("a@{}", all[0].id())] {
        assert_eq!(node.tag("app:1", bad).await.unwrap_err().kind, Kind::InvalidArgument, "{bad}");
    }
    assert_eq!(node.tag("none", "a").await.unwrap_err().kind, Kind::NotFound);
    // A pull takes a name from the image that had it, which stays without one.
    let reference = upstream.image("moving:1", &all[0]);
    node.pull(&reference).await.done();
    upstream.image("moving:1", &all[1]);
    assert!(node.pull(&reference).await.done().changed);
    assert!(!node.pull(&reference).await.done().changed);
    node.remove("app:1", false).await.unwrap();
    assert_eq!(node.list(&["dangling=true"]).await.unwrap()[0].id, all[0].id().to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_filtered() {
    let (_upstream, node, all) = with(3).await;
    node.tag("app:1", "127.0.0.1:5000/some/app:1").await.unwrap();
    let ids = |filters: &'static [&str]| {
        let (node, all) = (&node, &all);
        async move {
            let listed = node.list(filters).await.unwrap();
            let mut numbers: Vec<usize> = listed
                .iter()
                .map(|image| all.iter().position(|m| m.id().to_string() == image.id).unwrap() + 1)
                .collect();
            numbers.sort_unstable();
            numbers
        }
    };
    assert_eq!(ids(&[]).await, [1, 2, 3]);
    assert_eq!(ids(&["reference=app:[12]"]).await, [1, 2]);
    assert_eq!(ids(&["reference=app:1", "reference=app:3"]).await, [1, 3]);
    assert_eq!(ids(&["reference=app"]).await, [1, 2, 3]);
    assert_eq!(ids(&["reference=*/some/*:1"]).await, [1]);
    assert_eq!(ids(&["label=n=2"]).await, [2]);
    assert_eq!(ids(&["label=all", "label=n=3"]).await, [3]);
    assert_eq!(ids(&["before=app:3", "since=app:1"]).await, [2]);
    assert_eq!(ids(&["dangling=false"]).await, [1, 2, 3]);
    assert!(ids(&["dangling=true"]).await.is_empty());
    // Only the names that were asked for.
    assert_eq!(node.list(&["reference=app:1"]).await.unwrap()[0].names, ["docker.io/library/app:1"]);
    for bad in ["nothing", "what=x", "dangling=perhaps"] {
        assert_eq!(node.list(&[bad]).await.unwrap_err().kind, Kind::InvalidArgument, "{bad}");
    }
    assert_eq!(node.list(&["before=none"]).await.unwrap_err().kind, Kind::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn removed_by_dockers_rules() {
    let (_upstream, node, all) = with(2).await;
    let (id, short) = (all[0].id(), all[0].id().short().to_owned());
    node.tag("app:1", "second:1").await.unwrap();
    let several = node.remove(&short, false).await.unwrap_err();
    assert_eq!(several.kind, Kind::FailedPrecondition);
    assert_eq!(
        several.message,
        format!("conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories")
    );
    assert_eq!(node.remove("second:1", false).await.unwrap(), ["Untagged: second:1"]);
    // In use: by a container that Get names, until it is released.
    node.begin_use("app:1", "0123456789abcdef").await.unwrap();
    let used = node.remove("app:1", false).await.unwrap_err();
    assert_eq!(
        used.message,
        format!(
            "conflict: unable to remove repository reference \"app:1\" (must force) - container 0123456789ab is using its \
             referenced image {short}"
        )
    );
    let used = node.remove(&short, true).await.unwrap_err();
    assert!(used.message.ends_with("(cannot be forced) - image is being used by container 0123456789ab"), "{used}");
    assert_eq!(node.get("app:1").await.unwrap().used_by, ["0123456789abcdef"]);
    assert_eq!(node.remove("app:1", true).await.unwrap(), ["Untagged: app:1"]);
    assert_eq!(node.list(&["dangling=true"]).await.unwrap().len(), 1);
    node.release("0123456789abcdef").await;
    let chain = &node.get(&short).await.unwrap().chain_id;
    assert_eq!(node.remove(&short, false).await.unwrap(), [format!("Deleted: {id}"), format!("Deleted: {chain}")]);
    assert_eq!(node.remove(&short, false).await.unwrap_err().kind, Kind::NotFound);
    // The layer that the other image shares stays until that goes.
    let removed = node.remove("app:2", false).await.unwrap();
    assert_eq!(removed.len(), 4, "{removed:?}");
    assert_eq!(node.blobs(), 0);
    node.when(|| node.directories() == 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn uses_are_told_anew() {
    let (_upstream, mut node, all) = with(2).await;
    node.begin_use("app:1", "docker/a").await.unwrap();
    node.begin_use("app:1", "cri/a").await.unwrap();
    node.set_uses("docker/", &[("docker/b", &all[1])]).await;
    assert_eq!(node.get("app:1").await.unwrap().used_by, ["cri/a"]);
    assert_eq!(node.get("app:2").await.unwrap().used_by, ["docker/b"]);
    assert!(node.begin_use("none", "c").await.is_err());
    node.kill();
    node.start_again();
    assert!(node.get("app:1").await.unwrap().used_by.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_by_digest_only() {
    let (upstream, node) = Upstream::with_node("").await;
    let made = made(1);
    let tagged = upstream.image("app:1", &made);
    let by_digest = format!("{}/app@{}", upstream.address, made.digest());
    node.pull(&by_digest).await.done();
    assert_eq!(node.list(&["dangling=true"]).await.unwrap().len(), 1);
    node.pull(&tagged).await.done();
    // The digest goes alone; with the last tag of its repository it goes along.
    assert_eq!(node.remove(&by_digest, false).await.unwrap(), [format!("Untagged: {by_digest}")]);
    node.pull(&tagged).await.done();
    let removed = node.remove(&tagged, false).await.unwrap();
    assert_eq!(&removed[..2], [format!("Untagged: {tagged}"), format!("Untagged: {by_digest}")]);
    assert_eq!(removed.len(), 5, "{removed:?}");
}
