//! Layers and the stacks made of them.

use berth_core::{Digest, Kind, digest::chain_ids};
use berth_proto::{
    berth::snapshotter::v1::DiskUsageRequest,
    containerd::services::snapshots::v1::{ListSnapshotsRequest, UsageRequest},
};
use futures::future::join_all;

use crate::{
    archive::{Archive, Layer},
    both_drivers,
    mounted::Mounted,
    service::Service,
};

both_drivers!(
    many_layers,
    one_layer_at_two_places,
    composing_twice_and_at_once,
    removing_gives_the_layers_back,
    disk_use_is_told,
    others_reach_files_by_the_mount_alone
);

async fn many_layers(driver: &'static str) {
    let service = Service::start(driver).await;
    // A whole copy for each is what vfs costs, so it gets fewer.
    let most = if driver == "vfs" { 128 } else { 200 };
    let layer = |n: usize| {
        let archive =
            Archive::new().directory("d").file(&format!("d/own-{n}"), format!("{n}")).file("last", n.to_string());
        if n == 0 { archive.layer() } else { archive.file(&format!("d/.wh.own-{}", n - 1), "").layer() }
    };
    let layers: Vec<Layer> = (0..most).map(layer).collect();
    for layers in layers.chunks(20) {
        for done in join_all(layers.iter().map(|layer| service.apply(layer))).await {
            done.unwrap();
        }
    }
    let chain = service.compose(&layers).await.unwrap();
    for count in std::collections::BTreeSet::from([128, most]) {
        let parent = &chain[count - 1];
        let mounted = Mounted::new(&service.prepare(&format!("container-{count}"), parent).await.unwrap());
        assert_eq!(mounted.names("d"), [format!("own-{}", count - 1)]);
        assert_eq!(mounted.read("last"), (count - 1).to_string().into_bytes());
        std::fs::write(mounted.path("d/written"), "by the container").unwrap();
    }
}

async fn one_layer_at_two_places(driver: &'static str) {
    let service = Service::start(driver).await;
    let a = Archive::new().file("a", "a").file("both", "a").layer();
    let b = Archive::new().file("b", "b").file("both", "b").layer();
    let top = service.image(&[a.clone(), b.clone(), a.clone()]).await.unwrap();
    let other = service.compose(&[b.clone(), a.clone(), b.clone()]).await.unwrap().pop().unwrap();
    assert_eq!(service.layers().usage(DiskUsageRequest {}).await.unwrap().into_inner().layers.len(), 2);
    let read = async |key: &str, parent: &str| Mounted::new(&service.view(key, parent).await.unwrap()).read("both");
    assert_eq!((read("1", &top).await, read("2", &other).await), (b"a".to_vec(), b"b".to_vec()));
}

async fn composing_twice_and_at_once(driver: &'static str) {
    let service = Service::start(driver).await;
    let layers: Vec<_> = (0..5).map(|n| Archive::new().file("f", n.to_string()).layer()).collect();
    for layer in &layers {
        service.apply(layer).await.unwrap();
    }
    let diff_ids: Vec<Digest> = layers.iter().map(|layer| layer.diff_id.parse().unwrap()).collect();
    let expected: Vec<String> = chain_ids(&diff_ids).iter().map(Digest::to_string).collect();
    let answers = join_all((0..8).map(|n| service.compose(&layers[..1 + n % 5]))).await;
    for (n, answer) in answers.into_iter().enumerate() {
        assert_eq!(answer.unwrap(), expected[..1 + n % 5]);
    }
    assert_eq!(service.compose(&layers).await.unwrap(), expected);
    assert!(service.compose(&[]).await.unwrap().is_empty());
    service.assert_directories(if driver == "vfs" { 10 } else { 5 }).await;
    let missing = Archive::new().file("missing", "").layer();
    let failure = service.compose(&[layers[0].clone(), missing.clone()]).await.unwrap_err();
    assert_eq!(failure.kind, Kind::NotFound);
    assert!(failure.message.contains(&missing.diff_id));
}

