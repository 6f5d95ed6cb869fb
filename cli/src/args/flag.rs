//! Flags, written as Docker's are: a switch may be said to be false (`--rm=false`), a value may begin with a hyphen, the
//! last word counts where one flag is given twice, and a list grows with each.

use clap::{Arg, ArgAction, ArgMatches};

/// `--name`, on or off.
pub(crate) fn switch(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .help(help)
        .action(ArgAction::Set)
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("true")
        .value_parser(boolean)
}

/// `--name VALUE`; `kind` stands for the value in the help.
pub(crate) fn value(name: &'static str, kind: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).help(help).value_name(kind).action(ArgAction::Set).allow_hyphen_values(true)
}

/// `--name VALUE`, as often as one likes.
pub(crate) fn list(name: &'static str, kind: &'static str, help: &'static str) -> Arg {
    let arg = value(name, kind, help).action(ArgAction::Append);
    if kind == "filter" { arg.value_parser(filter) } else { arg }
}

/// A filter is a name and a value; names are written as one likes.
fn filter(text: &str) -> Result<String, String> {
    let (name, value) = text.split_once('=').ok_or("bad format of filter (expected name=value)")?;
    Ok(format!("{}={value}", name.trim().to_lowercase()))
}

/// What Go's `strconv.ParseBool` takes for a boolean.
fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("{text:?} is neither true nor false")),
    }
}

/// What was given on a command line. A flag that the command does not have counts as not given.
#[derive(Clone, Debug)]
pub(crate) struct Given(pub(crate) ArgMatches);

impl Given {
    /// Whether a switch is on.
    pub(crate) fn on(&self, name: &str) -> bool {
        self.0.try_get_one::<bool>(name).ok().flatten().copied().unwrap_or(false)
    }

    /// Whether a switch is on, where its default is on.
    pub(crate) fn on_unless_denied(&self, name: &str) -> bool {
        self.0.try_get_one::<bool>(name).ok().flatten().copied().unwrap_or(true)
    }

    /// A flag's value.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.try_get_one::<String>(name).ok().flatten().map(String::as_str)
    }

    /// A flag's value, empty where it was not given.
    pub(crate) fn text_or_empty(&self, name: &str) -> String {
        self.text(name).unwrap_or_default().to_owned()
    }

    /// All values of a flag, in order.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.0
            .try_get_many::<String>(name)
            .ok()
            .flatten()
            .map(|all| all.map(String::as_str).collect())
            .unwrap_or_default()
    }

    /// All values of a flag, in order, owned.
    pub(crate) fn owned(&self, name: &str) -> Vec<String> {
        self.all(name).into_iter().map(str::to_owned).collect()
    }

    /// Whether the flag stands on the command line.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.try_contains_id(name).unwrap_or(false)
    }

    /// What is no flag.
    pub(crate) fn operands(&self) -> Vec<String> {
        self.owned(OPERANDS)
    }

    /// What is no flag, when there is exactly one or the first counts.
    pub(crate) fn operand(&self) -> &str {
        self.all(OPERANDS).first().copied().unwrap_or_default()
    }
}

/// The identifier under which a command's operands are kept.
pub(crate) const OPERANDS: &str = "operands";
