//! `berth`: a command line over the node's gRPC APIs. It parses, calls and prints; whatever it can do, a program can do
//! over the same socket.

mod args;
mod client;
mod commands;
mod credentials;
mod format;
mod outcome;
mod revival;
mod spec;
mod terminal;
mod trace;

use std::{collections::VecDeque, io::Write as _, process::ExitCode};

use args::{Global, Parsed};
use client::Client;
use outcome::Error;

fn main() -> ExitCode {
    let mut words = VecDeque::new();
    for word in std::env::args_os().skip(1) {
        match word.into_string() {
            Ok(word) => words.push_back(word),
            Err(word) => {
                Error::Invalid(format!("the argument {word:?} is not UTF-8")).print();
                return ExitCode::FAILURE;
            }
        }
    }
    if words.front().is_some_and(|word| word == "__complete") {
        words.pop_front();
        let candidates = trace::command("__complete", || Box::pin(async { Ok(print(&args::complete(words).await)) }));
        return candidates.map_or(ExitCode::FAILURE, ExitCode::from);
    }
    let code = match Global::take(&mut words).and_then(|global| Ok((args::parse(&global, words)?, global))) {
        Ok((Parsed::Print(text), _)) => print(&text),
        Ok((Parsed::Run { entry, path, given }, global)) => {
            let client = Client::new(global.host);
            let answer = trace::command(&path, move || (entry.run)(client, given));
            answer.unwrap_or_else(|error| {
                error.print();
                error.code(Some(entry))
            })
        }
        Err(error) => {
            error.print();
            error.code(None)
        }
    };
    terminal::raw::restore();
    // Not by returning: a thread may stand in a read of standard input that nobody will end.
    std::process::exit(code.into())
}

/// Prints a text; a reader that goes away is no error.
fn print(text: &str) -> u8 {
    let _ = std::io::stdout().write_all(text.as_bytes());
    0
}
