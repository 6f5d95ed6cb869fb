//! `--volumes-from`: the volumes and binds of other containers, at the same places.

use std::collections::BTreeSet;

use berth_proto::berth::runtime::v1::{ContainerSpec, Mount, MountPoint, mount::Type};

use crate::{
    container::containers::Containers,
    error::{Error, Result},
};

impl Containers {
    /// Names the others by their ids, and looks whether they are there.
    pub(super) fn check_volumes_from(&self, asked: &mut ContainerSpec) -> Result<()> {
        for from in &mut asked.volumes_from {
            let (name, mode) = split(from);
            if !matches!(mode, "" | "ro" | "rw" | "z" | "Z") {
                return Err(Error::Invalid(format!("invalid mode for volumes-from: {mode}")));
            }
            let id = self.find(name)?.id.clone();
            *from = if mode.is_empty() { id } else { format!("{id}:{mode}") };
        }
        Ok(())
    }

    /// All mounts that are asked for: a container's own stand before those of others.
    pub(super) fn all_mounts(&self, spec: &ContainerSpec) -> Result<Vec<Mount>> {
        let mut all = spec.mounts.clone();
        let mut taken: BTreeSet<String> = all.iter().map(|mount| mount.target.trim_end_matches('/').into()).collect();
        for from in &spec.volumes_from {
            let (id, mode) = split(from);
            for point in &self.find(id)?.record().mounts {
                if let Some(mount) = inherited(point, mode)
                    && taken.insert(mount.target.clone())
                {
                    all.push(mount);
                }
            }
        }
        Ok(all)
    }
}

fn split(from: &str) -> (&str, &str) {
    from.split_once(':').unwrap_or((from, ""))
}

fn inherited(point: &MountPoint, mode: &str) -> Option<Mount> {
    let (kind, source) = match point.r#type.as_str() {
        "volume" => (Type::Volume, &point.name),
        "bind" => (Type::Bind, &point.source),
        // A temporary file system is one container's own.
        _ => return None,
    };
    Some(Mount {
        r#type: kind.into(),
        source: source.clone(),
        target: point.destination.clone(),
        read_only: !point.read_write || mode == "ro",
        propagation: point.propagation.clone(),
        // What it was to be filled with, it has.
        no_copy: true,
        ..Mount::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_over() {
        let point = MountPoint {
            r#type: "volume".into(),
            name: "data".into(),
            source: "/x/data/_data".into(),
            destination: "/data".into(),
            read_write: true,
            ..MountPoint::default()
        };
        let mount = inherited(&point, "").unwrap();
        assert_eq!((mount.source.as_str(), mount.target.as_str(), mount.read_only), ("data", "/data", false));
        assert!(inherited(&point, "ro").unwrap().read_only);
        assert!(inherited(&MountPoint { read_write: false, ..point.clone() }, "rw").unwrap().read_only);
        let bind = inherited(&MountPoint { r#type: "bind".into(), ..point.clone() }, "").unwrap();
        assert_eq!((bind.r#type(), bind.source.as_str()), (Type::Bind, "/x/data/_data"));
        assert!(inherited(&MountPoint { r#type: "tmpfs".into(), ..point }, "").is_none());
    }
}
