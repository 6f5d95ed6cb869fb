use std::io::Read as _;

use super::*;

/// GNU tar's own archives are read as it reads them.
fn archive(format: &[&str], names: &[&str], make: impl Fn(&std::path::Path)) -> Vec<u8> {
    let home = tempfile::tempdir().unwrap();
    make(home.path());
    let output = std::process::Command::new("tar")
        .args(["--create", "--file=-"])
        .args(format)
        .arg("--directory")
        .arg(home.path())
        .args(names)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn entries(bytes: &[u8]) -> Vec<(Entry, Vec<u8>)> {
    let mut reader = Reader::new(bytes);
    let mut entries = Vec::new();
    while let Some(entry) = reader.next().unwrap() {
        let mut data = Vec::new();
        reader
            .data(u64::MAX, |part| {
                data.extend_from_slice(part);
                Ok(())
            })
            .unwrap();
        entries.push((entry, data));
    }
    entries
}

#[test]
fn what_follows_the_last_file_may_be_missing() {
    let whole = archive(&["--format=ustar"], &["file"], |home| std::fs::write(home.join("file"), b"data").unwrap());
    let (header, data) = (BLOCK, b"data".len());
    for end in [header + data, header + BLOCK] {
        let entries = entries(&whole[..end]);
        assert_eq!((entries.len(), entries[0].1.as_slice()), (1, &b"data"[..]), "cut at {end}");
    }
    let mut cut = Reader::new(&whole[..header + data - 1]);
    assert!(cut.next().unwrap().is_some());
    assert!(cut.next().unwrap_err().to_string().contains("in the middle of a file"));
}

#[test]
fn long_names_of_every_format() {
    let long = "n".repeat(200);
    let path = format!("{long}/{long}");
    for format in ["gnu", "pax", "oldgnu"] {
        let bytes = archive(&[&format!("--format={format}")], &[&path, "link"], |home| {
            std::fs::create_dir(home.join(&long)).unwrap();
            std::fs::write(home.join(&path), "text").unwrap();
            std::os::unix::fs::symlink(&path, home.join("link")).unwrap();
        });
        let entries = entries(&bytes);
        assert_eq!((entries[0].0.name.as_slice(), entries[0].1.as_slice()), (path.as_bytes(), b"text".as_slice()));
        assert_eq!((entries[1].0.link.as_slice(), entries[1].0.kind), (path.as_bytes(), Kind::SymbolicLink));
    }
}

#[test]
fn holes_of_every_format() {
    for format in [
        &["--format=gnu"][..],
        &["--format=pax", "--sparse-version=0.0"],
        &["--format=pax", "--sparse-version=0.1"],
        &["--format=pax", "--sparse-version=1.0"],
    ] {
        let format: Vec<&str> = format.iter().copied().chain(["--sparse"]).collect();
        let bytes = archive(&format, &["holes"], |home| {
            use std::os::unix::fs::FileExt as _;
            let file = std::fs::File::create(home.join("holes")).unwrap();
            // More segments than the header has room for.
            for n in 0..30 {
                file.write_all_at(&[n + 1; 4096], u64::from(n) * 65536).unwrap();
            }
            file.set_len(8 << 20).unwrap();
        });
        assert!(bytes.len() < 1 << 20, "GNU tar found the holes");
        let entries = entries(&bytes);
        let (entry, data) = &entries[0];
        assert_eq!((entry.name.as_slice(), entry.size), (b"holes".as_slice(), 8 << 20), "{format:?}");
        let segments = entry.segments.as_ref().unwrap();
        let filled: Vec<_> = segments.iter().filter(|segment| segment.size > 0).collect();
        assert_eq!((filled[7].offset, filled[7].size), (7 * 65536, 4096), "{format:?}");
        assert_eq!(data[7 * 4096], 8, "{format:?}");
    }
}

#[test]
fn descriptions_are_bounded() {
    let mut header = [0; BLOCK];
    header[..4].copy_from_slice(b"name");
    header[124..135].copy_from_slice(b"77777777777");
    header[156] = b'L';
    let sum: u32 = header.iter().map(|b| u32::from(*b)).sum::<u32>() + 8 * 32;
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    let endless = header.as_slice().chain(io::repeat(b'a'));
    let error = Reader::new(io::BufReader::new(endless)).next().unwrap_err();
    assert!(error.to_string().contains("describe one entry"), "{error}");
}

#[test]
fn what_is_cut_off_is_an_error() {
    let bytes = archive(&[], &["file"], |home| std::fs::write(home.join("file"), [1; 1000]).unwrap());
    for end in [100, 600, 1600] {
        let mut reader = Reader::new(&bytes[..end]);
        let result = reader.next().and_then(|_| reader.next());
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
