//! A file system without space, or without inodes: said so, and everything freed.

use std::path::{Path, PathBuf};

use berth_core::{Failure, Kind};

use crate::{
    archive::{Archive, noise},
    both_drivers,
    service::Service,
};

both_drivers!(no_space, no_inodes, records_without_space);

/// A small file system of its own, unmounted at the end.
struct Small {
    _home: tempfile::TempDir,
    path: PathBuf,
}

impl Small {
    fn new(options: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("small");
        std::fs::create_dir(&path).unwrap();
        nix::mount::mount(Some("tmpfs"), &path, Some("tmpfs"), nix::mount::MsFlags::empty(), Some(options)).unwrap();
        Self { _home: home, path }
    }

    fn used(&self) -> (u64, u64) {
        used(&self.path)
    }
}

fn used(path: &Path) -> (u64, u64) {
    let stat = rustix::fs::statvfs(path).unwrap();
    ((stat.f_blocks - stat.f_bfree) * stat.f_frsize, stat.f_files - stat.f_ffree)
}

impl Drop for Small {
    fn drop(&mut self) {
        nix::mount::umount2(&self.path, nix::mount::MntFlags::MNT_DETACH).unwrap();
    }
}

fn assert_full(failure: &Failure) {
    assert_eq!((failure.kind, failure.reason.as_str()), (Kind::ResourceExhausted, "NO_SPACE"), "{failure:?}");
    assert!(failure.hint.contains("berth rmi") && failure.hint.contains("left"), "{failure:?}");
}

async fn no_space(driver: &'static str) {
    let small = Small::new("size=16m");
    let service = Service::start_in(&small.path, driver);
    service.image(&[Archive::new().file("base", "").layer()]).await.unwrap();
    service.cleanup().await;
    let before = small.used();
    // One layer that fits, and one that does not: of neither is anything left.
    service.apply(&Archive::new().file("fits", noise(1 << 20, 1)).layer()).await.unwrap();
    let large = Archive::new().file("large", vec![1; 30 << 20]).layer().blob(crate::archive::gzip);
    for _ in 0..2 {
        assert_full(&service.apply(&large).await.unwrap_err());
        service.cleanup().await;
        assert!(small.used().0 <= before.0 + 64 * 1024, "{before:?} {:?}", small.used());
    }
    service.prepare("still works", "").await.unwrap();
    service.remove("still works").await.unwrap();
}

async fn no_inodes(driver: &'static str) {
    let small = Small::new("size=64m,nr_inodes=300");
    let service = Service::start_in(&small.path, driver);
    service.prepare("base", "").await.unwrap();
    service.cleanup().await;
    let before = small.used();
    let mut many = Archive::new();
    for n in 0..400 {
        many = many.file(&format!("f{n}"), "");
    }
    assert_full(&service.apply(&many.layer()).await.unwrap_err());
    let some = (0..120).fold(Archive::new(), |archive, n| archive.file(&format!("f{n}"), "")).layer();
    let top = service.image(std::slice::from_ref(&some)).await;
    if driver == "vfs" {
        let prepared = match &top {
            Ok(top) => service.prepare("copy", top).await.map(|_| ()),
            Err(failure) => Err(failure.clone()),
        };
        assert_full(&prepared.unwrap_err());
    }
    if let Ok(top) = top {
        service.remove(&top).await.unwrap();
    }
    service.cleanup().await;
    assert!(small.used().1 <= before.1 + 4, "{before:?} {:?}", small.used());
    service.prepare("still works", "").await.unwrap();
}

async fn records_without_space(driver: &'static str) {
    let small = Small::new("size=16m");
    let mut service = Service::start_in(&small.path, driver);
    let filler = small.path.join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    assert!(std::io::copy(&mut std::io::repeat(1), &mut file).is_err());
    // The store has some room of its own, as has the driver; it is used up in the end.
    let mut kept = Vec::new();
    let failure = loop {
        let key = format!("key-{}", kept.len());
        match service.view(&key, "").await {
            Ok(_) => kept.push(key),
            Err(failure) => break failure,
        }
        assert!(kept.len() < 5000, "the disk is full");
    };
    assert_full(&failure);
    service.kill();
    service.revive();
    drop(file);
    std::fs::remove_file(filler).unwrap();
    service.prepare("later", "").await.unwrap();
    for key in kept.iter().map(String::as_str).chain(["later"]) {
        service.remove(key).await.unwrap();
    }
}
