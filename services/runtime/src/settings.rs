//! `[runtime]`

use std::{
    collections::BTreeMap,
    path::{Component, Path},
};

use serde::Deserialize;

use crate::{error::Error, network};

/// The service's section of the configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    /// Cgroup below which every container has one of its own, where its request names no other.
    pub(crate) cgroup_parent: String,
    /// Runtime handler of containers that name none; empty for the shim's own low-level runtime.
    pub(crate) default_handler: String,
    /// Further handlers, by name.
    pub(crate) handler: BTreeMap<String, Handler>,
    /// The shim's binary; unset for the one beside this service's, then the one in PATH.
    pub(crate) shim: Option<std::path::PathBuf>,
    /// `[runtime.network]`
    pub(crate) network: network::Settings,
}

/// `[runtime.handler.NAME]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Handler {
    /// Path of an OCI runtime binary (`/usr/sbin/runc`); unset for the shim's own.
    pub(crate) oci_runtime: Option<String>,
}

impl Settings {
    /// Whether the service can work as it is told, so that nobody learns it from the first container that fails. A
    /// binary that is not there is no reason to leave the containers that run alone: only who needs it is refused.
    ///
    /// # Errors
    /// A value cannot be meant, or names what is not there.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let wrong = |key: String, why: String| Err(Error::Setting { key, why });
        let parent = Path::new(&self.cgroup_parent);
        if parent.components().any(|part| !matches!(part, Component::Normal(_) | Component::RootDir)) {
            let why = format!("{:?} is no path below the cgroups' root: use one like \"/berth\"", self.cgroup_parent);
            return wrong("cgroup_parent".into(), why);
        }
        let default = self.default_handler.as_str();
        if !matches!(default, "" | "berth") && !self.handler.contains_key(default) {
            let named = self.handler.keys().map(String::as_str).chain(["berth"]).collect::<Vec<_>>().join(", ");
            return wrong("default_handler".into(), format!("there is no handler {default:?}; there is {named}"));
        }
        for (name, handler) in &self.handler {
            if let Some(binary) = handler.oci_runtime.as_ref().filter(|binary| !binary.starts_with('/')) {
                return wrong(format!("handler.{name}.oci_runtime"), format!("{binary:?} must be an absolute path"));
            }
        }
        Ok(())
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            cgroup_parent: "/berth".into(),
            default_handler: String::new(),
            handler: BTreeMap::new(),
            shim: None,
            network: network::Settings::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_work_is_refused_at_the_start() {
        let refused = |text: &str| toml::from_str::<Settings>(text).unwrap().check().unwrap_err().to_string();
        assert!(refused("cgroup_parent = '/a/../b'").contains("cgroup_parent"));
        assert!(refused("default_handler = 'kata'").contains("there is no handler \"kata\"; there is berth"));
        let relative = refused("[handler.x]\noci_runtime = 'runc'");
        assert_eq!(relative, "[runtime] handler.x.oci_runtime: \"runc\" must be an absolute path");
        let fine = "default_handler = 'x'\ncgroup_parent = 'a'\n[handler.x]\noci_runtime = '/bin/sh'";
        toml::from_str::<Settings>(fine).unwrap().check().unwrap();
    }
}
