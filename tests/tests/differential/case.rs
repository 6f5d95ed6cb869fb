//! The form of a case file. A line each:
//!
//! - `case: TITLE` begins a case: every case begins with no container, no volume and no image but busybox;
//! - `$ WORDS` is a command line without its first word, split as a shell does; `$(berth WORDS)` in it stands for
//!   the words that such a command prints;
//! - `input: TEXT` below it is a line of its standard input; `sees: TEXT` and `types: TEXT` put it on a terminal, on which is
//!   waited until TEXT is seen, or TEXT and the return key are typed (`^P^Q` are control characters, without return);
//! - `any order` says that the order of the lines of its output has no meaning;
//! - `output differs: WHY`, `error differs: WHY` say that the two engines differ there, and why; `code differs: D B: WHY` that
//!   Docker's exit code is D and ours is B;
//! - `# …` is a remark.

use std::collections::BTreeMap;

/// Command lines that follow each other.
#[derive(Debug, Default)]
pub(crate) struct Case {
    /// What it is about.
    pub(crate) title: String,
    /// Its command lines.
    pub(crate) steps: Vec<Step>,
}

/// One command line.
#[derive(Debug, Default)]
pub(crate) struct Step {
    /// As it stands in the file.
    pub(crate) line: String,
    /// Its standard input.
    pub(crate) input: String,
    /// What happens on its terminal; empty without one.
    pub(crate) terminal: Vec<Act>,
    /// The order of its output's lines has no meaning.
    pub(crate) any_order: bool,
    /// What is known to differ ("output", "error", "code"), and why.
    pub(crate) differs: BTreeMap<&'static str, String>,
    /// Docker's and our exit code, where they are known to differ.
    pub(crate) codes: Option<(i32, i32)>,
}

/// Something that happens on a terminal.
#[derive(Debug)]
pub(crate) enum Act {
    /// It is waited for this text.
    Sees(String),
    /// This is typed.
    Types(String),
}

/// Reads a file.
pub(crate) fn read(text: &str) -> Result<Vec<Case>, String> {
    let mut cases: Vec<Case> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        read_line(&mut cases, line).map_err(|error| format!("line {}: {error}: {line}", number + 1))?;
    }
    Ok(cases)
}

fn read_line(cases: &mut Vec<Case>, line: &str) -> Result<(), String> {
    if line.trim().is_empty() || line.starts_with('#') {
        return Ok(());
    }
    if let Some(title) = line.strip_prefix("case: ") {
        cases.push(Case { title: title.to_owned(), steps: Vec::new() });
        return Ok(());
    }
    let case = cases.last_mut().ok_or("no case has begun")?;
    if let Some(line) = line.strip_prefix("$ ") {
        case.steps.push(Step { line: line.to_owned(), ..Step::default() });
        return Ok(());
    }
    let step = case.steps.last_mut().ok_or("no command line stands before it")?;
    let (word, rest) = line.split_once(": ").unwrap_or((line, ""));
    match word {
        "input" => step.input += &format!("{rest}\n"),
        "sees" => step.terminal.push(Act::Sees(rest.to_owned())),
        "types" => step.terminal.push(Act::Types(keys(rest))),
        "any order" => step.any_order = true,
        "output differs" if !rest.is_empty() => drop(step.differs.insert("output", rest.to_owned())),
        "error differs" if !rest.is_empty() => drop(step.differs.insert("error", rest.to_owned())),
        "code differs" => {
            let (codes, why) = rest.split_once(": ").ok_or("two codes and a reason are needed")?;
            let (docker, berth) = codes.split_once(' ').ok_or("two codes are needed")?;
            let number = |word: &str| word.parse().map_err(|_| "a code is a number");
            step.codes = Some((number(docker)?, number(berth)?));
            step.differs.insert("code", why.to_owned());
        }
        _ => return Err("it is none of the forms".into()),
    }
    Ok(())
}

/// What a keyboard sends for this.
fn keys(text: &str) -> String {
    if !text.starts_with('^') {
        return format!("{text}\r");
    }
    text.split('^').filter_map(|key| key.bytes().next()).map(|key| char::from(key & 0x1f)).collect()
}
