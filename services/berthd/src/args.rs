//! The command line, which overrides the environment, which overrides the configuration file.

use std::path::PathBuf;

use berth_core::config::{Error, Node};
use clap::{Args as ClapArgs, Parser, Subcommand};

use crate::directories;

/// What `berthd` is called with.
#[derive(Debug, Parser)]
#[command(
    name = "berthd",
    version,
    about = "The node of berth: runs containers for the command line berth and for programs that speak gRPC",
    propagate_version = true,
    disable_help_subcommand = true,
    after_help = "Most people want 'berthd all'. A flag overrides its environment variable, and both override the \
                  configuration file; docs/configuration.md lists the file's keys."
)]
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
    /// Run the whole node: all four services, each a process of its own that is started again when it dies
    All,
    /// Run the image service alone: it pulls and loads images and keeps their content (image.sock)
    Image,
    /// Run the snapshotter alone: it keeps layers and containers' root file systems on disk (snapshotter.sock)
    Snapshotter,
    /// Run the runtime service alone: containers, their networks and volumes (runtime.sock, berth.sock)
    Runtime,
    /// Run the registry proxy alone: a mirror that fetches from other registries what it is asked for (registry.sock)
    RegistryProxy,
}

/// What every service takes.
#[derive(Debug, Default, ClapArgs)]
pub(crate) struct Shared {
    /// Read the configuration from FILE [default: /etc/berth/config.toml, if there is one]
    #[arg(long, global = true, value_name = "FILE", env = "BERTH_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Keep images, layers and containers in DIR [default: /var/lib/berth]
    #[arg(long, global = true, value_name = "DIR", env = "BERTH_ROOT")]
    pub(crate) root: Option<PathBuf>,
    /// Keep the sockets, and whatever a reboot may clear, in DIR [default: /run/berth]
    #[arg(long, global = true, value_name = "DIR", env = "BERTH_STATE")]
    pub(crate) state: Option<PathBuf>,
    /// Let members of this group use the node, besides root [default: berth]
    #[arg(long, global = true, value_name = "NAME", env = "BERTH_GROUP")]
    pub(crate) group: Option<String>,
    /// Log this much: error, warn, info, debug, trace, or a filter such as berth_image=debug,info [default: info]
    #[arg(long, global = true, value_name = "FILTER", env = "BERTH_LOG")]
    pub(crate) log: Option<String>,
    /// Store layers with overlay2 or vfs [default: overlay2 where it works]
    #[arg(long, global = true, value_name = "NAME", env = "BERTH_STORAGE_DRIVER")]
    pub(crate) storage_driver: Option<String>,
    /// Send traces there, over OTLP/gRPC (http://127.0.0.1:4317)
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
            node.set("snapshotter", "driver", driver, "--storage-driver (BERTH_STORAGE_DRIVER)")?;
        }
        let from = |flag: &str, variable: &str, given: bool, key: &str| match given {
            true => format!("{flag} ({variable})"),
            false => format!("{key} in the configuration"),
        };
        let root = from("--root", "BERTH_ROOT", shared.root.is_some(), "root");
        let state = from("--state", "BERTH_STATE", shared.state.is_some(), "state");
        for (from, directory) in [(&root, &mut node.root), (&state, &mut node.state)] {
            *directory = std::path::absolute(&*directory).map_err(|source| Error::Given {
                from: from.clone(),
                value: directory.display().to_string(),
                why: source.to_string(),
            })?;
        }
        if let Some(why) = directories::conflict(&node) {
            return Err(Error::Given { from: root, value: node.root.display().to_string(), why }.into());
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
    fn directories_that_cannot_be_are_refused_by_the_flags_name() {
        for (root, state, text) in [
            ("/s", "/s", "--root (BERTH_ROOT) = \"/s\" cannot be used: it is the state directory, too"),
            ("/s/root", "/s", "lies in the state directory /s"),
        ] {
            let args = Args::parse_from(["berthd", "all", "--root", root, "--state", state]);
            let error = args.node().unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
    }

    #[test]
    fn a_named_file_must_exist() {
        let args = Args::parse_from(["berthd", "image", "--config", "/does/not/exist"]);
        assert!(args.node().unwrap_err().to_string().contains("/does/not/exist"));
    }
}
