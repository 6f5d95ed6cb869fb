//! Images for the tests, as OCI layouts that `tests/fixtures/images` builds from Debian packages, and as a registry's
//! storage that holds them under the names people use.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use nix::fcntl::{Flock, FlockArg};

use crate::{command::run, netns::Netns, registry::Registry};

/// Layout and the names that it has in the registry.
const PUSHED: &[(&str, &[&str])] = &[
    ("busybox", &["library/busybox:latest"]),
    ("debian", &["library/debian:latest", "library/centos:7"]),
    ("redis", &["library/redis:latest", "library/redis:4-alpine"]),
    ("nginx", &["library/nginx:latest", "library/nginx:1.18-alpine"]),
];

/// The directory of the built binaries that the tests run.
pub fn binaries() -> PathBuf {
    if let Some(directory) = std::env::var_os("BERTH_BIN") {
        return directory.into();
    }
    let test = std::env::current_exe().expect("a test knows where it is");
    test.ancestors().nth(2).expect("tests lie in target/PROFILE/deps").to_owned()
}

/// Path of a built binary.
///
/// # Panics
/// It is not built.
pub fn binary(name: &str) -> PathBuf {
    let path = binaries().join(name);
    assert!(path.exists(), "{} is missing; run `make test`, which builds it first", path.display());
    path
}

fn directory() -> PathBuf {
    match std::env::var_os("BERTH_FIXTURES") {
        Some(directory) => directory.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/fixtures"),
    }
}

/// Path of an image's OCI layout, built if it is not there.
///
/// # Panics
/// It cannot be built.
pub fn layout(name: &str) -> PathBuf {
    let directory = directory();
    fs::create_dir_all(&directory).expect("the fixtures' directory can be made");
    let path = directory.join(name);
    if !path.exists() {
        let _one_at_a_time = lock(&directory);
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/images");
        let mut build = Command::new(script);
        let status = build.arg(&directory).arg(name).status().expect("the fixture script can be started");
        assert!(status.success(), "the image {name} cannot be built");
    }
    path
}

/// An image as a tar that `berth load` reads, in OCI form.
///
/// # Panics
/// It cannot be written.
pub fn archive(name: &str) -> PathBuf {
    let layout = layout(name);
    let path = directory().join(format!("{name}.tar"));
    if !path.exists() {
        let _one_at_a_time = lock(&directory());
        if !path.exists() {
            let new = path.with_extension("new");
            let mut tar = Command::new("skopeo");
            tar.arg("copy").arg("-q").arg(format!("oci:{}:latest", layout.display()));
            run(tar.arg(format!("oci-archive:{}:{name}:latest", new.display())), b"").ok();
            fs::rename(&new, &path).expect("a file can be renamed");
        }
    }
    path
}

/// Storage of a registry that holds every image under the names people use; shared by all tests, so it is only read.
///
/// # Panics
/// It cannot be filled.
pub fn registry_storage() -> &'static Path {
    static STORAGE: OnceLock<PathBuf> = OnceLock::new();
    STORAGE.get_or_init(|| {
        let path = directory().join("registry");
        if path.exists() {
            return path;
        }
        for (name, _) in PUSHED {
            layout(name);
        }
        let _one_at_a_time = lock(&directory());
        if path.exists() {
            return path;
        }
        let new = directory().join(".registry.new");
        let _ = fs::remove_dir_all(&new);
        let netns = Netns::new();
        let registry = Registry::serve(&netns, &new, "127.0.0.1:5000");
        for (name, targets) in PUSHED {
            for target in *targets {
                registry.push(&directory().join(name), target);
            }
        }
        drop(registry);
        fs::rename(&new, &path).expect("a directory can be renamed");
        path
    })
}

fn lock(directory: &Path) -> Flock<fs::File> {
    let file = fs::File::create(directory.join(".lock")).expect("the lock file can be made");
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, e)| e).expect("the lock can be waited for")
}
