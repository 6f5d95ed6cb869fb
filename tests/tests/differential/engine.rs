//! One of the two engines, and the run of a case on it.

use std::process::Command;

use berth_tests::{Node, Terminal, run as finish};

use crate::{
    case::{Act, Case, Step},
    normal::Normal,
};

/// Docker or berth.
pub(crate) trait Engine: Sync {
    /// Its command line.
    fn command(&self, words: &[&str]) -> Command;

    /// Asks for something that every case needs.
    fn ask(&self, words: &[&str]) -> String {
        finish(&mut self.command(words), b"").ok().to_owned()
    }
}

impl Engine for Node {
    fn command(&self, words: &[&str]) -> Command {
        Self::command(self, words)
    }
}

/// What an engine said to a command line, in normal form.
#[derive(Debug)]
pub(crate) struct Told {
    /// Exit code.
    pub(crate) code: i32,
    /// Standard output.
    pub(crate) output: String,
    /// Standard error.
    pub(crate) error: String,
}

/// Runs a case and clears up behind it.
pub(crate) fn run(engine: &dyn Engine, case: &Case) -> Vec<Told> {
    let mut normal = Normal::default();
    let told = case.steps.iter().map(|step| tell(engine, &mut normal, step)).collect();
    clear(engine);
    told
}

fn tell(engine: &dyn Engine, normal: &mut Normal, step: &Step) -> Told {
    let words = words(engine, &step.line);
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let mut command = engine.command(&words);
    if !step.terminal.is_empty() {
        let mut terminal = Terminal::start(&mut command);
        for act in &step.terminal {
            match act {
                Act::Sees(text) => terminal.expect(text),
                Act::Types(text) => terminal.say(text),
            }
        }
        return Told { code: terminal.end(), output: String::new(), error: String::new() };
    }
    let finished = finish(&mut command, step.input.as_bytes());
    let mut output = normal.output(&String::from_utf8_lossy(&finished.stdout));
    if step.any_order {
        let mut lines: Vec<_> = output.lines().collect();
        lines.sort_unstable();
        output = lines.join("\n");
    }
    Told { code: finished.code, output, error: normal.error(&finished.error()) }
}

/// The words of a command line, with what commands in it print in their place.
fn words(engine: &dyn Engine, line: &str) -> Vec<String> {
    let mut rest = line;
    let mut whole = String::new();
    while let Some((before, behind)) = rest.split_once("$(berth ") {
        let (inner, behind) = behind.split_once(')').expect("a parenthesis is closed");
        let printed = engine.ask(&words(engine, inner).iter().map(String::as_str).collect::<Vec<_>>());
        whole = whole + before + &printed.split_whitespace().collect::<Vec<_>>().join(" ");
        rest = behind;
    }
    shlex::split(&(whole + rest)).unwrap_or_else(|| panic!("{line}: a quotation mark is missing"))
}

/// Takes everything away that a case may have left.
fn clear(engine: &dyn Engine) {
    let remove = |list: &[&str], remove: &[&str]| {
        let listed = engine.ask(list);
        let mut names: Vec<_> = listed.split_whitespace().collect();
        names.dedup();
        if !names.is_empty() {
            engine.ask(&[remove, &names[..]].concat());
        }
    };
    remove(&["ps", "-aq"], &["rm", "-f", "-v"]);
    remove(&["volume", "ls", "-q"], &["volume", "rm"]);
    let listed = engine.ask(&["images", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}"]);
    let others = listed.lines().filter(|line| !line.starts_with("busybox:latest "));
    let mut others: Vec<_> = others
        .filter_map(|line| line.split_once(' '))
        .map(|(name, id)| if name.contains("<none>") { id } else { name })
        .collect();
    others.dedup();
    if !others.is_empty() {
        engine.ask(&[&["rmi", "-f"], &others[..]].concat());
    }
    if !listed.lines().any(|line| line.starts_with("busybox:latest ")) {
        engine.ask(&["pull", "-q", "busybox"]);
    }
}
