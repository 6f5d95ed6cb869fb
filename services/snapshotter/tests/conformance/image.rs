//! What a layer says is what a container sees: files and their attributes, white-outs, links.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

use tar::EntryType;

use crate::{
    archive::{Archive, Layer, gzip},
    both_drivers,
    mounted::Mounted,
    service::Service,
};

both_drivers!(
    attributes,
    devices,
    whiteouts,
    opaque_before_and_after_its_layer,
    whiteouts_of_nothing_are_not_seen,
    hard_links_within_a_layer,
    hard_links_to_a_layer_below,
    undescribed_directories_stay_as_they_are_below,
    later_layers_replace,
    long_paths,
    holes,
    many_records,
);

/// A view of an image of these layers, whose blobs are compressed as most are.
async fn image(service: &Service, archives: Vec<Archive>) -> Mounted {
    let layers: Vec<Layer> = archives.into_iter().map(|archive| archive.layer().blob(gzip)).collect();
    let top = service.image(&layers).await.unwrap();
    let mounts = service.prepare("container", &top).await.unwrap();
    Mounted::new(&mounts)
}

async fn attributes(driver: &'static str) {
    let service = Service::start(driver).await;
    let capability: &[u8] = &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let archive = Archive::new()
        .entry(EntryType::Directory, "./", b"", |header| header.set_mode(0o711))
        .entry(EntryType::Directory, "sticky", b"", |header| header.set_mode(0o1777))
        .entry(EntryType::Directory, "group", b"", |header| (header.set_mode(0o2755), header.set_gid(60)).0)
        .entry(EntryType::Regular, "group/su", b"x", |header| {
            (header.set_mode(0o6755), header.set_uid(1000), header.set_gid(2_000_000)).0
        })
        .file("group/plain", "plain")
        .pax(&[
            ("SCHILY.xattr.user.colour", b"blue"),
            ("SCHILY.xattr.security.capability", capability),
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
            ("mtime", b"1234567890.987654321"),
        ])
        .file("with-attributes", "abc")
        .pax(&[("uid", b"4000000000"), ("mtime", b"-1.5")])
        .file("far", "")
        .entry(EntryType::Symlink, "link", b"", |header| {
            header.set_link_name("nowhere").unwrap();
            (header.set_uid(7), header.set_gid(8), header.set_mtime(77)).0
        });
    let mounted = image(&service, vec![archive]).await;
    let owner = |name: &str| (mounted.metadata(name).uid(), mounted.metadata(name).gid());
    let mode = |name: &str| mounted.metadata(name).mode() & 0o7777;
    assert_eq!(mounted.metadata("").mode() & 0o7777, 0o711);
    assert_eq!((mode("sticky"), mode("group"), owner("group")), (0o1777, 0o2755, (0, 60)));
    assert_eq!((mode("group/su"), owner("group/su")), (0o6755, (1000, 2_000_000)));
    assert_eq!((mode("group/plain"), owner("group/plain")), (0o644, (0, 0)));
    assert_eq!(mounted.metadata("group").mtime(), 1_000_000_000, "of a directory that was filled afterwards");
    let with = mounted.metadata("with-attributes");
    assert_eq!((with.mtime(), with.mtime_nsec()), (1_234_567_890, 987_654_321));
    assert_eq!(mounted.xattr("with-attributes", "user.colour").unwrap(), b"blue");
    assert_eq!(mounted.xattr("with-attributes", "security.capability").unwrap(), capability);
    assert_eq!(mounted.xattr("with-attributes", "trusted.overlay.opaque"), None);
    assert_eq!(owner("far"), (4_000_000_000, 0));
    assert_eq!((mounted.metadata("far").mtime(), mounted.metadata("far").mtime_nsec()), (-2, 500_000_000));
    assert_eq!((owner("link"), mounted.metadata("link").mtime()), ((7, 8), 77));
}

