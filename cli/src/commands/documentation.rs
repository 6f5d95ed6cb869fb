//! `documentation`: the pages about all commands, for packages and for `docs/`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::Arg;

use super::COMMANDS;
use crate::{
    args::{Entry, Given, flag::value, page},
    outcome::Error,
};

pub(crate) const ENTRY: Entry = Entry {
    paths: &["documentation"],
    about: "Write a page about each command, as Markdown or as manual pages",
    usage: "[OPTIONS]",
    flags,
    run: |_, given| Box::pin(async move { documentation(&given) }),
    ..Entry::PLAIN
};

fn flags() -> Vec<Arg> {
    vec![
        value("man", "directory", "Write manual pages into this directory (berth-run.1)"),
        value("markdown", "directory", "Write Markdown into this directory (run.md)"),
    ]
}

fn documentation(given: &Given) -> Result<u8, Error> {
    let directory = |flag| given.text(flag).map(PathBuf::from);
    let (man, markdown) = (directory("man"), directory("markdown"));
    if man.is_none() && markdown.is_none() {
        return Err(Error::Invalid("nothing to write: give --man DIRECTORY or --markdown DIRECTORY".into()));
    }
    for page in COMMANDS.iter().map(page) {
        if let Some(directory) = &man {
            write(&directory.join(format!("berth-{}.1", page.name)), &page.roff)?;
        }
        if let Some(directory) = &markdown {
            write(&directory.join(format!("{}.md", page.name)), &page.markdown)?;
        }
    }
    Ok(0)
}

fn write(file: &Path, text: &str) -> Result<(), Error> {
    fs::write(file, text).map_err(Error::io(format!("cannot write {}", file.display())))
}
