//! Blobs of every kind, and what is wrong with some.

use berth_core::Kind;

use crate::{
    archive::{Archive, Layer, gzip, noise, zstd},
    both_drivers,
    mounted::Mounted,
    service::Service,
};

both_drivers!(compressions, damage_is_told_and_leaves_nothing, only_files_are_opened);

/// Makes a blob of a tar.
type Compress = Box<dyn Fn(&[u8]) -> Vec<u8>>;

fn layer(seed: u64) -> Layer {
    Archive::new().file("noise", noise(700_000, seed)).file("last", "end").layer()
}

async fn compressions(driver: &'static str) {
    let service = Service::start(driver).await;
    let members = |tar: &[u8]| tar.chunks(100_000).flat_map(gzip).collect::<Vec<u8>>();
    let padded = |tar: &[u8]| [gzip(tar), vec![0; 70_000]].concat();
    let frames = |tar: &[u8]| tar.chunks(100_000).flat_map(zstd).collect::<Vec<u8>>();
    let skipping = |tar: &[u8]| [vec![0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3], zstd(tar)].concat();
    let variants: [(&str, Compress); 7] = [
        ("tar", Box::new(<[u8]>::to_vec)),
        ("tar+gzip", Box::new(gzip)),
        ("tar+gzip", Box::new(members)),
        ("tar+gzip", Box::new(padded)),
        ("tar+zstd", Box::new(zstd)),
        ("tar+zstd", Box::new(frames)),
        // The first bytes decide where the media type lies.
        ("tar+gzip", Box::new(skipping)),
    ];
    for (seed, (media_type, change)) in variants.iter().enumerate() {
        let layer = layer(seed as u64).blob(change);
        let media_type = format!("application/vnd.oci.image.layer.v1.{media_type}");
        let done = service.apply_as(&layer, &media_type).await.unwrap_or_else(|f| panic!("{seed}: {f:?}"));
        assert!(!done.existed && done.size > 700_000);
        let top = service.compose(&[layer]).await.unwrap().remove(0);
        let mounted = Mounted::new(&service.view(&format!("view-{seed}"), &top).await.unwrap());
        assert_eq!(mounted.read("noise"), noise(700_000, seed as u64));
    }
    let gzip_as_zstd = service.apply_as(&layer(100).blob(gzip), "application/vnd.oci.image.layer.v1.tar+zstd").await;
    assert!(gzip_as_zstd.is_ok());
    // An empty tar, one of nothing at all, and one without its end are layers too.
    for bytes in [vec![0; 1024], vec![], Archive::new().file("f", "").bytes()[..512].to_vec()] {
        service.apply(&Layer::of(bytes)).await.unwrap();
    }
}

async fn damage_is_told_and_leaves_nothing(driver: &'static str) {
    let service = Service::start(driver).await;
    let flipped = |tar: &[u8]| {
        let mut blob = gzip(tar);
        let middle = blob.len() / 2;
        blob[middle] ^= 0x40;
        blob
    };
    for (what, layer) in [
        ("truncated gzip", layer(1).blob(|tar| gzip(tar)[..500_000].to_vec())),
        ("truncated zstd", layer(1).blob(|tar| zstd(tar)[..500_000].to_vec())),
        ("truncated tar", Layer::of(layer(1).blob[..500_000].to_vec())),
        ("no trailer", layer(1).blob(|tar| gzip(tar)[..gzip(tar).len() - 4].to_vec())),
        ("garbage behind", layer(1).blob(|tar| [gzip(tar), b"garbage".to_vec()].concat())),
        ("garbage behind zstd", layer(1).blob(|tar| [zstd(tar), b"garbage".to_vec()].concat())),
        ("a flipped bit", layer(1).blob(flipped)),
    ] {
        let failure = service.apply(&layer).await.expect_err(what);
        assert_eq!(failure.kind, Kind::InvalidArgument, "{what}: {failure:?}");
    }
    let wrong = Layer { diff_id: layer(2).diff_id, ..layer(3) };
    let failure = service.apply(&wrong).await.unwrap_err();
    assert_eq!(failure.kind, Kind::DataLoss);
    assert!(failure.message.contains(&layer(2).diff_id) && failure.message.contains(&layer(3).diff_id), "{failure:?}");
    service.assert_directories(0).await;
    // None of that keeps the right blob out.
    service.image(&[layer(1)]).await.unwrap();
}

async fn only_files_are_opened(driver: &'static str) {
    let service = Service::start(driver).await;
    let fifo = service.home().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let diff_id = layer(1).diff_id;
    for (path, kind) in [
        (fifo, Kind::InvalidArgument),
        ("relative".into(), Kind::InvalidArgument),
        (service.home().into(), Kind::InvalidArgument),
        (service.home().join("nothing"), Kind::Internal),
    ] {
        let begun = service.begin(&path, &diff_id, "").await;
        assert_eq!(begun.err().map(|failure| failure.kind), Some(kind), "{}", path.display());
    }
    let begun = service.begin(service.home(), "sha256:../../x", "").await;
    assert!(begun.err().is_some_and(|failure| failure.message.contains("is not a digest")));
    service.assert_directories(0).await;
}
