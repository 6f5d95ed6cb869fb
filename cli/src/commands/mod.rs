//! The commands: a table of them, and one file for each or for a family.

mod attach;
mod commit;
mod completion;
mod cp;
mod create;
mod destination;
mod df;
mod diff;
mod documentation;
mod each;
mod events;
mod exec;
mod export;
mod foreground;
mod history;
mod images;
mod import;
mod info;
mod inspect;
mod lifecycle;
mod list_format;
mod load;
mod login;
mod logs;
mod manifest;
mod network;
mod port;
mod progress;
pub(crate) mod prose;
mod prune;
mod ps;
mod pull;
mod push;
mod rm;
mod rmi;
mod run;
mod save;
mod search;
mod start;
mod stats;
mod tag;
mod top;
mod update;
mod upload;
mod version;
mod volume;
mod wait;
mod why;

use crate::args::Entry;

/// All commands, in the order of their names.
pub(crate) static COMMANDS: &[Entry] = &[
    attach::ENTRY,
    commit::ENTRY,
    completion::ENTRY,
    cp::ENTRY,
    create::ENTRY,
    diff::ENTRY,
    df::ENTRY,
    documentation::ENTRY,
    events::ENTRY,
    exec::ENTRY,
    export::ENTRY,
    history::ENTRY,
    images::ENTRY,
    import::ENTRY,
    info::ENTRY,
    inspect::ENTRY,
    inspect::CONTAINER,
    inspect::IMAGE,
    lifecycle::KILL,
    load::ENTRY,
    login::ENTRY,
    login::LOGOUT,
    logs::ENTRY,
    manifest::ANNOTATE,
    manifest::CREATE,
    manifest::INSPECT,
    manifest::PUSH,
    manifest::REMOVE,
    network::CONNECT,
    network::CREATE,
    network::DISCONNECT,
    network::INSPECT,
    network::LIST,
    network::PRUNE,
    network::REMOVE,
    lifecycle::PAUSE,
    port::ENTRY,
    prune::CONTAINERS,
    prune::IMAGES,
    prune::SYSTEM,
    ps::ENTRY,
    pull::ENTRY,
    push::ENTRY,
    lifecycle::RENAME,
    lifecycle::RESTART,
    rm::ENTRY,
    rmi::ENTRY,
    run::ENTRY,
    save::ENTRY,
    search::ENTRY,
    start::ENTRY,
    stats::ENTRY,
    lifecycle::STOP,
    tag::ENTRY,
    top::ENTRY,
    lifecycle::UNPAUSE,
    update::ENTRY,
    version::ENTRY,
    volume::CREATE,
    volume::LIST,
    inspect::VOLUME,
    volume::REMOVE,
    volume::PRUNE,
    wait::ENTRY,
    why::ENTRY,
];

/// What most people need first.
pub(crate) const COMMON: &[&str] = &["run", "exec", "ps", "pull", "images", "version", "info"];

/// Commands that hold others.
pub(crate) const GROUPS: &[(&str, &str)] = &[
    ("container", "Manage containers"),
    ("image", "Manage images"),
    ("manifest", "Manage manifests and manifest lists"),
    ("network", "Manage networks"),
    ("system", "Manage the node"),
    ("volume", "Manage volumes"),
];

/// Docker's commands that this version has no service for: they are known, so that the answer can say so.
pub(crate) const ABSENT: &[&str] = &[
    "build",
    "builder",
    "buildx",
    "compose",
    "context",
    "plugin",
    "swarm",
    "service",
    "stack",
    "secret",
    "config",
    "node",
    "trust",
    "checkpoint",
    "image build",
    "system dial-stdio",
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_path_is_there_once_and_every_parser_can_be_built() {
        let mut seen = BTreeSet::new();
        for entry in COMMANDS {
            for path in entry.paths {
                assert!(seen.insert(*path), "{path} twice");
                assert!(!ABSENT.contains(path), "{path} is there and not there");
                entry.parser(path).debug_assert();
                if let Some((group, _)) = path.split_once(' ') {
                    assert!(GROUPS.iter().any(|(name, _)| *name == group), "{path}");
                }
            }
            assert!(!entry.about.is_empty());
        }
        for command in COMMON {
            assert!(seen.contains(command), "{command}");
        }
    }
}
