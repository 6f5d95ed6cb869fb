//! The command line, which overrides the environment, which overrides the configuration file.

use std::path::PathBuf;

use berth_core::config::{Error, Node};
use clap::{Args as ClapArgs, Parser, Subcommand};

/// One service of a berth node, or all of them.
#[derive(Debug, Parser)]
#[command(name = "berthd", version, about, propagate_version = true)]
pub(crate) struct Args {
    /// What to run.
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) shared: Shared,
    /// Started by `berthd all`: end with it.
    #[arg(long, hide = true, global = true)]
    pub(crate) supervised: bool,
}

#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum Command {
    /// All four services, each a process of its own, started again when it dies
    All,
    /// The image service: pull, load, image records
    Image,
    /// The snapshotter: layers and root file systems
    Snapshotter,
    /// The runtime service: containers
    Runtime,
    /// The registry-proxy: a mirror of other registries
    RegistryProxy,
}

/// What every service takes.
#[derive(Debug, Default, ClapArgs)]
pub(crate) struct Shared {
    /// Configuration file [default: /etc/berth/config.toml, where it exists]
    #[arg(long, global = true, value_name = "FILE", env = "BERTH_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Directory for what outlives a reboot [default: /var/lib/berth]
    #[arg(long, global = true, value_name = "DIR", env = "BERTH_ROOT")]
    pub(crate) root: Option<PathBuf>,
    /// Directory for sockets and what is of this boot [default: /run/berth]
    #[arg(long, global = true, value_name = "DIR", env = "BERTH_STATE")]
    pub(crate) state: Option<PathBuf>,
    /// Group whose members may use the sockets [default: berth]
    #[arg(long, global = true, value_name = "NAME", env = "BERTH_GROUP")]
    pub(crate) group: Option<String>,
    /// Level or filter of what is logged [default: info]
    #[arg(long, global = true, value_name = "FILTER", env = "BERTH_LOG")]
    pub(crate) log: Option<String>,
    /// How layers are stored: overlay2 or vfs [default: the best that works]
    #[arg(long, global = true, value_name = "NAME", env = "BERTH_STORAGE_DRIVER")]
    pub(crate) storage_driver: Option<String>,
    /// Where traces go, over OTLP/gRPC
    #[arg(long, global = true, value_name = "URL", env = "BERTH_OTLP_ENDPOINT")]
    pub(crate) otlp_endpoint: Option<String>,
}

impl Args {
    /// The configuration with the command line's word on top. Directories become absolute, because services change
    /// theirs.
    pub(crate) fn node(&self) -> anyhow::Result<Node> {
        let shared = &self.shared;
        let mut node = Node::load(shared.config.as_deref())?;
        if let Some(root) = &shared.root {
            node.root.clone_from(root);
        }
        if let Some(state) = &shared.state {
            node.state.clone_from(state);
        }
        if let Some(group) = &shared.group {
            node.group.clone_from(group);
        }
        if let Some(log) = &shared.log {
            node.log.clone_from(log);
        }
        if let Some(endpoint) = &shared.otlp_endpoint {
            node.telemetry.otlp_endpoint = Some(endpoint.clone());
        }
        if let Some(driver) = &shared.storage_driver {
            node.set("snapshotter", "driver", driver)?;
        }
        for (key, directory) in [("root", &mut node.root), ("state", &mut node.state)] {
            *directory = std::path::absolute(&*directory).map_err(|source| Error::Value {
                key: key.into(),
                value: directory.display().to_string(),
                why: source.to_string(),
            })?;
        }
        Ok(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_wins() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "root = '/from-file'\nlog = 'debug'\n[snapshotter]\ndriver = 'vfs'").unwrap();
        let config = file.path().to_str().unwrap();
        let args =
            Args::parse_from(["berthd", "all", "--config", config, "--root", "/r", "--storage-driver", "overlay2"]);
        let node = args.node().unwrap();
        assert_eq!((node.root.to_str(), node.log.as_str()), (Some("/r"), "debug"));
        let section: std::collections::BTreeMap<String, String> = node.section("snapshotter").unwrap();
        assert_eq!(section["driver"], "overlay2");
    }

    #[test]
    fn a_named_file_must_exist() {
        let args = Args::parse_from(["berthd", "image", "--config", "/does/not/exist"]);
        assert!(args.node().unwrap_err().to_string().contains("/does/not/exist"));
    }
}
