//! containerd's snapshot service: its life cycle, its rules, its error codes.

use std::collections::HashMap;

use berth_core::{Failure, Kind};
use berth_proto::containerd::services::snapshots::v1::{
    CommitSnapshotRequest, Info, Kind as SnapshotKind, ListSnapshotsRequest, MountsRequest, PrepareSnapshotRequest,
    StatSnapshotRequest, UpdateSnapshotRequest, UsageRequest,
};
use prost_types::FieldMask;

use crate::{both_drivers, mounted::Mounted, service::Service};

both_drivers!(a_life, the_rules, labels_and_filters, names, rebasing);

async fn commit(service: &Service, name: &str, key: &str, parent: &str) -> Result<(), Failure> {
    let (name, key, parent) = (name.into(), key.into(), parent.into());
    let request = CommitSnapshotRequest { name, key, parent, ..Default::default() };
    service.snapshots().commit(request).await.map(|_| ()).map_err(Failure::from)
}

async fn stat(service: &Service, key: &str) -> Result<Info, Failure> {
    let request = StatSnapshotRequest { key: key.into(), ..Default::default() };
    service.snapshots().stat(request).await.map(|answer| answer.into_inner().info.unwrap()).map_err(Failure::from)
}

async fn list(service: &Service, filters: &[&str]) -> Result<Vec<String>, Failure> {
    let filters = filters.iter().map(|filter| (*filter).to_owned()).collect();
    let request = ListSnapshotsRequest { filters, ..Default::default() };
    let mut stream = service.snapshots().list(request).await.map_err(Failure::from)?.into_inner();
    let mut names = Vec::new();
    while let Some(message) = stream.message().await.map_err(Failure::from)? {
        names.extend(message.info.into_iter().map(|info| info.name));
    }
    Ok(names)
}

fn kind<T: std::fmt::Debug>(result: Result<T, Failure>) -> Kind {
    result.unwrap_err().kind
}

async fn a_life(driver: &'static str) {
    let mut service = Service::start(driver).await;
    let mounted = Mounted::new(&service.prepare("one", "").await.unwrap());
    std::fs::create_dir(mounted.path("d")).unwrap();
    std::fs::write(mounted.path("d/gone"), "").unwrap();
    std::fs::write(mounted.path("stays"), "from below").unwrap();
    drop(mounted);
    let active = stat(&service, "one").await.unwrap();
    assert_eq!((active.kind(), active.parent.as_str()), (SnapshotKind::Active, ""));
    commit(&service, "base", "one", "").await.unwrap();
    assert_eq!(kind(stat(&service, "one").await), Kind::NotFound);
    let mounted = Mounted::new(&service.prepare("two", "base").await.unwrap());
    std::fs::remove_dir_all(mounted.path("d")).unwrap();
    std::fs::rename(mounted.path("stays"), mounted.path("moved")).unwrap();
    drop(mounted);
    commit(&service, "top", "two", "").await.unwrap();
    // Everything is as it was after a kill -9.
    service.kill();
    service.revive();
    let committed = stat(&service, "top").await.unwrap();
    assert_eq!((committed.kind(), committed.parent.as_str()), (SnapshotKind::Committed, "base"));
    let view = Mounted::new(&service.view("view", "top").await.unwrap());
    assert_eq!(view.names(""), ["moved"]);
    assert_eq!(view.read("moved"), b"from below");
    let request = MountsRequest { key: "view".into(), ..Default::default() };
    let again = service.snapshots().mounts(request).await.unwrap().into_inner().mounts;
    assert_eq!(Mounted::new(&again).names(""), ["moved"]);
    if driver == "vfs" {
        assert!(again[0].options.contains(&"ro".to_owned()));
    }
    assert_eq!(list(&service, &[]).await.unwrap(), ["base", "top", "view"]);
    drop(view);
    for key in ["view", "top", "base"] {
        service.remove(key).await.unwrap();
    }
    service.assert_directories(0).await;
}

