//! Where the hierarchies are mounted, and where in them the container's cgroup is.

use std::{
    fs,
    path::{Component, Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::Cgroup;
use crate::oci::error::{Error, Step as _};

/// A v1 hierarchy, seen from one cgroup in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hierarchy {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// The cgroup's directory.
    pub path: PathBuf,
    /// `cpu`, `memory`, …
    pub controllers: Vec<String>,
    /// `systemd`, of a hierarchy without controllers.
    pub name: Option<String>,
}

impl Hierarchy {
    /// As everybody calls its directory.
    pub(crate) fn directory_name(&self) -> &str {
        self.mount.file_name().and_then(|name| name.to_str()).unwrap_or("cgroup")
    }

    /// Other names under which it is looked for.
    pub(crate) fn aliases(&self) -> impl Iterator<Item = &str> {
        let alone = self.controllers.len() < 2;
        self.controllers.iter().map(String::as_str).filter(move |name| !alone && *name != self.directory_name())
    }

    /// Mount options that name it.
    pub(crate) fn mount_data(&self) -> Vec<(String, Option<String>)> {
        match &self.name {
            Some(name) => {
                vec![("none".into(), None), ("name".into(), Some(name.clone()))]
            }
            None => self.controllers.iter().map(|controller| (controller.clone(), None)).collect(),
        }
    }
}

/// Finds the mounted hierarchies and the container's place in them.
pub(super) fn cgroup(path: Option<&Path>, id: &str) -> Result<Cgroup, Error> {
    let place = resolve(path, id)?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").step(|| "looking for cgroup hierarchies")?;
    let mut cgroup = Cgroup { v1: Vec::new(), v2: None, v2_mount: None };
    for (mount, kind, options) in mounts.lines().filter_map(parse) {
        match kind {
            "cgroup2" if cgroup.v2.is_none() => {
                cgroup.v2 = Some(mount.join(&place));
                cgroup.v2_mount = Some(mount);
            }
            "cgroup" => {
                let mut hierarchy = Hierarchy { path: mount.join(&place), mount, controllers: Vec::new(), name: None };
                for option in options.split(',') {
                    match option.strip_prefix("name=") {
                        Some(name) => hierarchy.name = Some(name.to_owned()),
                        None if is_controller(option) => hierarchy.controllers.push(option.to_owned()),
                        None => {}
                    }
                }
                let known =
                    cgroup.v1.iter().any(|h| h.controllers == hierarchy.controllers && h.name == hierarchy.name);
                if !known {
                    cgroup.v1.push(hierarchy);
                }
            }
            _ => {}
        }
    }
    if cgroup.v1.is_empty() && cgroup.v2.is_none() {
        return Err(Error::Unsupported("no cgroup hierarchy is mounted on this machine".into()));
    }
    Ok(cgroup)
}

fn is_controller(option: &str) -> bool {
    const FLAGS: [&str; 8] =
        ["rw", "ro", "xattr", "noprefix", "clone_children", "cpuset_v2_mode", "favordynmods", "none"];
    !FLAGS.contains(&option) && !option.contains('=')
}

/// Mount point, type and superblock options of a line of mountinfo (proc_pid_mountinfo(5)), where its root is the
/// hierarchy's own.
fn parse(line: &str) -> Option<(PathBuf, &str, &str)> {
    let (before, after) = line.split_once(" - ")?;
    let mut before = before.split(' ').skip(3);
    let (root, mount) = (before.next()?, before.next()?);
    let mut after = after.split(' ');
    let (kind, _, options) = (after.next()?, after.next()?, after.next()?);
    // In a container a hierarchy may be mounted with its root elsewhere: then what is below the mount point counts.
    let _ = root;
    Some((PathBuf::from(mount), kind, options))
}

/// `cgroupsPath` as a path beneath a hierarchy's mount point.
///
/// `slice:prefix:name`, which systemd's users write, is where systemd would put it; systemd itself is not asked. Without a
/// path it is `berth/<id>`. A path that leads out is refused.
pub(super) fn resolve(path: Option<&Path>, id: &str) -> Result<PathBuf, Error> {
    let Some(path) = path.filter(|path| !path.as_os_str().is_empty()) else {
        return Ok(Path::new("berth").join(id));
    };
    let text = path.to_string_lossy();
    if let [slice, prefix, name] = text.split(':').collect::<Vec<_>>()[..]
        && !text.contains('/')
    {
        let slice = if slice.is_empty() { "system.slice" } else { slice };
        let unit = if name.ends_with(".slice") {
            name.to_owned()
        } else if prefix.is_empty() {
            format!("{name}.scope")
        } else {
            format!("{prefix}-{name}.scope")
        };
        return Ok(expand(slice)?.join(unit));
    }
    let mut place = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => place.push(name),
            Component::RootDir | Component::CurDir => {}
            _ => return Err(Error::Spec(format!("the cgroup path {text} leads upwards"))),
        }
    }
    if place.as_os_str().is_empty() {
        return Err(Error::Spec("a container cannot live in the root cgroup".into()));
    }
    Ok(place)
}

/// `a-b.slice` lies in `a.slice`.
fn expand(slice: &str) -> Result<PathBuf, Error> {
    let stem = slice.strip_suffix(".slice").filter(|stem| !stem.contains("--") && !stem.starts_with(['-', '.']));
    let stem = stem.ok_or_else(|| Error::Spec(format!("{slice} is no name of a systemd slice")))?;
    let mut path = PathBuf::new();
    let mut name = String::new();
    for part in stem.split('-') {
        if !name.is_empty() {
            name.push('-');
        }
        name.push_str(part);
        path.push(format!("{name}.slice"));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_beneath() {
        let of = |path: &str| resolve(Some(Path::new(path)), "id").map(|path| path.to_string_lossy().into_owned());
        assert_eq!(of("/berth/x").unwrap(), "berth/x");
        assert_eq!(of("x").unwrap(), "x");
        assert_eq!(of("").unwrap(), "berth/id");
        assert!(of("/a/../../b").is_err());
        assert!(of("/").is_err());
        assert_eq!(of("system.slice:docker:abc").unwrap(), "system.slice/docker-abc.scope");
        assert_eq!(of("a-b.slice:cri:abc").unwrap(), "a.slice/a-b.slice/cri-abc.scope");
    }

    #[test]
    fn reads_mountinfo() {
        let line = "35 27 0:30 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct";
        assert_eq!(parse(line).unwrap(), (PathBuf::from("/sys/fs/cgroup/cpu,cpuacct"), "cgroup", "rw,cpu,cpuacct"));
    }
}
