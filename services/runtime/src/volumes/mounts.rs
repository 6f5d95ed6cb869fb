//! A container's mounts: what was asked for, checked with Docker's words, becomes what is mounted.

use std::{
    collections::HashSet,
    fs, io,
    path::{Component, Path},
    sync::Arc,
};

use berth_proto::berth::runtime::v1::{Mount, MountPoint, mount::Type};

use super::{
    store::{Inner, Volumes, blocking},
    volume::{Purpose, check_name, invented_name},
};
use crate::volumes::Error;

/// In `MountPoint.mode`: the volume is not filled from the image.
pub(super) const NO_COPY: &str = "nocopy";
const PROPAGATIONS: [&str; 6] = ["private", "rprivate", "slave", "rslave", "shared", "rshared"];

impl Volumes {
    /// What a container's mounts are, in the order they must be made: the user's, and the image's volumes that no mount
    /// of the user's replaces. Makes named and anonymous volumes that are not there, and missing bind sources where the
    /// mount says so. The volumes belong to `container` from then on. Failed, it leaves no anonymous volume.
    ///
    /// # Errors
    /// See [`Error`].
    pub(crate) async fn resolve(
        &self,
        container: &str,
        mounts: &[Mount],
        image_volumes: &[String],
    ) -> Result<Vec<MountPoint>, Error> {
        Self::check(mounts)?;
        let (inner, container) = (Arc::clone(&self.0), container.to_owned());
        let (mounts, image_volumes) = (mounts.to_vec(), image_volumes.to_vec());
        blocking("making volumes", move || resolve(&inner, &container, &mounts, &image_volumes)).await
    }

    /// Whether these mounts can be meant, without looking at the disk and without making anything.
    ///
    /// # Errors
    /// One cannot.
    pub(crate) fn check(mounts: &[Mount]) -> Result<(), Error> {
        let mut targets = HashSet::new();
        for mount in mounts {
            check(mount)?;
            let target = clean(&mount.target);
            if !targets.insert(target.clone()) {
                return Err(Error::Duplicate { target });
            }
        }
        Ok(())
    }
}

fn check(mount: &Mount) -> Result<(), Error> {
    let kind = match mount.r#type() {
        Type::Bind => "bind",
        Type::Volume => "volume",
        Type::Tmpfs => "tmpfs",
        Type::Unspecified => return Err(Error::BadMount { kind: "", why: "mount type unknown".into() }),
    };
    let bad = |why: String| Err(Error::BadMount { kind, why });
    let relative = |path: &str| format!("invalid mount path: '{path}' mount path must be absolute");
    if mount.target.is_empty() {
        return bad("field Target must not be empty".into());
    }
    if mount.target.contains('\0') || mount.source.contains('\0') {
        return bad("a path has a NUL in it".into());
    }
    if !mount.target.starts_with('/') {
        return bad(relative(&mount.target));
    }
    if clean(&mount.target) == "/" {
        return bad("invalid specification: destination can't be '/'".into());
    }
    if !mount.propagation.is_empty() && !PROPAGATIONS.contains(&mount.propagation.as_str()) {
        return bad(format!("invalid propagation mode: {}", mount.propagation));
    }
    match mount.r#type() {
        Type::Bind if mount.source.is_empty() => bad("field Source must not be empty".into()),
        Type::Bind if !mount.source.starts_with('/') => bad(relative(&mount.source)),
        Type::Volume if !mount.source.is_empty() => check_name(&mount.source),
        Type::Tmpfs if !mount.source.is_empty() => bad("field Source must not be specified".into()),
        _ => Ok(()),
    }
}

/// Without `.`, `..` and double slashes, by the text alone, as Docker reads a target.
fn clean(path: &str) -> String {
    let mut clean: Vec<&str> = Vec::new();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) => clean.extend(name.to_str()),
            Component::ParentDir => drop(clean.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    format!("/{}", clean.join("/"))
}

fn resolve(
    inner: &Inner,
    container: &str,
    mounts: &[Mount],
    image_volumes: &[String],
) -> Result<Vec<MountPoint>, Error> {
    let mut making = Making { inner, container, points: Vec::new() };
    match making.all(mounts, image_volumes) {
        Ok(()) => {
            let mut points = making.points;
            // A `--tmpfs` is told of where it was asked for alone.
            let short = |point: &MountPoint| {
                let asked = |mount: &Mount| mount.r#type() == Type::Tmpfs && clean(&mount.target) == point.destination;
                mounts.iter().any(|mount| asked(mount) && !mount.long_form)
            };
            points.retain(|point| point.r#type != "tmpfs" || !short(point));
            // What is mounted beneath another comes after it.
            points.sort_by_key(|point| point.destination.split('/').count());
            Ok(points)
        }
        Err(error) => {
            making.undo();
            Err(error)
        }
    }
}

/// The mounts of one container while they are made.
struct Making<'a> {
    inner: &'a Inner,
    container: &'a str,
    points: Vec<MountPoint>,
}

