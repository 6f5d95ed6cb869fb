//! Help texts, laid out as Docker's: usage first, then what it is, then the flags in order of their names.

use std::fmt::Write as _;

use clap::{Arg, ArgAction};

use super::Entry;
use crate::commands::{COMMANDS, COMMON, GROUPS};

/// `berth --help`.
pub(crate) fn overview() -> String {
    let mut text = String::from("\nUsage:  berth [OPTIONS] COMMAND\n\nA container platform for one node\n");
    let top: Vec<_> = COMMANDS.iter().filter(|entry| !entry.paths[0].contains(' ')).collect();
    let find = |name: &&str| top.iter().find(|entry| entry.paths[0] == *name);
    let common = COMMON.iter().filter_map(find).map(|entry| (entry.paths[0], entry.about));
    section(&mut text, "Common Commands", common);
    section(&mut text, "Management Commands", GROUPS.iter().copied());
    let others = top.iter().filter(|entry| !COMMON.contains(&entry.paths[0]));
    section(&mut text, "Commands", others.map(|entry| (entry.paths[0], entry.about)));
    text.push_str(
        "\nGlobal Options:\n  -H, --host string   The node's socket (default unix:///run/berth/berth.sock; also BERTH_HOST)\n  \
         -v, --version       Print version information and quit\n\nRun 'berth COMMAND --help' for more information on a \
         command.\n",
    );
    text
}

/// `berth container --help`.
pub(crate) fn group(group: &str, about: &str) -> String {
    let mut text = format!("\nUsage:  berth {group} COMMAND\n\n{about}\n");
    let mut entries: Vec<_> = COMMANDS
        .iter()
        .filter_map(|entry| {
            let mut split = entry.paths.iter().filter_map(|path| path.split_once(' '));
            split.find(|(first, _)| *first == group).map(|(_, name)| (name, entry.about))
        })
        .collect();
    entries.sort_unstable();
    section(&mut text, "Commands", entries.into_iter());
    let _ = write!(text, "\nRun 'berth {group} COMMAND --help' for more information on a command.\n");
    text
}

fn section<'a>(text: &mut String, title: &str, rows: impl Iterator<Item = (&'a str, &'a str)>) {
    let _ = write!(text, "\n{title}:\n");
    for (name, about) in rows {
        let _ = writeln!(text, "  {name:<11} {about}");
    }
}

/// The usage line and what the command is.
pub(crate) fn usage(entry: &Entry, path: &str) -> String {
    let usage = format!("Usage:  berth {path} {}", entry.usage);
    format!("{}\n\n{}\n", usage.trim_end(), entry.about)
}

/// `berth run --help`.
pub(crate) fn command(entry: &Entry, path: &str) -> String {
    let mut text = format!("\n{}", usage(entry, path));
    if entry.paths.len() > 1 {
        let aliases: Vec<_> = entry.paths.iter().map(|path| format!("berth {path}")).collect();
        let _ = write!(text, "\nAliases:\n  {}\n", aliases.join(", "));
    }
    let mut flags = (entry.flags)();
    flags.retain(|flag| !flag.is_hide_set());
    if flags.is_empty() {
        return text;
    }
    flags.sort_by(|a, b| a.get_long().cmp(&b.get_long()));
    let lines: Vec<_> = flags.iter().map(|flag| (left(flag), flag.get_help().map(ToString::to_string))).collect();
    let width = lines.iter().map(|(left, _)| left.len()).max().unwrap_or_default();
    text.push_str("\nOptions:\n");
    for (left, help) in lines {
        let _ = writeln!(text, "  {left:<width$}   {}", help.unwrap_or_default());
    }
    text
}

/// How a flag is written, with room for a short one before it.
pub(super) fn left(flag: &Arg) -> String {
    let short = flag.get_short().map_or("    ".to_owned(), |short| format!("-{short}, "));
    let long = flag.get_long().unwrap_or_default();
    let switch = matches!(flag.get_action(), ArgAction::SetTrue) || flag.is_require_equals_set();
    let kind = flag.get_value_names().and_then(|names| names.first()).filter(|_| !switch);
    format!("{short}--{long}{}", kind.map(|kind| format!(" {kind}")).unwrap_or_default())
}
