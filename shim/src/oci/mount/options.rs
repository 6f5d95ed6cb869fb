//! Mount options of the OCI configuration: flags of the mount, its propagation, and what is the file system's own.

use super::api::Attributes;

/// Options, sorted by what they are for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// A bind mount; with everything beneath it where `Some(true)`.
    pub(crate) bind: Option<bool>,
    /// Of the mount itself.
    pub(crate) own: Attributes,
    /// Of the mount and all beneath it (`rro` and its like).
    pub(crate) all: Attributes,
    /// `MS_PRIVATE` and its like, and whether of all beneath it as well; in the order given.
    pub(crate) propagation: Vec<(u64, bool)>,
    /// For the file system: flags, or keys with values.
    pub(crate) data: Vec<(String, Option<String>)>,
    /// The directory's content is copied into the new file system.
    pub(crate) copy_up: bool,
    /// The owners are mapped; with all beneath where `Some(true)`.
    pub(crate) idmap: Option<bool>,
}

const ATIME: u64 = libc::MOUNT_ATTR__ATIME;

/// Which attributes a word sets and clears.
fn attribute(word: &str) -> Option<(u64, u64)> {
    Some(match word {
        "ro" => (libc::MOUNT_ATTR_RDONLY, 0),
        "rw" => (0, libc::MOUNT_ATTR_RDONLY),
        "nosuid" => (libc::MOUNT_ATTR_NOSUID, 0),
        "suid" => (0, libc::MOUNT_ATTR_NOSUID),
        "nodev" => (libc::MOUNT_ATTR_NODEV, 0),
        "dev" => (0, libc::MOUNT_ATTR_NODEV),
        "noexec" => (libc::MOUNT_ATTR_NOEXEC, 0),
        "exec" => (0, libc::MOUNT_ATTR_NOEXEC),
        "nodiratime" => (libc::MOUNT_ATTR_NODIRATIME, 0),
        "diratime" => (0, libc::MOUNT_ATTR_NODIRATIME),
        "nosymfollow" => (libc::MOUNT_ATTR_NOSYMFOLLOW, 0),
        "symfollow" => (0, libc::MOUNT_ATTR_NOSYMFOLLOW),
        // These three are one field of the kernel's, so the others must be cleared.
        "relatime" | "atime" | "norelatime" | "nostrictatime" => (libc::MOUNT_ATTR_RELATIME, ATIME),
        "noatime" => (libc::MOUNT_ATTR_NOATIME, ATIME),
        "strictatime" => (libc::MOUNT_ATTR_STRICTATIME, ATIME),
        _ => return None,
    })
}

/// Flags of the superblock, which the file system is told as words.
const SUPERBLOCK: [&str; 6] = ["sync", "dirsync", "lazytime", "mand", "nolazytime", "async"];

impl Options {
    /// Reads them.
    pub(crate) fn parse(words: &[String]) -> Self {
        let mut options = Self::default();
        for word in words {
            let recursive = word.strip_prefix('r').and_then(attribute);
            match word.as_str() {
                "bind" => options.bind = options.bind.or(Some(false)),
                "rbind" => options.bind = Some(true),
                "private" | "rprivate" => options.propagate(libc::MS_PRIVATE, word),
                "shared" | "rshared" => options.propagate(libc::MS_SHARED, word),
                "slave" | "rslave" => options.propagate(libc::MS_SLAVE, word),
                "unbindable" | "runbindable" => options.propagate(libc::MS_UNBINDABLE, word),
                "tmpcopyup" => options.copy_up = true,
                "idmap" => options.idmap = Some(false),
                "ridmap" => options.idmap = Some(true),
                "defaults" | "" => {}
                _ if attribute(word).is_some() => add(&mut options.own, attribute(word)),
                _ if recursive.is_some() => add(&mut options.all, recursive),
                _ if SUPERBLOCK.contains(&word.as_str()) => options.data.push((word.clone(), None)),
                _ => options.data.push(match word.split_once('=') {
                    Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                    None => (word.clone(), None),
                }),
            }
        }
        options
    }

    fn propagate(&mut self, flag: libc::c_ulong, word: &str) {
        self.propagation.push((flag, word.starts_with('r')));
    }
}

fn add(attributes: &mut Attributes, change: Option<(u64, u64)>) {
    let Some((set, clear)) = change else { return };
    // What comes later counts.
    attributes.set = (attributes.set & !clear) | set;
    attributes.clear = (attributes.clear & !set) | clear;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Options {
        Options::parse(&words.split(',').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn sorts_what_docker_writes() {
        let options = parse("rbind,rprivate,ro");
        assert_eq!(options.bind, Some(true));
        assert_eq!(options.own.set, libc::MOUNT_ATTR_RDONLY);
        assert_eq!(options.propagation, [(libc::MS_PRIVATE, true)]);
        let options = parse("nosuid,strictatime,mode=755,size=65536k");
        assert_eq!(options.own.set, libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_STRICTATIME);
        assert_eq!(options.data[1], ("size".into(), Some("65536k".into())));
    }

    #[test]
    fn recursive_words_are_not_confused_with_plain_ones() {
        assert_eq!(parse("rro").all.set, libc::MOUNT_ATTR_RDONLY);
        assert_eq!(parse("rw").own.clear, libc::MOUNT_ATTR_RDONLY);
        assert_eq!(parse("relatime").all, Attributes::default());
        assert_eq!(parse("rnosuid").all.set, libc::MOUNT_ATTR_NOSUID);
    }

    #[test]
    fn the_last_word_counts() {
        let options = parse("ro,rw,noatime,relatime");
        assert_eq!(options.own.set & libc::MOUNT_ATTR_RDONLY, 0);
        assert_eq!(options.own.set & ATIME, libc::MOUNT_ATTR_RELATIME);
    }
}
