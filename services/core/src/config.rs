//! The configuration file: one TOML file for the node, with a section a service. Every key has a working default; a
//! key that nobody knows is an error, because a misspelt one would be silently without effect.
//!
//! Here are the keys that all services share. A service's own section (`[image]`, …) is a type of that service, which
//! it reads with [`Node::section`].

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Where the file is looked for when none is named; it need not exist.
pub const DEFAULT_PATH: &str = "/etc/berth/config.toml";
/// The services, by the names of their sections and subcommands.
pub const SERVICES: [&str; 4] = ["image", "snapshotter", "runtime", "registry-proxy"];

/// The keys that all services share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Node {
    /// What must outlive a reboot: images, layers, containers. Each service has a directory of its own name in it.
    pub root: PathBuf,
    /// What is of this boot: sockets, bundles. Each service has a directory of its own name in it.
    pub state: PathBuf,
    /// Members of this group may use the sockets, besides root. A group that does not exist means root alone.
    pub group: String,
    /// What is logged to standard error: a level or a filter (`info`, `berth_image=debug,info`).
    pub log: String,
    /// Telemetry.
    pub telemetry: Telemetry,
    /// The services' sections, not yet read.
    #[serde(flatten)]
    sections: toml::Table,
    /// Where this came from, for messages.
    #[serde(skip)]
    file: Option<PathBuf>,
    /// What flags and the environment put over it.
    #[serde(skip)]
    given: Vec<Given>,
}

/// A key that [`Node::set`] set.
#[derive(Clone, Debug, PartialEq)]
struct Given {
    service: String,
    key: String,
    /// What the file says.
    before: Option<toml::Value>,
    /// Where the value came from, for messages.
    from: String,
}

/// `[telemetry]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Telemetry {
    /// Where spans go, over OTLP/gRPC (`http://127.0.0.1:4317`); nowhere where unset.
    pub otlp_endpoint: Option<String>,
}

impl Default for Node {
    fn default() -> Self {
        Self {
            root: "/var/lib/berth".into(),
            state: "/run/berth".into(),
            group: "berth".into(),
            log: "info".into(),
            telemetry: Telemetry::default(),
            sections: toml::Table::new(),
            file: None,
            given: Vec::new(),
        }
    }
}

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not TOML, or a value has the wrong type.
    #[error("the configuration {path} is wrong: {source}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// A key at the top that is neither a shared key nor a service.
    #[error(
        "the configuration {path} has {key:?}, which nothing reads; the keys are root, state, group, log and the sections \
         [telemetry], [image], [snapshotter], [runtime], [registry-proxy]"
    )]
    Unknown {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
    },
    /// A value that cannot be meant.
    #[error("{key} = {value:?} in the configuration cannot be used: {why}")]
    Value {
        /// Where, as `section.key`.
        key: String,
        /// What it says.
        value: String,
        /// Why not.
        why: String,
    },
    /// The same, of a flag or of the environment.
    #[error("{from} = {value:?} cannot be used: {why}")]
    Given {
        /// The flag, and the variable that stands for it.
        from: String,
        /// What it says.
        value: String,
        /// Why not.
        why: String,
    },
}

impl Node {
    /// Reads `file`, or [`DEFAULT_PATH`] where none is named and that exists, or takes the defaults.
    ///
    /// # Errors
    /// A named file that is not there, and everything in it that is wrong.
    pub fn load(file: Option<&Path>) -> Result<Self, Error> {
        let path = file.unwrap_or(Path::new(DEFAULT_PATH));
        match fs::read_to_string(path) {
            Ok(text) => Self::parse(&text, path),
            Err(source) if file.is_none() && source.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(Error::Read { path: path.into(), source }),
        }
    }