async fn devices(driver: &'static str) {
    let service = Service::start(driver).await;
    let archive = Archive::new()
        .directory("dev")
        .device(EntryType::Char, "dev/null", 1, 3)
        .device(EntryType::Block, "dev/disk", 259, 70_000)
        .device(EntryType::Fifo, "dev/fifo", 0, 0);
    let mounted = image(&service, vec![archive]).await;
    let (null, disk) = (mounted.metadata("dev/null"), mounted.metadata("dev/disk"));
    assert!(null.file_type().is_char_device() && null.rdev() == libc::makedev(1, 3));
    assert!(disk.file_type().is_block_device() && disk.rdev() == libc::makedev(259, 70_000));
    assert!(mounted.metadata("dev/fifo").file_type().is_fifo());
    assert_eq!(null.mode() & 0o7777, 0o644);
}

async fn whiteouts(driver: &'static str) {
    let service = Service::start(driver).await;
    let lower = Archive::new().file("a/gone", "1").file("a/stays", "2").file("b/all/of/it", "3").file("c", "4");
    let upper = Archive::new().directory("a").file("a/.wh.gone", "").directory("b").file("b/.wh.all", "");
    // A directory in the place of a white-out shows nothing of what was below; nor in the other order.
    let upper = upper.file(".wh.c", "").directory("c").file("c/new", "5").file("a/.wh..wh.plnk", "aufs");
    let again = Archive::new().file("a/gone", "back");
    let mounted = image(&service, vec![lower, upper, again]).await;
    assert_eq!(mounted.names("a"), ["gone", "stays"]);
    assert_eq!(mounted.read("a/gone"), b"back");
    assert_eq!(mounted.names("b"), [] as [&str; 0]);
    assert_eq!(mounted.names("c"), ["new"]);
}

async fn opaque_before_and_after_its_layer(driver: &'static str) {
    let service = Service::start(driver).await;
    let lower =
        Archive::new().file("first/old", "").file("last/old", "").file("named/old/deep", "").file("bare/old", "");
    let upper = Archive::new()
        .directory("first")
        .file("first/.wh..wh..opq", "")
        .file("first/new", "")
        .directory("last")
        .file("last/new", "")
        .file("last/.wh..wh..opq", "")
        // The directory has an entry in its own layer before the white-out of it comes.
        .file("named/old/new", "")
        .file("named/.wh.old", "")
        .file("bare/.wh..wh..opq", "");
    let mounted = image(&service, vec![lower, upper]).await;
    assert_eq!(mounted.names("first"), ["new"]);
    assert_eq!(mounted.names("last"), ["new"]);
    assert_eq!(mounted.names("named/old"), ["new"]);
    assert_eq!(mounted.names("bare"), [] as [&str; 0]);
}

async fn whiteouts_of_nothing_are_not_seen(driver: &'static str) {
    let service = Service::start(driver).await;
    let lower = Archive::new().file("x", "").file(".wh.at-the-root", "").file("low/.wh.er", "");
    let upper = Archive::new().file("new/.wh.ghost", "").file("new/real", "").file("low/f", "");
    let opaque = Archive::new().file("low/.wh..wh..opq", "").file("low/.wh.more", "").file("low/g", "");
    let layers: Vec<_> = [lower, upper, opaque].into_iter().map(Archive::layer).collect();
    let chain = {
        for layer in &layers {
            service.apply(layer).await.unwrap();
        }
        service.compose(&layers).await.unwrap()
    };
    let lowest = Mounted::new(&service.view("lowest", &chain[0]).await.unwrap());
    assert_eq!((lowest.names(""), lowest.names("low")), (vec!["low".into(), "x".into()], vec![]));
    let top = Mounted::new(&service.view("top", &chain[2]).await.unwrap());
    assert_eq!(top.names("new"), ["real"]);
    assert_eq!(top.names("low"), ["g"]);
    let container = Mounted::new(&service.prepare("container", &chain[1]).await.unwrap());
    std::fs::remove_dir_all(container.path("new")).unwrap();
    assert!(!container.exists("new"));
}