async fn removing_gives_the_layers_back(driver: &'static str) {
    let service = Service::start(driver).await;
    let (base, one, two) = (
        Archive::new().file("base", "").layer(),
        // Settled in a directory of its own on overlay2, because it leaves something open.
        Archive::new().hard_link("one", "base").layer(),
        Archive::new().file("two", "").layer(),
    );
    let first = service.image(&[base.clone(), one.clone()]).await.unwrap();
    let second = service.image(&[base.clone(), two]).await.unwrap();
    let failure = service.remove(&base.diff_id).await.unwrap_err();
    assert_eq!(failure.kind, Kind::FailedPrecondition);
    service.prepare("container", &first).await.unwrap();
    assert_eq!(service.remove(&first).await.unwrap_err().kind, Kind::FailedPrecondition);
    service.remove("container").await.unwrap();
    service.remove(&first).await.unwrap();
    assert_eq!(service.compose(std::slice::from_ref(&one)).await.unwrap_err().kind, Kind::NotFound);
    let mounted = Mounted::new(&service.view("view", &second).await.unwrap());
    assert_eq!(mounted.names(""), ["base", "two"]);
    drop(mounted);
    for key in ["view", &second, &base.diff_id] {
        service.remove(key).await.unwrap();
    }
    service.assert_directories(0).await;
    let usage = service.layers().usage(DiskUsageRequest {}).await.unwrap().into_inner();
    assert!(usage.layers.is_empty());
    let mut list = service.snapshots().list(ListSnapshotsRequest::default()).await.unwrap().into_inner();
    assert!(list.message().await.unwrap().is_none());
}

async fn disk_use_is_told(driver: &'static str) {
    let service = Service::start(driver).await;
    let layer = Archive::new().directory("d").file("d/f", vec![1; 10_000]).hard_link("l", "d/f").layer();
    let top = service.image(std::slice::from_ref(&layer)).await.unwrap();
    let usage = service.layers().usage(DiskUsageRequest {}).await.unwrap().into_inner();
    assert_eq!((usage.driver.as_str(), usage.path), (driver, service.root().display().to_string()));
    assert_eq!((usage.layers[0].inodes, usage.layers[0].references), (3, 1));
    assert_eq!(usage.layers[0].bytes, 2 * 4096 + 12_288);
    service.prepare("container", &top).await.unwrap();
    let mounted = Mounted::new(&service.prepare("other", &top).await.unwrap());
    std::fs::write(mounted.path("written"), vec![1; 50_000]).unwrap();
    let of = async |key: &str| {
        let request = UsageRequest { key: key.into(), ..Default::default() };
        service.snapshots().usage(request).await.unwrap().into_inner()
    };
    assert!(of("other").await.size >= of("container").await.size + 50_000);
    assert_eq!(of("other").await.inodes, of("container").await.inodes + 1);
}

async fn others_reach_files_by_the_mount_alone(driver: &'static str) {
    use std::os::unix::fs::PermissionsExt as _;
    let service = Service::start(driver).await;
    std::fs::set_permissions(service.home(), std::fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(service.root().metadata().unwrap().permissions().mode() & 0o777, 0o700);
    let layers = [Archive::new().file("a", "a").layer(), Archive::new().file("b", "b").layer()];
    let top = service.image(&layers).await.unwrap();
    let mounted = Mounted::new(&service.prepare("container", &top).await.unwrap());
    let reads = |directory: &std::path::Path, file: &std::path::Path| {
        let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups", "cat"];
        let mut command = std::process::Command::new("setpriv");
        command.args(nobody).arg(file).current_dir(directory);
        command.output().unwrap().status.success()
    };
    // The lower directories of an overlay are reached as who mounted it.
    assert!(reads(&mounted.path(""), "a".as_ref()) && reads(&mounted.path(""), "b".as_ref()));
    let stored = service.base().join(&service.directories()[0]);
    let stored = stored.join("fs").join(if stored.join("fs/a").exists() { "a" } else { "b" });
    assert!(stored.exists() && !reads(service.home(), &stored));
}