    /// Reads the text of a configuration file; `path` is for messages.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, Error> {
        let mut node: Self =
            toml::from_str(text).map_err(|source| Error::Parse { path: path.into(), source: source.into() })?;
        if let Some(key) = node.sections.keys().find(|key| !SERVICES.contains(&key.as_str())) {
            return Err(Error::Unknown { path: path.into(), key: key.clone() });
        }
        node.file = Some(path.into());
        Ok(node)
    }

    /// The file this was read from; `None` for the defaults.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// One service's section, or its defaults.
    ///
    /// # Errors
    /// A value of the wrong type or, if `T` refuses unknown fields, a key that nothing reads.
    pub fn section<T: DeserializeOwned + Default>(&self, service: &str) -> Result<T, Error> {
        match self.sections.get(service) {
            None => Ok(T::default()),
            Some(section) => section.clone().try_into().map_err(|source| self.blame::<T>(service, source)),
        }
    }

    /// Whose fault it is that a section cannot be read: the command line's, where it can be read without what that set.
    fn blame<T: DeserializeOwned>(&self, service: &str, source: toml::de::Error) -> Error {
        let mut section = self.sections.get(service).cloned();
        let Some(table) = section.as_mut().and_then(toml::Value::as_table_mut) else {
            return Error::Parse { path: self.source(), source: source.into() };
        };
        for given in self.given.iter().rev().filter(|given| given.service == service) {
            let value = match given.before.clone() {
                Some(before) => table.insert(given.key.clone(), before),
                None => table.remove(&given.key),
            };
            if table.clone().try_into::<T>().is_ok() {
                let value = value.map(|value| value.as_str().map_or(value.to_string(), str::to_owned));
                let why = source.message().to_owned();
                return Error::Given { from: given.from.clone(), value: value.unwrap_or_default(), why };
            }
        }
        Error::Parse { path: self.source(), source: source.into() }
    }

    /// The file that the sections came from.
    fn source(&self) -> PathBuf {
        self.file.clone().unwrap_or_else(|| DEFAULT_PATH.into())
    }

    /// Sets one key of a service's section, as the command line does; `from` names the flag in messages.
    ///
    /// # Errors
    /// The section is something else than a table.
    pub fn set(&mut self, service: &str, key: &str, value: &str, from: &str) -> Result<(), Error> {
        let section = self.sections.entry(service).or_insert_with(|| toml::Table::new().into());
        let table = section.as_table_mut().ok_or_else(|| Error::Value {
            key: service.into(),
            value: value.into(),
            why: "it is not a section".into(),
        })?;
        let before = table.insert(key.into(), value.into());
        self.given.push(Given { service: service.into(), key: key.into(), before, from: from.into() });
        Ok(())
    }

    /// The directory below `root` that belongs to a service.
    pub fn root_of(&self, service: &str) -> PathBuf {
        self.root.join(service)
    }

    /// Makes the directory below `root` that belongs to a service, for root's eyes alone: images hold set-uid programs,
    /// and records hold what is in containers' environments.
    ///
    /// # Errors
    /// It cannot be made, or its mode cannot be changed; the message names it.
    pub fn make_private_root(&self, service: &str) -> io::Result<()> {
        use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
        let directory = self.root_of(service);
        let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", directory.display()));
        fs::create_dir_all(&self.root).map_err(named)?;
        match fs::DirBuilder::new().mode(0o700).create(&directory) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)).map_err(named)
            }
            made => made.map_err(named),
        }
    }

    /// The directory below `state` that belongs to a service.
    pub fn state_of(&self, service: &str) -> PathBuf {
        self.state.join(service)
    }

    /// Path of a service's socket. The registry-proxy's is `registry.sock`.
    pub fn socket(&self, service: &str) -> PathBuf {
        let name = if service == "registry-proxy" { "registry" } else { service };
        self.state.join(format!("{name}.sock"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Section {
        driver: String,
    }

    fn parse(text: &str) -> Result<Node, Error> {
        Node::parse(text, Path::new("test.toml"))
    }

    #[test]
    fn an_empty_file_means_the_defaults() {
        assert_eq!(parse("").unwrap().root, Node::default().root);
        assert_eq!(parse("").unwrap().section::<Section>("snapshotter").unwrap(), Section::default());
    }

    #[test]
    fn sections_belong_to_services() {
        let node = parse("root = '/a'\n[snapshotter]\ndriver = 'vfs'").unwrap();
        assert_eq!(node.root_of("image"), Path::new("/a/image"));
        assert_eq!(node.section::<Section>("snapshotter").unwrap().driver, "vfs");
    }

    #[test]
    fn a_root_is_private_whatever_it_was() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let node = Node { root: directory.path().join("root"), ..Node::default() };
        node.make_private_root("image").unwrap();
        fs::set_permissions(node.root_of("image"), fs::Permissions::from_mode(0o755)).unwrap();
        node.make_private_root("image").unwrap();
        assert_eq!(fs::metadata(node.root_of("image")).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn misspelt_keys_are_named() {
        for text in ["rot = '/a'", "[snapshoter]", "[telemetry]\notlp = 1"] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains("test.toml"), "{error}");
        }
        let error = parse("[snapshotter]\ndrivr = 'vfs'").unwrap().section::<Section>("snapshotter").unwrap_err();
        assert!(error.to_string().contains("drivr"), "{error}");
    }

    #[test]
    fn a_flag_is_blamed_for_its_own_value_and_the_file_for_its_own() {
        #[derive(Debug, Default, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        struct Choice {
            #[serde(rename = "driver")]
            _driver: Option<Driver>,
        }
        #[derive(Debug, Deserialize)]
        #[serde(rename_all = "lowercase")]
        enum Driver {
            Vfs,
        }
        let failure = |text: &str, flag: &str| {
            let mut node = parse(text).unwrap();
            node.set("snapshotter", "driver", flag, "--storage-driver").unwrap();
            node.section::<Choice>("snapshotter").unwrap_err().to_string()
        };
        let error = failure("[snapshotter]\ndriver = 'vfs'", "zfs");
        assert!(error.starts_with("--storage-driver = \"zfs\" cannot be used: "), "{error}");
        let error = failure("", "zfs");
        assert!(error.starts_with("--storage-driver = "), "{error}");
        let error = failure("[snapshotter]\ndrivr = 'vfs'", "vfs");
        assert!(error.contains("test.toml is wrong"), "{error}");
    }
}