async fn hard_links_within_a_layer(driver: &'static str) {
    let service = Service::start(driver).await;
    let archive = Archive::new().file("one", "text").hard_link("two", "/one").hard_link("d/three", "./two");
    let archive = archive.symlink("s", "one").hard_link("s2", "s").symlink("dir", "/d").hard_link("four", "dir/three");
    let mounted = image(&service, vec![archive]).await;
    let inode = |name: &str| mounted.metadata(name).ino();
    assert_eq!(mounted.metadata("one").nlink(), 4);
    assert!(["two", "d/three", "four"].iter().all(|name| inode(name) == inode("one")));
    assert!(mounted.metadata("s2").is_symlink());
    assert_eq!(mounted.metadata("s2").nlink(), 2);
}

async fn hard_links_to_a_layer_below(driver: &'static str) {
    let service = Service::start(driver).await;
    let lower = Archive::new().entry(EntryType::Directory, "d", b"", |header| header.set_mode(0o750)).entry(
        EntryType::Regular,
        "d/tool",
        b"tool",
        |header| (header.set_mode(0o4755), header.set_uid(12)).0,
    );
    let upper = Archive::new().hard_link("d/alias", "d/tool").hard_link("alias", "d/alias").layer();
    let lower = lower.layer();
    let top = service.image(&[lower.clone(), upper.clone()]).await.unwrap();
    for mounts in [service.prepare("container", &top).await.unwrap(), service.view("view", &top).await.unwrap()] {
        let mounted = Mounted::new(&mounts);
        for name in ["d/tool", "d/alias", "alias"] {
            let metadata = mounted.metadata(name);
            assert_eq!((mounted.read(name), metadata.nlink()), (b"tool".to_vec(), 3), "{name}");
            assert_eq!((metadata.mode() & 0o7777, metadata.uid()), (0o4755, 12), "{name}");
        }
        assert_eq!(mounted.metadata("d").mode() & 0o7777, 0o750);
    }
    // On top of a layer that has no such file it is refused, and nothing is left of the try.
    let other = Archive::new().file("other", "").layer();
    service.apply(&other).await.unwrap();
    let before = service.directories().len();
    let failure = service.compose(&[other, upper]).await.unwrap_err();
    assert!(failure.message.contains("\"d/alias\"") && failure.message.contains("\"d/tool\""), "{}", failure.message);
    service.cleanup().await;
    assert_eq!(service.directories().len(), before);
}

async fn undescribed_directories_stay_as_they_are_below(driver: &'static str) {
    let service = Service::start(driver).await;
    let lower = Archive::new()
        .entry(EntryType::Directory, "./", b"", |header| header.set_mode(0o700))
        .entry(EntryType::Directory, "tmp", b"", |header| header.set_mode(0o1777))
        .pax(&[("SCHILY.xattr.user.of", b"below")])
        .entry(EntryType::Directory, "home", b"", |header| (header.set_mode(0o750), header.set_uid(5)).0)
        .entry(EntryType::Directory, "described", b"", |header| header.set_mode(0o700));
    let upper = Archive::new().file("tmp/f", "").file("home/new/f", "").directory("described").file("tmp/.wh.x", "");
    let third = Archive::new().file("tmp/g", "").file("home/g", "");
    let mounted = image(&service, vec![lower, upper, third]).await;
    let mode = |name: &str| mounted.metadata(name).mode() & 0o7777;
    assert_eq!((mode(""), mode("tmp"), mode("home"), mode("described")), (0o700, 0o1777, 0o750, 0o755));
    assert_eq!((mounted.metadata("home").uid(), mode("home/new")), (5, 0o755));
    assert_eq!(mounted.xattr("home", "user.of").unwrap(), b"below");
    assert_eq!(mounted.names("tmp"), ["f", "g"]);
}

