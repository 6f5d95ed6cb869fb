//! Files on their way between a container and its host, as a tar: read and written beneath a root that the other side may
//! change at the same moment. No link is followed out of it, whatever is swapped meanwhile (openat2), and memory is
//! bounded by the number of hard links and directories.

mod pack;
mod unpack;

pub use pack::pack;
pub use unpack::{Beneath, Owner, Rename, Rules, make_directories, unpack};

/// Docker's way to take a path apart: the directory, and the entry in it, which is "." where the path says its contents
/// are meant ("x/.", ".") and where it is the root.
#[must_use]
pub fn split(path: &str) -> (String, String) {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match (part, parts.last()) {
            ("" | ".", _) => {}
            ("..", Some(last)) if *last != ".." => drop(parts.pop()),
            ("..", None) if path.starts_with('/') => {}
            (part, _) => parts.push(part),
        }
    }
    let contents = path == "." || path.ends_with("/.") || parts.is_empty();
    let name = if contents { ".".into() } else { parts.pop().unwrap_or(".").to_owned() };
    let joined = parts.join("/");
    let directory = match (path.starts_with('/'), joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".into(),
        (false, false) => joined,
    };
    (directory, name)
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn paths_are_taken_apart_as_docker_does() {
        for (path, directory, name) in [
            ("/a/b", "/a", "b"),
            ("/a/b/", "/a", "b"),
            ("/a/b/.", "/a/b", "."),
            ("/a/../../b", "/", "b"),
            ("/", "/", "."),
            (".", ".", "."),
            ("a", ".", "a"),
            ("../a", "..", "a"),
        ] {
            assert_eq!(split(path), (directory.to_owned(), name.to_owned()), "{path}");
        }
    }
}
