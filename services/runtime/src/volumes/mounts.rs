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
    volume::{check_name, invented_name},
};
use crate::volumes::Error;

/// In `MountPoint.mode`: the volume is not filled from the image.
pub(super) const NO_COPY: &str = "nocopy";
const PROPAGATIONS: [&str; 6] = ["private", "rprivate", "slave", "rslave", "shared", "rshared"];

impl Volumes {
    /// What a container's mounts are, in the order they must be made: the user's, and the image's volumes that no mount
    /// of the user's replaces. Makes named and anonymous volumes that are not there, and missing bind sources where the
    /// mount says so. Failed, it leaves no anonymous volume.
    ///
    /// # Errors
    /// See [`Error`].
    pub(crate) async fn resolve(&self, mounts: &[Mount], image_volumes: &[String]) -> Result<Vec<MountPoint>, Error> {
        Self::check(mounts)?;
        let inner = Arc::clone(&self.0);
        let (mounts, image_volumes) = (mounts.to_vec(), image_volumes.to_vec());
        blocking("making volumes", move || resolve(&inner, &mounts, &image_volumes)).await
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

fn resolve(inner: &Inner, mounts: &[Mount], image_volumes: &[String]) -> Result<Vec<MountPoint>, Error> {
    let mut points = Vec::new();
    let mut made = Vec::new();
    match all(inner, mounts, image_volumes, &mut points, &mut made) {
        Ok(()) => {
            // What is mounted beneath another comes after it.
            points.sort_by_key(|point| point.destination.split('/').count());
            Ok(points)
        }
        Err(error) => {
            for name in made {
                if let Err(error) = inner.remove(&name) {
                    tracing::warn!(volume = name, %error, "an anonymous volume stays");
                }
            }
            Err(error)
        }
    }
}

/// `made` are the anonymous volumes.
fn all(
    inner: &Inner,
    mounts: &[Mount],
    image_volumes: &[String],
    points: &mut Vec<MountPoint>,
    made: &mut Vec<String>,
) -> Result<(), Error> {
    for mount in mounts {
        let point =
            MountPoint { destination: clean(&mount.target), read_write: !mount.read_only, ..MountPoint::default() };
        points.push(match mount.r#type() {
            Type::Bind => bind(mount, point)?,
            Type::Volume => volume(inner, mount, point, made)?,
            Type::Tmpfs | Type::Unspecified => MountPoint { r#type: "tmpfs".into(), ..point },
        });
    }
    for target in image_volumes {
        let destination = clean(target);
        if destination == "/" || points.iter().any(|point| point.destination == destination) {
            continue;
        }
        let point = MountPoint { destination, read_write: true, ..MountPoint::default() };
        points.push(volume(inner, &Mount::default(), point, made)?);
    }
    Ok(())
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
    Ok(MountPoint { r#type: "bind".into(), source, propagation: propagation.into(), ..point })
}

fn volume(inner: &Inner, mount: &Mount, point: MountPoint, made: &mut Vec<String>) -> Result<MountPoint, Error> {
    let anonymous = mount.source.is_empty();
    let name = if anonymous { invented_name() } else { mount.source.clone() };
    let volume = inner.volume(&name)?;
    if anonymous {
        made.push(name.clone());
    }
    volume.make(&inner.draft(), anonymous)?;
    Ok(MountPoint {
        r#type: "volume".into(),
        name,
        source: volume.mountpoint.to_string_lossy().into_owned(),
        driver: "local".into(),
        mode: if mount.no_copy { NO_COPY.into() } else { "z".into() },
        propagation: mount.propagation.clone(),
        ..point
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let volumes = Volumes::open(&directory.path().join("volumes")).unwrap();
        let source = directory.path().join("made/by/v").to_str().unwrap().to_owned();
        let mounts = [
            mount(Type::Tmpfs, "", "/data/below/tmp"),
            mount(Type::Volume, "named", "/data"),
            Mount { create_source: true, read_only: true, ..mount(Type::Bind, &source, "/bind") },
        ];
        let image = ["/data/".to_owned(), "/cache".into(), "/cache".into()];
        let points = volumes.resolve(&mounts, &image).await.unwrap();
        let destinations: Vec<_> = points.iter().map(|point| point.destination.as_str()).collect();
        assert_eq!(destinations, ["/data", "/bind", "/cache", "/data/below/tmp"]);
        assert!(points[0].source.ends_with("volumes/named/_data") && Path::new(&points[0].source).is_dir());
        assert!(Path::new(&source).is_dir() && !points[1].read_write && points[1].propagation == "rprivate");
        assert_eq!((points[2].name.len(), points[2].driver.as_str()), (64, "local"));
        assert_eq!(points[3].r#type, "tmpfs");
        let names: Vec<_> = volumes.list().await.unwrap().into_iter().map(|volume| volume.name).collect();
        assert!(names.contains(&"named".to_owned()) && names.contains(&points[2].name) && names.len() == 2);

        volumes.released(&points, true, &[points[2].name.clone()]).await;
        assert_eq!(volumes.list().await.unwrap().len(), 2, "another container has it");
        volumes.released(&points, false, &[]).await;
        assert_eq!(volumes.list().await.unwrap().len(), 2);
        volumes.released(&points, true, &[]).await;
        let left = volumes.list().await.unwrap();
        assert_eq!(left.iter().map(|volume| volume.name.as_str()).collect::<Vec<_>>(), ["named"]);
        assert!(
            volumes.remove("named", &["c1".into()]).await.unwrap_err().to_string().contains("volume is in use - [c1]")
        );
        volumes.remove("named", &[]).await.unwrap();
        assert!(matches!(volumes.remove("named", &[]).await, Err(Error::NotFound { .. })));
        assert!(matches!(volumes.remove("../volumes", &[]).await, Err(Error::NotFound { .. })));
    }

    #[tokio::test]
    async fn a_missing_source_is_refused_and_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let volumes = Volumes::open(directory.path()).unwrap();
        let mounts = [mount(Type::Volume, "", "/a"), mount(Type::Bind, "/no/such/path", "/m")];
        let error = volumes.resolve(&mounts, &[]).await.unwrap_err().to_string();
        assert_eq!(error, "invalid mount config for type \"bind\": bind source path does not exist: /no/such/path");
        assert!(volumes.list().await.unwrap().is_empty());
    }
}
