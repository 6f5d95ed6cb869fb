//! kill -9 at any moment: nothing is visible that is not whole, nothing is left on disk, nothing answered is lost.

use berth_core::Kind;
use berth_proto::{
    berth::snapshotter::v1::{DiskUsageRequest, StatRequest, apply_request::Message},
    containerd::services::snapshots::v1::{ListSnapshotsRequest, StatSnapshotRequest},
};
use futures::future::join_all;

use crate::{
    archive::{Archive, Layer, gzip, noise},
    both_drivers,
    mounted::Mounted,
    service::Service,
};

both_drivers!(
    in_the_middle_of_a_layer,
    between_layer_and_image,
    among_many_calls,
    a_damaged_store_is_rebuilt,
    a_directory_that_is_gone_is_made_again_or_forgotten,
    one_process_a_root,
);

async fn names(service: &Service) -> Vec<String> {
    let mut stream = service.snapshots().list(ListSnapshotsRequest::default()).await.unwrap().into_inner();
    let mut names = Vec::new();
    while let Some(message) = stream.message().await.unwrap() {
        names.extend(message.info.into_iter().map(|info| info.name));
    }
    names
}

async fn in_the_middle_of_a_layer(driver: &'static str) {
    let mut service = Service::start(driver).await;
    let layer = Archive::new().file("a", noise(800_000, 1)).file("b", noise(800_000, 2)).layer();
    let path = service.blob(&layer.blob);
    for bytes in [10_000, 900_000, layer.blob.len() as u64] {
        let mut apply = service.begin(&path, &layer.diff_id, "").await.unwrap();
        apply.say(Message::Available(bytes)).await;
        apply.until_consumed(bytes).await;
        service.kill();
        assert!(apply.done().await.is_err());
        service.revive();
        assert_eq!(service.compose(std::slice::from_ref(&layer)).await.unwrap_err().kind, Kind::NotFound);
        service.assert_directories(0).await;
    }
    service.image(&[layer]).await.unwrap();
}

async fn between_layer_and_image(driver: &'static str) {
    let mut service = Service::start(driver).await;
    let layer = Archive::new().file("a", "a").layer();
    service.apply(&layer).await.unwrap();
    service.kill();
    service.revive();
    service.assert_directories(0).await;
    let top = service.image(std::slice::from_ref(&layer)).await.unwrap();
    service.kill();
    service.revive();
    let stat = StatRequest { diff_ids: vec![layer.diff_id] };
    assert_eq!(service.layers().stat(stat).await.unwrap().into_inner().diff_ids.len(), 1);
    assert_eq!(Mounted::new(&service.view("v", &top).await.unwrap()).read("a"), b"a");
}

async fn among_many_calls(driver: &'static str) {
    let mut service = Service::start(driver).await;
    let base = service.image(&[Archive::new().file("a", "a").layer()]).await.unwrap();
    let layers: Vec<Layer> = (0..4).map(|n| Archive::new().file("f", noise(200_000, n)).layer().blob(gzip)).collect();
    for round in 0..6_usize {
        // The kill comes after as many answers as the round says, wherever the other calls are.
        let (answered, mut answers) = tokio::sync::mpsc::unbounded_channel();
        let prepared = {
            let service = &service;
            let calls = (0..20).map(|n| {
                let (base, answered) = (base.clone(), answered.clone());
                async move {
                    let key = format!("{round}-{n}");
                    let prepared = service.prepare(&key, &base).await.is_ok();
                    let _ = answered.send(());
                    let removed = prepared && n % 2 == 0 && service.remove(&key).await.is_ok();
                    let _ = answered.send(());
                    (key, prepared, removed)
                }
            });
            let images = layers.iter().map(|layer| async { drop(service.image(std::slice::from_ref(layer)).await) });
            let pid = nix::unistd::Pid::from_raw(service.pid());
            let kill = async move {
                for _ in 0..1 + round * 6 {
                    answers.recv().await;
                }
                nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
            };
            futures::join!(join_all(calls), join_all(images), kill).0
        };
        service.kill();
        service.revive();
        let names = names(&service).await;
        for (key, prepared, removed) in prepared {
            // What was answered is so; what was not may be either way.
            assert!(!removed || !names.contains(&key), "{key} is back");
            let surely = prepared && key.split('-').next_back().and_then(|n| n.parse::<u32>().ok()).unwrap() % 2 == 1;
            assert!(!surely || names.contains(&key), "{key} is lost");
        }
        for name in &names {
            let request = StatSnapshotRequest { key: name.clone(), ..Default::default() };
            let kind = service.snapshots().stat(request).await.unwrap().into_inner().info.unwrap().kind();
            if kind == berth_proto::containerd::services::snapshots::v1::Kind::Active {
                let request = berth_proto::containerd::services::snapshots::v1::MountsRequest {
                    key: name.clone(),
                    ..Default::default()
                };
                let mounts = service.snapshots().mounts(request).await.unwrap().into_inner().mounts;
                assert_eq!(Mounted::new(&mounts).read("a"), b"a");
                service.remove(name).await.unwrap();
            }
        }
        let layers = service.layers().usage(DiskUsageRequest {}).await.unwrap().into_inner().layers.len();
        service.assert_directories(if driver == "vfs" { 2 * layers } else { layers }).await;
    }
}