async fn the_rules(driver: &'static str) {
    let service = Service::start(driver).await;
    service.prepare("active", "").await.unwrap();
    assert_eq!(kind(service.prepare("active", "").await), Kind::AlreadyExists);
    assert_eq!(kind(service.view("active", "").await), Kind::AlreadyExists);
    assert_eq!(kind(service.prepare("x", "nothing").await), Kind::NotFound);
    assert_eq!(kind(service.prepare("x", "active").await), Kind::InvalidArgument);
    assert_eq!(kind(commit(&service, "name", "nothing", "").await), Kind::NotFound);
    assert_eq!(kind(commit(&service, "active", "active", "").await), Kind::AlreadyExists);
    commit(&service, "base", "active", "").await.unwrap();
    service.prepare("active", "base").await.unwrap();
    assert_eq!(kind(commit(&service, "base", "active", "").await), Kind::AlreadyExists);
    service.view("view", "base").await.unwrap();
    assert_eq!(kind(commit(&service, "name", "view", "").await), Kind::FailedPrecondition);
    assert_eq!(kind(commit(&service, "name", "base", "").await), Kind::FailedPrecondition);
    assert_eq!(kind(service.prepare("x", "view").await), Kind::InvalidArgument);
    assert_eq!(kind(service.remove("base").await), Kind::FailedPrecondition);
    assert_eq!(kind(service.remove("nothing").await), Kind::NotFound);
    let mounts = async |key: &str| {
        let request = MountsRequest { key: key.into(), ..Default::default() };
        service.snapshots().mounts(request).await.map_err(Failure::from)
    };
    assert_eq!(kind(mounts("base").await), Kind::FailedPrecondition);
    assert_eq!(kind(mounts("nothing").await), Kind::NotFound);
    assert_eq!(kind(stat(&service, "nothing").await), Kind::NotFound);
    let usage = UsageRequest { key: "nothing".into(), ..Default::default() };
    assert_eq!(kind(service.snapshots().usage(usage).await.map_err(Failure::from)), Kind::NotFound);
    // None of the refused left anything.
    service.assert_directories(3).await;
}

async fn labels_and_filters(driver: &'static str) {
    let mut service = Service::start(driver).await;
    let labels = |pairs: &[(&str, &str)]| -> HashMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    let request = PrepareSnapshotRequest {
        key: "a".into(),
        labels: labels(&[("containerd.io/gc.root", "now"), ("colour", "blue")]),
        ..Default::default()
    };
    service.snapshots().prepare(request).await.unwrap();
    service.prepare("b", "").await.unwrap();
    let update = async |service: &Service, pairs: &[(&str, &str)], paths: &[&str]| {
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        let info = Info { name: "a".into(), labels: labels(pairs), ..Default::default() };
        let request =
            UpdateSnapshotRequest { info: Some(info), update_mask: Some(FieldMask { paths }), ..Default::default() };
        service.snapshots().update(request).await.map(|a| a.into_inner().info.unwrap()).map_err(Failure::from)
    };
    let info =
        update(&service, &[("colour", "red")], &["labels.colour", "labels.containerd.io/gc.root"]).await.unwrap();
    assert_eq!(info.labels, labels(&[("colour", "red")]));
    assert!(info.updated_at.unwrap().seconds >= info.created_at.unwrap().seconds);
    assert_eq!(kind(update(&service, &[], &["parent"]).await), Kind::InvalidArgument);
    update(&service, &[("shape", "round")], &["labels"]).await.unwrap();
    service.kill();
    service.revive();
    assert_eq!(stat(&service, "a").await.unwrap().labels, labels(&[("shape", "round")]));
    for (filters, names) in [
        (vec!["kind==active"], vec!["a", "b"]),
        (vec!["labels.\"shape\"==round"], vec!["a"]),
        (vec!["name==b", "labels.shape"], vec!["a", "b"]),
        (vec!["kind==active,name!=a"], vec!["b"]),
        (vec!["kind==committed"], vec![]),
    ] {
        assert_eq!(list(&service, &filters).await.unwrap(), names, "{filters:?}");
    }
    assert_eq!(kind(list(&service, &["size>3"]).await), Kind::InvalidArgument);
    commit(&service, "committed", "a", "").await.unwrap();
    assert!(stat(&service, "committed").await.unwrap().labels.is_empty(), "labels are those of the commit");
}

async fn names(driver: &'static str) {
    let service = Service::start(driver).await;
    for name in ["", "with\nnewline", &"n".repeat(5000)] {
        assert_eq!(kind(service.prepare(name, "").await), Kind::InvalidArgument);
    }
    for name in ["k8s.io/12/extract-1-x sha256:00", "../../escape", "/", "ü", &"n".repeat(1000)] {
        service.prepare(name, "").await.unwrap();
        assert_eq!(stat(&service, name).await.unwrap().name, name);
    }
    service.assert_directories(5).await;
}

async fn rebasing(driver: &'static str) {
    let service = Service::start(driver).await;
    for key in ["a", "b"] {
        let mounted = Mounted::new(&service.prepare(key, "").await.unwrap());
        std::fs::write(mounted.path(key), "").unwrap();
    }
    commit(&service, "base", "a", "").await.unwrap();
    assert_eq!(kind(commit(&service, "x", "b", "nothing").await), Kind::NotFound);
    if driver == "overlay2" {
        commit(&service, "top", "b", "base").await.unwrap();
        assert_eq!(Mounted::new(&service.view("v", "top").await.unwrap()).names(""), ["a", "b"]);
    } else {
        // What a copy holds cannot be put on top of another afterwards.
        assert_eq!(kind(commit(&service, "top", "b", "base").await), Kind::Unimplemented);
    }
    service.prepare("c", "base").await.unwrap();
    assert_eq!(kind(commit(&service, "x", "c", "other").await), Kind::InvalidArgument);
}
