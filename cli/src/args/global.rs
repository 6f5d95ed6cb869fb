//! What stands before the command: which node to talk to.

use crate::{client::Host, outcome::Error};

/// The global flags.
#[derive(Debug, Default)]
pub(crate) struct Global {
    /// `--host`, else `BERTH_HOST`, else the default.
    pub(crate) host: Host,
    /// `--help` without a command.
    pub(crate) help: bool,
    /// `--version`.
    pub(crate) version: bool,
}

impl Global {
    /// Takes the global flags off the front of the words.
    ///
    /// # Errors
    /// A flag that is none of them, or a host that cannot be used.
    pub(crate) fn take(words: &mut std::collections::VecDeque<String>) -> Result<Self, Error> {
        let mut global = Self::default();
        let mut host = std::env::var("BERTH_HOST").ok().filter(|host| !host.is_empty());
        while let Some(word) = words.front().filter(|word| word.len() > 1 && word.starts_with('-')).cloned() {
            words.pop_front();
            let (flag, attached) = match word.split_once('=') {
                Some((flag, value)) => (flag.to_owned(), Some(value.to_owned())),
                None if word.starts_with("-H") && word.len() > 2 => ("-H".to_owned(), Some(word[2..].to_owned())),
                None => (word, None),
            };
            match flag.as_str() {
                "--host" | "-H" => {
                    let value = attached.or_else(|| words.pop_front());
                    host = Some(value.ok_or_else(|| usage(&format!("flag needs an argument: {flag}")))?);
                }
                "--help" | "-h" => global.help = true,
                "--version" | "-v" => global.version = true,
                "--" => break,
                _ => return Err(usage(&format!("unknown flag: {flag}"))),
            }
        }
        if let Some(host) = host {
            global.host = host.parse()?;
        }
        Ok(global)
    }
}

fn usage(message: &str) -> Error {
    Error::Usage { message: message.to_owned(), see: "berth --help".to_owned() }
}
