//! Layers that mean harm: refused, or kept beneath their root; nothing outside is touched and nothing stays behind.

use berth_core::Kind;
use tar::EntryType;

use crate::{
    archive::{Archive, noise, zstd},
    both_drivers,
    mounted::Mounted,
    service::Service,
};

both_drivers!(climbing_is_refused, links_lead_to_the_root_of_the_layer, bombs_are_bounded, nonsense_is_refused);

async fn climbing_is_refused(driver: &'static str) {
    let service = Service::start(driver).await;
    let outside = service.home().join("outside");
    std::fs::create_dir(&outside).unwrap();
    let secret = outside.join("secret");
    std::fs::write(&secret, "untouched").unwrap();
    let out = outside.display().to_string();
    for (archive, entry) in [
        (Archive::new().file("../escape", "x"), "../escape"),
        (Archive::new().file("a/../../../escape", "x"), "a/../../../escape"),
        (Archive::new().symlink("out", &out).file("out/escape", "x"), "out/escape"),
        (Archive::new().symlink("a", "b").symlink("b", "a").file("a/x", "x"), "a/x"),
        (Archive::new().hard_link("l", "../../../../outside/secret"), "l"),
        (Archive::new().symlink("out", &out).directory("out/escape"), "out/escape"),
        (Archive::new().symlink("out", &out).symlink("out/escape", "x"), "out/escape"),
        (Archive::new().symlink("out", &out).device(EntryType::Fifo, "out/escape", 0, 0), "out/escape"),
        (Archive::new().symlink("out", &out).file("out/.wh.secret", ""), "out/.wh.secret"),
        (Archive::new().symlink("out", &out).file("out/.wh..wh..opq", ""), "out/.wh..wh..opq"),
        (Archive::new().file(".wh...", ""), ".wh..."),
        (Archive::new().file("d/.wh..", ""), "d/.wh.."),
        (Archive::new().device(EntryType::Char, "zero", 0, 0), "zero"),
        (Archive::new().file("f", "").file("f/below", ""), "f/below"),
    ] {
        let failure = service.apply(&archive.layer()).await.unwrap_err();
        assert_eq!(failure.kind, Kind::InvalidArgument, "{failure:?}");
        assert!(failure.message.contains(&format!("{entry:?}")), "{failure:?}");
    }
    // A link to a file that only the host has is looked for in the layers below, and there is none.
    let layer = Archive::new().hard_link("l", &secret.display().to_string()).layer();
    let failure = service.image(std::slice::from_ref(&layer)).await.unwrap_err();
    assert!(failure.message.contains("hard link"), "{failure:?}");
    assert_eq!(crate::mounted::names(&outside), ["secret"]);
    assert_eq!(std::fs::read(&secret).unwrap(), b"untouched");
    assert_eq!(std::os::unix::fs::MetadataExt::nlink(&std::fs::metadata(&secret).unwrap()), 1);
    // Only the layer that nothing can be composed of is left, until the service starts anew.
    service.assert_directories(1).await;
}

async fn links_lead_to_the_root_of_the_layer(driver: &'static str) {
    let service = Service::start(driver).await;
    let archive = Archive::new()
        .directory("tmp")
        .symlink("absolute", "/tmp")
        .symlink("up", "../../../../tmp")
        .file("absolute/one", "1")
        .file("up/two", "2")
        .file("/leading/slash", "3")
        .file("./././dots//and//slashes", "4")
        .symlink("proc", "/proc/self/root/tmp")
        .symlink("absolute/inside", "/etc/passwd");
    let top = service.image(&[archive.layer()]).await.unwrap();
    let mounted = Mounted::new(&service.view("view", &top).await.unwrap());
    assert_eq!(mounted.names("tmp"), ["inside", "one", "two"]);
    assert_eq!((mounted.read("leading/slash"), mounted.read("dots/and/slashes")), (b"3".to_vec(), b"4".to_vec()));
    // An attribute of a link is the link's, not its target's; what replaces a link replaces it, not its target.
    let owned = Archive::new()
        .entry(EntryType::Directory, "d", b"", |_| ())
        .symlink("l", "d")
        .entry(EntryType::Directory, "l", b"", |header| header.set_mode(0o700))
        .symlink("m", "/kept")
        .file("kept", "kept")
        .file("m", "new");
    let top = service.image(&[owned.layer()]).await.unwrap();
    let mounted = Mounted::new(&service.view("second", &top).await.unwrap());
    assert!(mounted.metadata("l").is_dir());
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&mounted.metadata("d")) & 0o7777, 0o755);
    assert_eq!((mounted.read("kept"), mounted.read("m")), (b"kept".to_vec(), b"new".to_vec()));
}

async fn bombs_are_bounded(driver: &'static str) {
    let service = Service::start(driver).await;
    // A name of a gigabyte, in a blob of some kilobytes.
    let mut header = tar::Header::new_gnu();
    header.set_path("././@LongLink").unwrap();
    header.set_entry_type(EntryType::GNULongName);
    header.set_size(1 << 30);
    header.set_cksum();
    let mut bomb = header.as_bytes().to_vec();
    bomb.resize(32 << 20, b'n');
    let failure = service.apply(&crate::archive::Layer::of(bomb).blob(zstd)).await.unwrap_err();
    assert!(failure.message.contains("describe one entry"), "{failure:?}");
    // A file that claims to be far larger than what comes.
    let archive = Archive::new().file("small", "x").entry(EntryType::Regular, "huge", b"y", |header| {
        header.as_old_mut().size.copy_from_slice(&[0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    });
    assert_eq!(service.apply(&archive.layer()).await.unwrap_err().kind, Kind::InvalidArgument);
    // Devices by the thousand are made, counted and removed like anything else, and none is opened.
    let mut devices = Archive::new();
    for n in 0..5000 {
        let kind = [EntryType::Char, EntryType::Block, EntryType::Fifo][n as usize % 3];
        devices = devices.device(kind, &format!("dev/{n}"), 1 + n % 400, n);
    }
    service.apply(&devices.layer()).await.unwrap();
    // Deeper than a thousand directories, one link at a time.
    let mut deep = Archive::new();
    let steps = vec!["d"; 400].join("/");
    for n in 0..5 {
        deep = deep.file(&format!("l{n}/{steps}/f"), "").symlink(&format!("l{}", n + 1), &format!("l{n}/{steps}"));
    }
    let top = service.image(&[deep.layer()]).await.unwrap();
    service.remove(&top).await.unwrap();
    service.assert_directories(1).await;
}

async fn nonsense_is_refused(driver: &'static str) {
    let service = Service::start(driver).await;
    for bytes in [b"{\"this\": \"is no layer\"}".repeat(100), noise(4096, 1), noise(100, 2)] {
        let failure = service.apply(&crate::archive::Layer::of(bytes)).await.unwrap_err();
        assert_eq!(failure.kind, Kind::InvalidArgument);
        assert!(failure.message.contains("tar"), "{failure:?}");
    }
    let odd = Archive::new().entry(EntryType::new(b'Z'), "odd", b"", |_| ());
    assert!(service.apply(&odd.layer()).await.unwrap_err().message.contains("'Z'"));
    service.assert_directories(0).await;
}
