//! What a container has written, taken as a layer: the same on every driver, the same tar for the same files, however often
//! it is packed. Trees that change, and names that no layer can have.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, symlink},
    path::Path,
};

use berth_core::{Digest, Failure};
use berth_proto::berth::snapshotter::v1::{
    ChangesRequest, ExportRequest, PackRequest, TakeDone, TakeRequest, change, take_response::Message,
};

use crate::{
    archive::{Archive, Layer},
    both_drivers,
    mounted::Mounted,
    service::Service,
};

both_drivers!(
    what_was_written_comes_back,
    changes_are_told,
    a_tree_that_changes_gives_whole_entries,
    what_no_layer_can_have_is_refused,
    who_goes_away_leaves_nothing,
);

/// Takes what was written as a layer; answers with its tar too, packed again twice.
async fn extract(service: &Service, key: &str) -> Result<(Vec<u8>, TakeDone), Failure> {
    let request = TakeRequest { key: key.into(), leave_out: vec!["/etc/hosts".into()] };
    let mut answers = service.layers().take(request).await.map_err(Failure::from)?.into_inner();
    let first = answers.message().await.map_err(Failure::from)?.and_then(|answer| answer.message);
    assert!(matches!(first, Some(Message::Read(_))), "{first:?}");
    let last = answers.message().await.map_err(Failure::from)?.and_then(|answer| answer.message);
    let Some(Message::Done(done)) = last else { panic!("it ends without done: {last:?}") };
    let tar = if done.size == 1024 { vec![0; 1024] } else { packed(service, &done.diff_id).await };
    assert_eq!((done.size, done.diff_id.as_str()), (tar.len() as u64, Digest::sha256(&tar).to_string().as_str()));
    Ok((tar, done))
}

async fn packed(service: &Service, diff_id: &str) -> Vec<u8> {
    let request = PackRequest { diff_id: diff_id.into() };
    let mut answers = service.layers().pack(request).await.unwrap().into_inner();
    let mut tar = Vec::new();
    while let Some(answer) = answers.message().await.unwrap() {
        tar.extend_from_slice(&answer.data);
    }
    tar
}

async fn base(service: &Service) -> (Layer, String) {
    let layer = Archive::new()
        .directory("etc/")
        .file("etc/passwd", "root")
        .file("etc/gone", "x")
        .directory("d/")
        .file("d/one", "1")
        .file("d/two", "2")
        .layer();
    let parent = service.image(std::slice::from_ref(&layer)).await.unwrap();
    (layer, parent)
}

async fn what_was_written_comes_back(driver: &'static str) {
    let mut service = Service::start(driver).await;
    let (layer, parent) = base(&service).await;
    let mounts = service.prepare("c", &parent).await.unwrap();
    let empty = extract(&service, "c").await.unwrap();
    assert_eq!(empty.1.size, 1024, "nothing was written");
    let root = Mounted::new(&mounts);
    fs::write(root.path("new"), vec![7; 600_000]).unwrap();
    fs::hard_link(root.path("new"), root.path("hard")).unwrap();
    fs::set_permissions(root.path("new"), fs::Permissions::from_mode(0o4711)).unwrap();
    symlink("../elsewhere", root.path("link")).unwrap();
    fs::remove_file(root.path("etc/gone")).unwrap();
    fs::remove_dir_all(root.path("d")).unwrap();
    fs::create_dir(root.path("d")).unwrap();
    fs::write(root.path("d/two"), "other").unwrap();
    fs::write(root.path("etc/hosts"), "").unwrap();
    fs::write(root.path("n".repeat(200).as_str()), "long").unwrap();
    std::os::unix::net::UnixListener::bind(root.path("s")).unwrap();
    rustix::fs::setxattr(root.path("new"), "user.a", b"b", rustix::fs::XattrFlags::empty()).unwrap();
    let (tar, done) = extract(&service, "c").await.unwrap();
    let before = service.directories();
    let (again, told) = extract(&service, "c").await.unwrap();
    assert!(again == tar && told.diff_id == done.diff_id, "the same bytes");
    service.cleanup().await;
    assert_eq!(service.directories(), before, "it is there once");
    // What took it in wrote the tar's every entry as this tells it.
    let mut entries = tar::Archive::new(tar.as_slice());
    let named: Vec<String> =
        entries.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string()).collect();
    for name in ["new", "hard", "link", "d/two", "etc/.wh.gone"] {
        assert!(named.iter().any(|named| named == name), "{name}: {named:?}");
    }
    let new = Layer { blob: tar.clone(), diff_id: done.diff_id.clone() };
    // No blob is needed any more.
    let composed = service.compose(&[layer, new]).await.unwrap().pop().unwrap();
    service.kill();
    service.revive();
    assert!(packed(&service, &done.diff_id).await == tar, "the same bytes, for ever");
    let seen = Mounted::new(&service.view("v", &composed).await.unwrap());
    assert_eq!(seen.read("new"), vec![7; 600_000]);
    assert_eq!(seen.metadata("new").permissions().mode() & 0o7777, 0o4711);
    assert_eq!(seen.xattr("new", "user.a").as_deref(), Some(b"b".as_slice()));
    assert_eq!(seen.metadata("new").modified().unwrap(), root.metadata("new").modified().unwrap());
    assert_eq!(std::os::unix::fs::MetadataExt::nlink(&seen.metadata("hard")), 2);
    assert_eq!(fs::read_link(seen.path("link")).unwrap(), Path::new("../elsewhere"));
    assert_eq!((seen.names("d"), seen.names("etc")), (vec!["two".to_owned()], vec!["passwd".to_owned()]));
    assert_eq!((seen.read("d/two"), seen.read("n".repeat(200).as_str())), (b"other".to_vec(), b"long".to_vec()));
    assert!(!seen.exists("s"), "a socket is in no layer");
    drop((root, seen));
    // All of it as one tar, for a reader of another's.
    let request = ExportRequest { key: "c".into() };
    let mut answers = service.layers().export(request).await.unwrap().into_inner();
    let mut whole = Vec::new();
    while let Some(answer) = answers.message().await.unwrap() {
        whole.extend_from_slice(&answer.data);
    }
    let mut archive = tar::Archive::new(whole.as_slice());
    let names: Vec<String> =
        archive.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string()).collect();
    assert!(names.contains(&"etc/passwd".into()) && names.contains(&"d/two".into()), "{names:?}");
    assert!(!names.contains(&"etc/gone".into()) && names.iter().all(|name| !name.contains(".wh.")), "{names:?}");
}

