use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

use tar::EntryType;

use super::*;

struct Tape(tar::Builder<Vec<u8>>);

impl Tape {
    fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    /// Writes the name as it is, whatever a well-meaning library thinks of it.
    fn add(mut self, kind: EntryType, name: &str, link: &str, data: &[u8]) -> Self {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(if kind.is_dir() { 0o755 } else { 0o4711 });
        header.set_uid(1000);
        header.set_gid(100);
        header.set_mtime(1_000_000_000);
        header.set_size(data.len() as u64);
        if kind == EntryType::Char {
            header.set_device_major(0).unwrap();
            header.set_device_minor(0).unwrap();
        }
        header.set_cksum();
        self.0.append(&header, data).unwrap();
        self
    }

    fn file(self, name: &str, data: &str) -> Self {
        self.add(EntryType::Regular, name, "", data.as_bytes())
    }

    fn unpack(self) -> Result<tempfile::TempDir, Error> {
        self.unpack_open().map(|(target, _)| target)
    }

    fn unpack_open(self) -> Result<(tempfile::TempDir, Open), Error> {
        let target = tempfile::tempdir().unwrap();
        let bytes = self.0.into_inner().unwrap();
        // A thread of its own, because it takes a umask of its own.
        let unpacked =
            std::thread::scope(|scope| scope.spawn(|| unpack(bytes.as_slice(), target.path())).join().unwrap());
        unpacked.map(|(_, open)| (target, open))
    }
}

#[test]
fn files_keep_what_the_tar_says() {
    let tape = Tape::new().add(EntryType::Directory, "d/", "", b"").file("d/f", "text");
    let target =
        tape.add(EntryType::Link, "hard", "d/f", b"").add(EntryType::Symlink, "soft", "/d/f", b"").unpack().unwrap();
    let metadata = target.path().join("d/f").metadata().unwrap();
    assert_eq!((metadata.uid(), metadata.gid(), metadata.mode() & 0o7777), (1000, 100, 0o4711));
    assert_eq!((metadata.mtime(), metadata.nlink()), (1_000_000_000, 2));
    assert_eq!(target.path().join("d").metadata().unwrap().mtime(), 1_000_000_000);
    assert_eq!(std::fs::read_link(target.path().join("soft")).unwrap(), Path::new("/d/f"));
}

#[test]
fn white_outs_are_real_and_spare_their_own_layer() {
    let tape = Tape::new().file("a/.wh.gone", "").file("b/kept", "x").file("b/.wh.kept", "").file("a/.wh..wh..opq", "");
    let tape = tape.file(".wh.dir", "").add(EntryType::Directory, "dir", "", b"");
    let target = tape.unpack().unwrap();
    let gone = target.path().join("a/gone").symlink_metadata().unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    assert_eq!(std::fs::read(target.path().join("b/kept")).unwrap(), b"x");
    let opaque = |name: &str| {
        let mut value = [0; 1];
        rustix::fs::lgetxattr(target.path().join(name), "trusted.overlay.opaque", &mut value).map(|_| value)
            == Ok(*b"y")
    };
    assert!(opaque("a") && opaque("dir") && !opaque("b"));
}

#[test]
fn hostile_entries_are_refused_by_name() {
    for (tape, name) in [
        (Tape::new().file("../escape", "x"), "../escape"),
        (Tape::new().file("a/../../escape", "x"), "a/../../escape"),
        (Tape::new().add(EntryType::Link, "l", "l", b""), "l"),
        (Tape::new().add(EntryType::Link, "l", "../../etc/shadow", b""), "l"),
        (Tape::new().add(EntryType::Char, "zero", "", b""), "zero"),
        (Tape::new().file(".wh...", ""), ".wh..."),
        (Tape::new().add(EntryType::Symlink, "s", "/tmp", b"").file("s/escape", "x"), "s/escape"),
    ] {
        match tape.unpack() {
            Err(Error::Entry { entry, .. }) => assert_eq!(entry, name),
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn links_of_the_layer_stay_in_the_layer() {
    let tape = Tape::new().add(EntryType::Directory, "tmp", "", b"").add(EntryType::Symlink, "s", "/tmp", b"");
    let target = tape.file("s/file", "x").file("/absolute", "y").unpack().unwrap();
    assert_eq!(std::fs::read(target.path().join("tmp/file")).unwrap(), b"x");
    assert_eq!(std::fs::read(target.path().join("absolute")).unwrap(), b"y");
}

#[test]
fn later_entries_replace_earlier_ones() {
    let tape = Tape::new().file("d/one", "1").file("d", "now a file").file("d2", "file").file("d2/below", "x");
    assert!(matches!(tape.unpack(), Err(Error::Entry { .. })), "a file is no directory");
    let target = Tape::new().file("d/one", "1").file("d", "now a file").unpack().unwrap();
    assert_eq!(std::fs::read(target.path().join("d")).unwrap(), b"now a file");
}

#[test]
fn what_only_the_layers_below_can_answer_is_left_open() {
    let tape = Tape::new().file("tmp/f", "").file("opt/.wh.x", "").add(EntryType::Link, "l", "/etc/shadow", b"");
    let (target, open) = tape.add(EntryType::Directory, "opt", "", b"").unpack_open().unwrap();
    assert_eq!(open.undescribed, [b"".to_vec(), b"tmp".to_vec()]);
    assert_eq!(open.hiding, [b"opt".to_vec()]);
    assert_eq!(open.links, [(b"l".to_vec(), b"etc/shadow".to_vec())]);
    assert!(!target.path().join("l").exists());
}

#[test]
fn what_directories_pass_on_is_not_passed_on() {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(EntryType::Directory);
    header.set_mode(0o2777);
    header.set_gid(50);
    header.set_uid(0);
    header.set_path("d").unwrap();
    header.set_size(0);
    header.set_mtime(1);
    header.set_cksum();
    let mut tape = Tape::new();
    tape.0.append(&header, std::io::empty()).unwrap();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o666);
    header.set_gid(0);
    header.set_path("d/f").unwrap();
    header.set_cksum();
    tape.0.append(&header, std::io::empty()).unwrap();
    let target = tape.unpack().unwrap();
    let metadata = |name: &str| target.path().join(name).metadata().unwrap();
    assert_eq!((metadata("d").mode() & 0o7777, metadata("d").gid()), (0o2777, 50));
    assert_eq!((metadata("d/f").mode() & 0o7777, metadata("d/f").gid()), (0o666, 0));
}