async fn later_layers_replace(driver: &'static str) {
    let service = Service::start(driver).await;
    let lower = Archive::new().file("file", "old").file("dir/inside", "").symlink("link", "dir").file("to-dir", "");
    let upper = Archive::new().file("file", "new").file("dir", "now a file").directory("link").file("to-dir/f", "");
    let mounted = image(&service, vec![lower, upper]).await;
    assert_eq!((mounted.read("file"), mounted.read("dir")), (b"new".to_vec(), b"now a file".to_vec()));
    assert!(mounted.metadata("link").is_dir() && mounted.names("link").is_empty());
    assert_eq!(mounted.names("to-dir"), ["f"]);
}

async fn long_paths(driver: &'static str) {
    let service = Service::start(driver).await;
    let name = |n: u8| char::from(b'a' + n).to_string().repeat(255);
    let deep: Vec<String> = (0..20).map(name).collect();
    let deep = deep.join("/");
    assert!(deep.len() > 5000);
    let archive = Archive::new()
        .file(&deep, "deep")
        .pax(&[("path", format!("pax/{deep}").as_bytes())])
        .file("short", "also deep")
        .symlink("link", &name(7));
    let mounted = image(&service, vec![archive, Archive::new().file("pax/second", "")]).await;
    for (deep, text) in [(deep.clone(), b"deep".as_slice()), (format!("pax/{deep}"), b"also deep")] {
        // Step by step, as no path this long can be given to the kernel.
        let mut directory: std::os::fd::OwnedFd = std::fs::File::open(mounted.path("")).unwrap().into();
        let (parents, last) = deep.rsplit_once('/').unwrap();
        let flags = rustix::fs::OFlags::RDONLY;
        for component in parents.split('/') {
            directory = rustix::fs::openat(&directory, component, flags, rustix::fs::Mode::empty()).unwrap();
        }
        let file = rustix::fs::openat(&directory, last, flags, rustix::fs::Mode::empty()).unwrap();
        let mut read = Vec::new();
        std::io::Read::read_to_end(&mut std::fs::File::from(file), &mut read).unwrap();
        assert_eq!(read, text);
    }
    drop(mounted);
    service.remove("container").await.unwrap();
    service.cleanup().await;
}

async fn holes(driver: &'static str) {
    let service = Service::start(driver).await;
    // A terabyte in an old GNU header, of which a block is stored.
    let archive = Archive::new().entry(EntryType::GNUSparse, "huge", &[7; 512], |header| {
        let gnu = header.as_gnu_mut().unwrap();
        gnu.sparse[0].offset[..11].copy_from_slice(format!("{:011o}", 1_u64 << 32).as_bytes());
        gnu.sparse[0].numbytes[..11].copy_from_slice(format!("{:011o}", 512).as_bytes());
        gnu.sparse[1].offset[..12].copy_from_slice(&[0x80, 0, 0, 0, 0, 0, 0, 0x80, 0, 0, 0, 0]);
        gnu.sparse[1].numbytes[..11].copy_from_slice(format!("{:011o}", 0).as_bytes());
        gnu.realsize.copy_from_slice(&[0x80, 0, 0, 0, 0, 0, 0, 0x80, 0, 0, 0, 0]);
    });
    let mounted = image(&service, vec![archive, Archive::new().file("second", "")]).await;
    let huge = mounted.metadata("huge");
    assert_eq!(huge.len(), 1 << 39);
    assert!(huge.blocks() < 1000);
    let mut block = [0; 513];
    let file = std::fs::File::open(mounted.path("huge")).unwrap();
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut block, (1 << 32) - 1).unwrap();
    assert_eq!((block[0], &block[1..]), (0, [7; 512].as_slice()));
}

async fn many_records(driver: &'static str) {
    let service = Service::start(driver).await;
    let mut archive = Archive::new();
    for n in 0..2000 {
        archive = archive.file(&format!("d{}/f{n}", n % 50), format!("content {n}"));
    }
    let mounted = image(&service, vec![archive]).await;
    for n in 0..2000 {
        assert_eq!(mounted.read(&format!("d{}/f{n}", n % 50)), format!("content {n}").into_bytes());
    }
}