async fn changes_are_told(driver: &'static str) {
    let service = Service::start(driver).await;
    let (_, parent) = base(&service).await;
    let root = Mounted::new(&service.prepare("c", &parent).await.unwrap());
    fs::remove_dir_all(root.path("d")).unwrap();
    fs::create_dir(root.path("d")).unwrap();
    fs::write(root.path("d/three"), "3").unwrap();
    fs::remove_file(root.path("etc/gone")).unwrap();
    fs::File::options().append(true).open(root.path("etc/passwd")).unwrap();
    fs::write(root.path("etc/hosts"), "").unwrap();
    let request = ChangesRequest { key: "c".into(), leave_out: vec!["/etc/hosts".into()] };
    let mut answers = service.layers().changes(request).await.unwrap().into_inner();
    let mut told = Vec::new();
    while let Some(answer) = answers.message().await.unwrap() {
        for change in answer.changes {
            let letter = match change.kind() {
                change::Kind::Added => 'A',
                change::Kind::Changed => 'C',
                _ => 'D',
            };
            told.push(format!("{letter} {}", String::from_utf8_lossy(&change.path)));
        }
    }
    assert_eq!(told, ["C /d", "D /d/one", "A /d/three", "D /d/two", "C /etc", "D /etc/gone"]);
}

async fn a_tree_that_changes_gives_whole_entries(driver: &'static str) {
    let service = Service::start(driver).await;
    let (layer, parent) = base(&service).await;
    let root = Mounted::new(&service.prepare("c", &parent).await.unwrap());
    let path = root.path("");
    // A link leads out of the container, to this; no read follows it, and the writer below must not either.
    let outside = tempfile::NamedTempFile::new().unwrap();
    fs::write(outside.path(), "outside").unwrap();
    let target = outside.path().to_owned();
    let open = |name: &Path| fs::File::options().write(true).create(true).custom_flags(libc::O_NOFOLLOW).open(name);
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let busy = std::thread::spawn(move || {
        let mut n = 0_usize;
        while matches!(stopped.try_recv(), Err(std::sync::mpsc::TryRecvError::Empty)) {
            n += 1;
            let name = path.join(format!("busy-{}", n % 7));
            let _ = match n % 5 {
                0 => fs::remove_file(&name).or_else(|_| fs::remove_dir_all(&name)),
                1 => symlink(&target, &name),
                2 => fs::create_dir(&name).and_then(|()| fs::write(name.join("in"), "x")),
                3 => open(&name).and_then(|mut file| file.write_all(&vec![1; (n * 977) % 700_000])),
                _ => open(&name).and_then(|file| file.set_len((n * 31 % 5000) as u64)),
            };
        }
    });
    for _ in 0..30 {
        let (tar, done) = extract(&service, "c").await.unwrap();
        let new = Layer { blob: tar.clone(), diff_id: done.diff_id };
        if tar.len() > 1024 {
            service.compose(&[layer.clone(), new]).await.unwrap();
        }
        // The other's reader gets to the end of it.
        for entry in tar::Archive::new(tar.as_slice()).entries().unwrap() {
            std::io::copy(&mut entry.unwrap(), &mut std::io::sink()).unwrap();
        }
    }
    drop(stop);
    busy.join().unwrap();
    assert_eq!(fs::read_to_string(outside.path()).unwrap(), "outside");
}

async fn what_no_layer_can_have_is_refused(driver: &'static str) {
    let service = Service::start(driver).await;
    let (_, parent) = base(&service).await;
    let root = Mounted::new(&service.prepare("c", &parent).await.unwrap());
    fs::write(root.path("etc/.wh.passwd"), "").unwrap();
    let before = service.directories();
    let refused = extract(&service, "c").await.unwrap_err().to_string();
    assert!(refused.contains("etc/.wh.passwd") && refused.contains("begins with \".wh.\""), "{refused}");
    service.cleanup().await;
    assert_eq!(service.directories(), before);
    assert!(extract(&service, "nobody").await.unwrap_err().to_string().contains("not found"));
    assert!(extract(&service, &parent).await.unwrap_err().to_string().contains("not active"));
}

async fn who_goes_away_leaves_nothing(driver: &'static str) {
    let service = Service::start(driver).await;
    let (_, parent) = base(&service).await;
    let root = Mounted::new(&service.prepare("c", &parent).await.unwrap());
    fs::write(root.path("large"), vec![7; 30_000_000]).unwrap();
    let before = service.directories();
    let request = TakeRequest { key: "c".into(), leave_out: Vec::new() };
    let mut answers = service.layers().take(request).await.unwrap().into_inner();
    answers.message().await.unwrap().unwrap();
    drop(answers);
    tokio::task::block_in_place(|| service.until_directories(before.len()));
    assert_eq!(service.directories(), before);
}
