//! Archives with random damage: never the end of the service, never anything outside the layer, never anything left.

use proptest::{
    collection::vec,
    prelude::{Strategy as _, any},
    strategy::ValueTree as _,
    test_runner::TestRunner,
};
use tar::EntryType;

use crate::{
    archive::{Archive, Layer},
    both_drivers,
    service::Service,
};

both_drivers!(mutations);

/// One of everything.
fn seed() -> Vec<u8> {
    Archive::new()
        .directory("d")
        .file("d/file", vec![b'x'; 700])
        .symlink("d/out", "../../../../outside")
        .symlink("abs", "/outside")
        .hard_link("d/link", "d/file")
        .hard_link("below", "etc/passwd")
        .file("d/.wh.gone", "")
        .file("d/.wh..wh..opq", "")
        .file(&format!("d/{}", "long/".repeat(40)), "text")
        .pax(&[("path", b"d/pax"), ("SCHILY.xattr.user.a", b"b"), ("size", b"5"), ("mtime", b"1.5")])
        .file("d/replaced", "12345")
        .pax(&[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"4096")])
        .file("d/sparse", [b"1\n0\n5\n".as_slice(), &[0; 506], b"12345"].concat())
        .device(EntryType::Fifo, "d/fifo", 0, 0)
        .device(EntryType::Char, "d/null", 1, 3)
        .file("abs/escape", "x")
        .bytes()
}

/// Makes the sums of the headers right again, so that damage gets past them.
fn resum(bytes: &mut [u8]) {
    for block in bytes.chunks_exact_mut(512) {
        if block[257..262] == *b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
            block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        }
    }
}

async fn mutations(driver: &'static str) {
    let service = Service::start(driver).await;
    let outside = service.home().join("outside");
    std::fs::create_dir(&outside).unwrap();
    let change = (any::<proptest::sample::Index>(), any::<u8>(), 0..6_u8);
    let strategy = (vec(change, 1..12), any::<bool>());
    let mut runner = TestRunner::deterministic();
    for _ in 0..150 {
        let (changes, right_sums) = strategy.new_tree(&mut runner).unwrap().current();
        let mut bytes = seed();
        for (index, value, what) in changes {
            let at = index.index(bytes.len());
            // Mostly where headers say something, seldom in the middle of data.
            let field = at - at % 512 + [0, 100, 124, 156, 157, 345][usize::from(what)] + usize::from(value % 12);
            match value % 16 {
                0 => bytes.truncate(at.max(512)),
                1 => drop(bytes.drain(at - at % 512..(at - at % 512 + 512).min(bytes.len()))),
                _ if field < bytes.len() => bytes[field] = value,
                _ => {}
            }
            if bytes.len() < 512 {
                bytes.resize(512, 0);
            }
        }
        if right_sums {
            resum(&mut bytes);
        }
        let layer = Layer::of(bytes);
        if service.apply(&layer).await.is_ok() {
            // What is whole may still ask for what is not below.
            if let Ok(chain) = service.compose(std::slice::from_ref(&layer)).await {
                service.remove(&chain[0]).await.unwrap();
            }
        }
        assert!(crate::mounted::names(&outside).is_empty());
    }
    let mut around = crate::mounted::names(service.home());
    around.retain(|name| !name.starts_with(".tmp"));
    assert_eq!(around, ["outside", "root", "state"]);
}
