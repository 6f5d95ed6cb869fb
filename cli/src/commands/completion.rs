//! `completion`: what a shell needs to complete berth's commands, flags and names.

use super::each::print;
use crate::{
    args::{self, Completes, Entry},
    outcome::Error,
};

pub(crate) const ENTRY: Entry = Entry {
    paths: &["completion"],
    about: "Print the completion script for a shell: bash, zsh or fish",
    usage: "bash|zsh|fish",
    operands: (1, 1),
    completes: Completes::Nothing,
    run: |_, given| {
        Box::pin(async move {
            print(args::script(given.operand()).ok_or_else(|| {
                Error::Invalid(format!(
                    "unsupported shell type {:?}: there are scripts for bash, zsh and fish",
                    given.operand()
                ))
            })?)?;
            Ok(0)
        })
    },
    ..Entry::PLAIN
};
