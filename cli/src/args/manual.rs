//! A page for each command, from what `--help` knows of it and from the prose in `manual/`: as Markdown, and as a manual
//! page in the words of man(7).

use std::fmt::Write as _;

use clap::Arg;
use roff::{Roff, bold, roman};

use super::{Entry, help};
use crate::commands::prose;

/// A page.
#[derive(Debug)]
pub(crate) struct Page {
    /// Name of the file, without what it ends with: the command's words, joined by hyphens.
    pub(crate) name: String,
    /// As Markdown.
    pub(crate) markdown: String,
    /// As a manual page.
    pub(crate) roff: String,
}

/// The page of a command.
pub(crate) fn page(entry: &Entry) -> Page {
    let path = entry.paths[0];
    let name = path.replace(' ', "-");
    let mut flags = (entry.flags)();
    flags.retain(|flag| !flag.is_hide_set());
    flags.sort_by(|a, b| a.get_long().cmp(&b.get_long()));
    let prose = prose::of(&name);
    Page { markdown: markdown(entry, prose, &flags), roff: roff(entry, prose, &flags), name }
}

/// The other words that a command is called by.
fn aliases(entry: &Entry) -> String {
    entry.paths[1..].iter().map(|path| format!("berth {path}")).collect::<Vec<_>>().join(", ")
}

fn synopsis(entry: &Entry) -> String {
    format!("berth {} {}", entry.paths[0], entry.usage).trim_end().to_owned()
}

fn markdown(entry: &Entry, prose: &str, flags: &[Arg]) -> String {
    let indented = synopsis(entry).lines().map(|line| format!("    {}\n", line.trim_start())).collect::<String>();
    let mut text = format!("# berth {}\n\n{}.\n\n{indented}", entry.paths[0], entry.about);
    if entry.paths.len() > 1 {
        let _ = write!(text, "\nThe same: `{}`.\n", aliases(entry).replace(", ", "`, `"));
    }
    let _ = write!(text, "\n{prose}");
    if !flags.is_empty() {
        text.push_str("\n## Options\n\n| option | meaning |\n|---|---|\n");
        for flag in flags {
            let help = flag.get_help().map(ToString::to_string).unwrap_or_default();
            let _ = writeln!(text, "| `{}` | {} |", help::left(flag).trim_start(), help.replace('|', "\\|"));
        }
    }
    text
}

fn roff(entry: &Entry, prose: &str, flags: &[Arg]) -> String {
    let mut page = Roff::new();
    let title = format!("berth-{}", entry.paths[0].replace(' ', "-"));
    page.control("TH", [title.to_uppercase().as_str(), "1", "", "berth"]);
    page.control("SH", ["NAME"]);
    page.text([roman(format!("{title} - {}", entry.about))]);
    page.control("SH", ["SYNOPSIS"]);
    lines(&mut page, &synopsis(entry));
    if entry.paths.len() > 1 {
        page.control("PP", []);
        page.text([roman(format!("The same: {}.", aliases(entry)))]);
    }
    page.control("SH", ["DESCRIPTION"]);
    for paragraph in prose.trim_end().split("\n\n") {
        page.control("PP", []);
        if paragraph.starts_with("    ") {
            lines(&mut page, paragraph);
        } else {
            page.text(words(&paragraph.replace('\n', " ")));
        }
    }
    if !flags.is_empty() {
        page.control("SH", ["OPTIONS"]);
    }
    for flag in flags {
        page.control("TP", []);
        page.text([bold(help::left(flag).trim_start())]);
        page.text([roman(flag.get_help().map(ToString::to_string).unwrap_or_default())]);
    }
    page.render()
}

/// Lines as they stand, set off from the text.
fn lines(page: &mut Roff, text: &str) {
    page.control("RS", ["4"]).control("nf", []);
    for line in text.lines() {
        page.text([roman(line.trim_start())]);
    }
    page.control("fi", []).control("RE", []);
}

/// Running text; what stands between grave accents is bold.
fn words(text: &str) -> Vec<roff::Inline> {
    let parts = text.split('`').enumerate().filter(|(_, part)| !part.is_empty());
    parts.map(|(n, part)| if n % 2 == 0 { roman(part) } else { bold(part) }).collect()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::*;
    use crate::commands::COMMANDS;

    #[test]
    fn the_pages_in_the_documentation_are_those_of_the_commands() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/commands");
        let mut names = BTreeSet::new();
        for page in COMMANDS.iter().map(page) {
            let there = fs::read_to_string(directory.join(format!("{}.md", page.name))).unwrap_or_default();
            assert!(there == page.markdown, "docs/commands/{}.md is out of date: make docs", page.name);
            names.insert(format!("{}.md", page.name));
        }
        let there = fs::read_dir(&directory).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
        assert_eq!(there.collect::<BTreeSet<_>>(), names, "docs/commands has a page for each command: make docs");
    }

    #[test]
    fn nothing_in_a_manual_page_is_taken_for_a_request() {
        for page in COMMANDS.iter().map(page) {
            for line in page.roff.lines().filter(|line| line.starts_with(['.', '\''])) {
                let request = line[1..].split(' ').next().unwrap_or_default();
                assert!(["TH", "SH", "PP", "TP", "RS", "RE", "nf", "fi", "ie", "el"].contains(&request), "{line}");
            }
        }
    }
}
