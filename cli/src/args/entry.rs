//! A command: how it is called, what it takes, what it does.

use std::{future::Future, pin::Pin};

use clap::{Arg, ArgAction, Command};

use super::flag::{Given, OPERANDS};
use crate::{client::Client, outcome::Error};

/// What a command comes to: its exit code.
pub(crate) type Answer = Pin<Box<dyn Future<Output = Result<u8, Error>>>>;

/// A command.
pub(crate) struct Entry {
    /// The words it is called by; the first is the one that is shown.
    pub(crate) paths: &'static [&'static str],
    /// One line about it.
    pub(crate) about: &'static str,
    /// What follows the words.
    pub(crate) usage: &'static str,
    /// Fewest and most operands.
    pub(crate) operands: (usize, usize),
    /// Everything behind this many operands belongs to the program that is run; 0 where flags may stand anywhere.
    pub(crate) ends_at: usize,
    /// Its flags.
    pub(crate) flags: fn() -> Vec<Arg>,
    /// What operands name, for completion.
    pub(crate) completes: Completes,
    /// Exit code where a value cannot be meant, and where the service says no.
    pub(crate) codes: (u8, u8),
    /// What it does.
    pub(crate) run: fn(Client, Given) -> Answer,
}

/// What an operand names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Completes {
    /// Nothing that is known.
    Nothing,
    /// Any container.
    Containers,
    /// A running container.
    Running,
    /// A container that can be started.
    Startable,
    /// A container that is frozen.
    Paused,
    /// An image.
    Images,
    /// Containers and images.
    Both,
}

impl Entry {
    /// A command with no more to it than its operands.
    pub(crate) const PLAIN: Self = Self {
        paths: &[],
        about: "",
        usage: "",
        operands: (0, 0),
        ends_at: 0,
        flags: Vec::new,
        completes: Completes::Nothing,
        codes: (1, 1),
        run: |_, _| Box::pin(async { Ok(0) }),
    };

    /// The parser of this command, called by `path`.
    pub(crate) fn parser(&self, path: &str) -> Command {
        let mut operands = Arg::new(OPERANDS).action(ArgAction::Append).num_args(0..);
        if self.ends_at > 0 {
            operands = operands.trailing_var_arg(true);
        }
        let flags = (self.flags)();
        let mut help = Arg::new("help").long("help").action(ArgAction::SetTrue).hide(true);
        if flags.iter().all(|flag| flag.get_short() != Some('h')) {
            help = help.short('h');
        }
        Command::new(path.to_owned())
            .no_binary_name(true)
            .disable_help_flag(true)
            .disable_version_flag(true)
            .args_override_self(true)
            .args(flags)
            .arg(help)
            .arg(operands)
    }
}
