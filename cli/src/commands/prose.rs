//! What is said of each command beyond one line, and examples: `manual/*.md`.

macro_rules! pages {
    ($($name:literal),* $(,)?) => { &[$(($name, include_str!(concat!("../../manual/", $name, ".md")))),*] };
}

/// The words of a command, joined by hyphens, and its prose.
static PAGES: &[(&str, &str)] = pages![
    "attach",
    "commit",
    "completion",
    "container-inspect",
    "container-prune",
    "cp",
    "create",
    "diff",
    "documentation",
    "events",
    "exec",
    "export",
    "history",
    "image-inspect",
    "image-prune",
    "images",
    "import",
    "info",
    "inspect",
    "kill",
    "load",
    "login",
    "logout",
    "logs",
    "manifest-annotate",
    "manifest-create",
    "manifest-inspect",
    "manifest-push",
    "manifest-rm",
    "network-connect",
    "network-create",
    "network-disconnect",
    "network-inspect",
    "network-ls",
    "network-prune",
    "network-rm",
    "pause",
    "port",
    "ps",
    "pull",
    "push",
    "rename",
    "restart",
    "rm",
    "rmi",
    "run",
    "save",
    "search",
    "start",
    "stats",
    "stop",
    "system-df",
    "system-prune",
    "tag",
    "top",
    "unpause",
    "update",
    "version",
    "volume-create",
    "volume-inspect",
    "volume-ls",
    "volume-prune",
    "volume-rm",
    "wait",
    "why",
];

/// The prose of a command, by its words joined by hyphens: paragraphs, and examples that are indented by four blanks. Empty
/// where there is none.
pub(crate) fn of(name: &str) -> &'static str {
    PAGES.iter().find(|(page, _)| *page == name).map_or("", |(_, text)| text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::COMMANDS;

    #[test]
    fn every_command_has_a_page_and_every_page_a_command() {
        let mut names: Vec<_> = COMMANDS.iter().map(|entry| entry.paths[0].replace(' ', "-")).collect();
        names.sort_unstable();
        assert_eq!(names, PAGES.iter().map(|(name, _)| *name).collect::<Vec<_>>());
        for (name, text) in PAGES {
            assert!(text.contains("\n    berth ") || text.contains("    berth "), "{name} has an example");
        }
    }
}