async fn a_damaged_store_is_rebuilt(driver: &'static str) {
    let mut service = Service::start(driver).await;
    let layers = [
        Archive::new().file("a", "a").layer(),
        Archive::new().hard_link("b", "a").layer(),
        Archive::new().file("c", "c").layer(),
    ];
    let top = service.image(&layers).await.unwrap();
    let other = service.compose(&[layers[0].clone(), layers[2].clone()]).await.unwrap().pop().unwrap();
    let written = Mounted::new(&service.prepare("container", &top).await.unwrap());
    std::fs::write(written.path("written"), "by the container").unwrap();
    drop(written);
    let unfinished = Archive::new().file("never composed", "").layer();
    service.apply(&unfinished).await.unwrap();
    let before = names(&service).await;
    let store = service.base().join("meta.redb");
    let draft = service.base().join("meta.redb.draft");
    std::fs::write(&draft, "half of a store").unwrap();
    for damage in ["garbage", "truncated", "empty", "missing", "flipped"] {
        service.kill();
        let whole = std::fs::read(&store).unwrap();
        match damage {
            "garbage" => std::fs::write(&store, noise(whole.len(), 7)).unwrap(),
            "truncated" => std::fs::write(&store, &whole[..whole.len() / 2]).unwrap(),
            "empty" => std::fs::write(&store, b"").unwrap(),
            "missing" => std::fs::remove_file(&store).unwrap(),
            _ => std::fs::write(&store, [&noise(4096, 8), &whole[4096..]].concat()).unwrap(),
        }
        service.revive();
        assert_eq!(names(&service).await, before, "{damage}");
        let request = berth_proto::containerd::services::snapshots::v1::MountsRequest {
            key: "container".into(),
            ..Default::default()
        };
        let mounts = service.snapshots().mounts(request).await.unwrap().into_inner().mounts;
        assert_eq!(Mounted::new(&mounts).names(""), ["a", "b", "c", "written"], "{damage}");
        let aside = crate::mounted::names(&service.base());
        let aside = aside.iter().filter(|name| name.contains("damaged")).count();
        assert!(aside > 0 && !draft.exists(), "{damage}");
    }
    assert_eq!(Mounted::new(&service.view("view", &other).await.unwrap()).names(""), ["a", "c"]);
    for key in ["view", "container", &top, &other] {
        service.remove(key).await.unwrap();
    }
}

async fn a_directory_that_is_gone_is_made_again_or_forgotten(driver: &'static str) {
    let mut service = Service::start(driver).await;
    service.prepare("kept", "").await.unwrap();
    let mounts = service.prepare("lost", "").await.unwrap();
    service.kill();
    std::fs::remove_dir_all(std::path::Path::new(&mounts[0].source).parent().unwrap()).unwrap();
    std::fs::create_dir_all(service.base().join("4711/fs")).unwrap();
    service.revive();
    // A copy was durable before its record, so nothing that happens by itself takes it; an empty one may be lost.
    let copies = driver == "vfs";
    assert_eq!(names(&service).await, if copies { vec!["kept"] } else { vec!["kept", "lost"] });
    service.assert_directories(if copies { 1 } else { 2 }).await;
    service.prepare("new", "").await.unwrap();
}

async fn one_process_a_root(driver: &'static str) {
    let service = Service::start(driver).await;
    service.prepare("kept", "").await.unwrap();
    let second = crate::service::program(service.home(), driver).output().unwrap();
    assert!(!second.status.success());
    let error = String::from_utf8_lossy(&second.stderr);
    assert!(error.contains("Taken") || error.contains("another snapshotter"), "{error}");
    assert_eq!(names(&service).await, ["kept"]);
}
