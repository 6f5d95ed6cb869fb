//! How a list is printed: as the command line says, or else as the user has it in Docker's `config.json`.

use crate::{args::Given, credentials};

/// The format of a list; `name` is what it is called in the file, "psFormat". With `-q` the file says nothing.
pub(super) fn list_format(given: &Given, name: &str, quiet: bool) -> Option<String> {
    let said = given.text("format").filter(|format| !format.is_empty());
    match said {
        Some(format) => Some(format.to_owned()),
        None if quiet => None,
        None => credentials::list_format(name),
    }
}
