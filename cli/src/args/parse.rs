//! Finds the command and reads what was given to it.

use std::collections::VecDeque;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::{Entry, Given, Global, help, suggest};
use crate::{
    commands::{ABSENT, COMMANDS, GROUPS},
    outcome::Error,
};

/// What is to be done.
pub(crate) enum Parsed {
    /// A command is to be run.
    Run {
        /// Which.
        entry: &'static Entry,
        /// The words it was called by.
        path: String,
        /// With what.
        given: Given,
    },
    /// A text is to be printed, and that is all.
    Print(String),
}

/// Reads the words behind the global flags.
///
/// # Errors
/// No such command, or one that was given what it does not take.
pub(crate) fn parse(global: &Global, mut words: VecDeque<String>) -> Result<Parsed, Error> {
    if global.version {
        return Ok(Parsed::Print(format!("Berth version {}\n", env!("CARGO_PKG_VERSION"))));
    }
    if words.front().is_some_and(|word| word == "help") {
        words.pop_front();
        words.push_back("--help".into());
    }
    let Some(first) = words.pop_front().filter(|word| word != "--help" && !global.help) else {
        return Ok(Parsed::Print(help::overview()));
    };
    let mut path = first;
    if let Some((group, about)) = GROUPS.iter().find(|(group, _)| *group == path) {
        match words.pop_front() {
            Some(word) if word != "--help" && word != "-h" => path = format!("{path} {word}"),
            _ => return Ok(Parsed::Print(help::group(group, about))),
        }
    }
    if let Some(entry) = COMMANDS.iter().find(|entry| entry.paths.contains(&path.as_str())) {
        return command(entry, path, words);
    }
    if ABSENT.contains(&path.as_str()) {
        return Err(Error::Absent { command: path });
    }
    Err(Error::UnknownCommand { like: suggest::nearest(&path), command: path })
}

fn command(entry: &'static Entry, path: String, words: VecDeque<String>) -> Result<Parsed, Error> {
    let cluster = words.clone();
    let matches = entry.parser(&path).try_get_matches_from(words);
    let see = || format!("berth {path} --help");
    let given = match matches {
        Ok(matches) => Given(matches),
        Err(error) => return Err(Error::Usage { message: explain(&error, &cluster), see: see() }),
    };
    if given.on("help") {
        return Ok(Parsed::Print(help::command(entry, &path)));
    }
    let (least, most) = entry.operands;
    let count = given.operands().len();
    if count < least || count > most {
        let plural = |n: usize| if n == 1 { "" } else { "s" };
        let wanted = match (least, most) {
            (0, 0) => "accepts no arguments".to_owned(),
            (least, most) if least == most => format!("requires {least} argument{}", plural(least)),
            (1.., 2..usize::MAX) => format!("requires at least {least} and at most {most} arguments"),
            (least, _) if count < least => format!("requires at least {least} argument{}", plural(least)),
            (_, most) => format!("requires at most {most} argument{}", plural(most)),
        };
        return Err(Error::Operands { path: path.clone(), wanted, usage: help::usage(entry, &path) });
    }
    Ok(Parsed::Run { entry, path, given })
}

/// clap's error in Docker's words.
fn explain(error: &clap::Error, words: &VecDeque<String>) -> String {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        _ => String::new(),
    };
    let argument = context(ContextKind::InvalidArg);
    // "--name <string>" and "--rm[=<rm>]" as clap shows them.
    let flag = argument.split([' ', '[', '=']).next().unwrap_or_default().to_owned();
    let value = context(ContextKind::InvalidValue);
    match error.kind() {
        ErrorKind::UnknownArgument => match flag.strip_prefix('-') {
            Some(short) if !short.starts_with('-') => {
                let letter = short.chars().next().unwrap_or_default();
                let within = |word: &&String| word.starts_with('-') && !word.starts_with("--") && word.contains(letter);
                let word = words.iter().find(within).map_or(flag.as_str(), String::as_str);
                format!("unknown shorthand flag: {letter:?} in {word}")
            }
            _ => format!("unknown flag: {flag}"),
        },
        ErrorKind::InvalidValue | ErrorKind::NoEquals | ErrorKind::WrongNumberOfValues if value.is_empty() => {
            format!("flag needs an argument: {flag}")
        }
        ErrorKind::ValueValidation | ErrorKind::InvalidValue => {
            let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
            format!("invalid argument {value:?} for {flag:?} flag: {cause}")
        }
        _ => {
            let text = error.to_string();
            text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(words: &[&str]) -> Result<Given, String> {
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        match parse(&Global::default(), words) {
            Ok(Parsed::Run { given, .. }) => Ok(given),
            Ok(Parsed::Print(_)) => Err("printed".into()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn flags_end_where_the_image_begins() {
        let given = read(&["run", "--rm", "-it", "busybox", "echo", "--rm", "-it", "--", "-x"]).unwrap();
        assert!(given.on("rm") && given.on("interactive") && given.on("tty") && !given.on("detach"));
        assert_eq!(given.operands(), ["busybox", "echo", "--rm", "-it", "--", "-x"]);
        let given = read(&["exec", "-u", "0", "c", "ls", "-l"]).unwrap();
        assert_eq!((given.text("user"), given.operands().len()), (Some("0"), 3));
    }

    #[test]
    fn elsewhere_flags_may_follow_operands() {
        let given = read(&["logs", "web", "-f", "-n", "5"]).unwrap();
        assert!(given.on("follow") && given.text("tail") == Some("5") && given.operand() == "web");
        assert!(read(&["container", "rm", "a", "-f", "b"]).unwrap().on("force"));
    }

    #[test]
    fn values_are_taken_as_docker_takes_them() {
        let given =
            read(&["run", "-e", "A=b c", "--env=B", "--rm=false", "--memory-swap", "-1", "-p8:9", "i"]).unwrap();
        assert_eq!(given.all("env"), ["A=b c", "B"]);
        assert!(!given.on("rm") && given.text("memory-swap") == Some("-1") && given.all("publish") == ["8:9"]);
        assert_eq!(read(&["run", "--name", "a", "--name", "b", "i"]).unwrap().text("name"), Some("b"));
    }

    #[test]
    fn errors_are_dockers() {
        for (words, text) in [
            (&["run", "--no-such-flag", "busybox"][..], "unknown flag: --no-such-flag\nSee 'berth run --help'."),
            (&["run", "-iZ", "busybox"], "unknown shorthand flag: 'Z' in -iZ"),
            (&["run", "--name"], "flag needs an argument: --name"),
            (&["run", "--rm=maybe", "i"], "invalid argument \"maybe\" for \"--rm\" flag"),
            (&["rm"], "'berth rm' requires at least 1 argument"),
            (&["version", "x"], "'berth version' accepts no arguments"),
            (&["build", "x"], "berth build is not there yet"),
            (&["sart"], "unknown command: berth sart"),
        ] {
            let error = read(words).unwrap_err();
            assert!(error.contains(text), "{words:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(words in proptest::collection::vec("(-{0,2}[a-z=:,/0-9.]{0,12}|run|ps|exec|logs|container)", 0..8)) {
            let _ = parse(&Global::default(), words.into());
        }
    }
}