impl Making<'_> {
    fn all(&mut self, mounts: &[Mount], image_volumes: &[String]) -> Result<(), Error> {
        for mount in mounts {
            let point =
                MountPoint { destination: clean(&mount.target), read_write: !mount.read_only, ..MountPoint::default() };
            match mount.r#type() {
                Type::Bind => self.points.push(bind(mount, point)?),
                Type::Volume => self.volume(mount, point)?,
                Type::Tmpfs | Type::Unspecified => self.points.push(MountPoint { r#type: "tmpfs".into(), ..point }),
            }
        }
        for target in image_volumes {
            let destination = clean(target);
            if destination == "/" || self.points.iter().any(|point| point.destination == destination) {
                continue;
            }
            let point = MountPoint { destination, read_write: true, ..MountPoint::default() };
            self.volume(&Mount::default(), point)?;
        }
        Ok(())
    }

    fn volume(&mut self, mount: &Mount, point: MountPoint) -> Result<(), Error> {
        let anonymous = mount.source.is_empty();
        let name = if anonymous { invented_name() } else { mount.source.clone() };
        let volume = self.inner.volume(&name)?;
        self.inner.take(self.container, &name);
        self.points.push(MountPoint {
            r#type: "volume".into(),
            name,
            source: volume.mountpoint.to_string_lossy().into_owned(),
            driver: "local".into(),
            mode: mode(mount, if anonymous && !mount.long_form { "" } else { "z" }),
            propagation: mount.propagation.clone(),
            ..point
        });
        let container = if anonymous { self.container } else { "" };
        self.inner.make(&volume, Purpose { anonymous, container, labels: None })
    }

    /// Named ones stay, as they do without their container.
    fn undo(&self) {
        let volumes = || self.points.iter().filter(|point| point.r#type == "volume");
        self.inner.give_back(self.container, volumes().map(|point| point.name.as_str()));
        for point in volumes() {
            let made =
                self.inner.volume(&point.name).is_ok_and(|v| v.exists() && v.details.container == self.container);
            if made && let Err(error) = self.inner.remove(&point.name) {
                tracing::warn!(volume = point.name, %error, "an anonymous volume stays");
            }
        }
    }
}

fn bind(mount: &Mount, point: MountPoint) -> Result<MountPoint, Error> {
    let source = clean(&mount.source);
    match fs::metadata(&source) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound && mount.create_source => {
            fs::create_dir_all(&source).map_err(Error::io("error while creating mount source path", &source))?;
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Err(Error::BadMount { kind: "bind", why: format!("bind source path does not exist: {source}") });
        }
        Err(error) => return Err(Error::io("cannot look at", source)(error)),
    }
    let propagation = if mount.propagation.is_empty() { "rprivate" } else { &mount.propagation };
    let mode = mode(mount, "");
    Ok(MountPoint { r#type: "bind".into(), source, propagation: propagation.into(), mode, ..point })
}

/// The options as `-v` has them, which is what Docker shows as the mode; `--mount` has none.
fn mode(mount: &Mount, default: &str) -> String {
    let no_copy = if mount.no_copy { NO_COPY } else { "" };
    let options = [if mount.read_only { "ro" } else { "" }, &mount.propagation, no_copy];
    let options: Vec<_> = if mount.long_form { vec![no_copy] } else { options.to_vec() };
    let options: Vec<_> = options.into_iter().filter(|option| !option.is_empty()).collect();
    if options.is_empty() { default.to_owned() } else { options.join(",") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::Events;

    fn all(volumes: &Volumes) -> Vec<crate::volumes::volume::Volume> {
        volumes.0.list().unwrap()
    }

    fn mount(kind: Type, source: &str, target: &str) -> Mount {
        Mount { r#type: kind.into(), source: source.into(), target: target.into(), ..Mount::default() }
    }

    #[test]
    fn what_cannot_be_mounted() {
        let all = [
            (mount(Type::Bind, "", "/m"), "invalid mount config for type \"bind\": field Source must not be empty"),
            (mount(Type::Bind, "a", "/m"), "invalid mount path: 'a' mount path must be absolute"),
            (mount(Type::Volume, "ab", ""), "field Target must not be empty"),
            (mount(Type::Volume, "ab", "m"), "invalid mount path: 'm' mount path must be absolute"),
            (mount(Type::Volume, "ab", "/m/.."), "destination can't be '/'"),
            (mount(Type::Volume, "relative/../path", "/m"), "includes invalid characters for a local volume name"),
            (mount(Type::Tmpfs, "a", "/m"), "field Source must not be specified"),
            (Mount { propagation: "x".into(), ..mount(Type::Bind, "/a", "/m") }, "invalid propagation mode: x"),
        ];
        for (mount, words) in all {
            let error = Volumes::check(&[mount]).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        let twice = [mount(Type::Tmpfs, "", "/m"), mount(Type::Volume, "ab", "/x/../m/")];
        assert_eq!(Volumes::check(&twice).unwrap_err().to_string(), "Duplicate mount point: /m");
    }

    #[tokio::test]
    async fn mounts_become_points_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let volumes = Volumes::open(&directory.path().join("volumes"), Events::default()).unwrap();
        let source = directory.path().join("made/by/v").to_str().unwrap().to_owned();
        let mounts = [
            Mount { long_form: true, ..mount(Type::Tmpfs, "", "/data/below/tmp") },
            mount(Type::Tmpfs, "", "/short"),
            mount(Type::Volume, "named", "/data"),
            Mount { create_source: true, read_only: true, ..mount(Type::Bind, &source, "/bind") },
        ];
        let image = ["/data/".to_owned(), "/cache".into(), "/cache".into(), "/short".into()];
        let points = volumes.resolve("a", &mounts, &image).await.unwrap();
        let destinations: Vec<_> = points.iter().map(|point| point.destination.as_str()).collect();
        assert_eq!(destinations, ["/data", "/bind", "/cache", "/data/below/tmp"]);
        assert!(points[0].source.ends_with("volumes/named/_data") && Path::new(&points[0].source).is_dir());
        assert!(Path::new(&source).is_dir() && !points[1].read_write && points[1].propagation == "rprivate");
        assert_eq!((points[2].name.len(), points[2].driver.as_str()), (64, "local"));
        assert_eq!(points[3].r#type, "tmpfs");
        let modes: Vec<_> = points.iter().map(|point| point.mode.as_str()).collect();
        assert_eq!(modes, ["z", "ro", "", ""]);
        let names: Vec<_> = all(&volumes).into_iter().map(|volume| volume.name).collect();
        assert!(names.contains(&"named".to_owned()) && names.contains(&points[2].name) && names.len() == 2);

        assert_eq!(volumes.made_for("a").await.unwrap()[0].name, points[2].name);
        assert!(volumes.made_for("b").await.unwrap().is_empty());
        let others = [mount(Type::Volume, "named", "/x"), mount(Type::Volume, &points[2].name, "/y")];
        let others = volumes.resolve("b", &others, &[]).await.unwrap();
        volumes.released("a", &points, true).await;
        assert_eq!(all(&volumes).len(), 2, "another container has it");
        let in_use = volumes.remove("named", false).await.unwrap_err().to_string();
        assert!(in_use.contains("volume is in use - [b]"), "{in_use}");
        volumes.released("b", &others, false).await;
        assert_eq!(all(&volumes).len(), 2);
        volumes.belong("c", &points);
        volumes.released("c", &points, true).await;
        let left = all(&volumes);
        assert_eq!(left.iter().map(|volume| volume.name.as_str()).collect::<Vec<_>>(), ["named"]);
        volumes.remove("named", false).await.unwrap();
        assert!(matches!(volumes.remove("named", false).await, Err(Error::NotFound { .. })));
        assert!(matches!(volumes.remove("../volumes", false).await, Err(Error::NotFound { .. })));
    }

    #[tokio::test]
    async fn a_missing_source_is_refused_and_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let volumes = Volumes::open(directory.path(), Events::default()).unwrap();
        let mounts = [mount(Type::Volume, "", "/a"), mount(Type::Bind, "/no/such/path", "/m")];
        let error = volumes.resolve("a", &mounts, &[]).await.unwrap_err().to_string();
        assert_eq!(error, "invalid mount config for type \"bind\": bind source path does not exist: /no/such/path");
        assert!(all(&volumes).is_empty());
    }
}
