//! The same for several names: side by side, told in the order they were given, each as soon as it is done.

use std::{
    future::Future,
    io::{self, Write as _},
};

use futures::{StreamExt as _, stream};

use crate::outcome::Error;

/// How many are under way at once.
const AT_ONCE: usize = 50;

/// Does something for each name and prints what it gives. Errors are printed too, and make the exit code 1.
///
/// # Errors
/// Standard output is gone.
pub(crate) async fn each<F: Future<Output = Result<String, Error>>>(
    names: Vec<String>,
    mut act: impl FnMut(String) -> F,
) -> Result<u8, Error> {
    let mut answers = stream::iter(names).map(&mut act).buffered(AT_ONCE);
    let mut code = 0;
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(text) if text.is_empty() => {}
            Ok(text) => line(&text)?,
            Err(error) => {
                error.print();
                code = 1;
            }
        }
    }
    Ok(code)
}

/// Prints a line to standard output.
///
/// # Errors
/// It is gone.
pub(crate) fn line(text: &str) -> Result<(), Error> {
    print(&format!("{text}\n"))
}

/// Says on standard error what a person should know, though all went well.
pub(crate) fn warn(warnings: &[String]) {
    for warning in warnings {
        let _ = writeln!(io::stderr(), "WARNING: {warning}");
    }
}

/// Prints a text to standard output.
///
/// # Errors
/// It is gone.
pub(crate) fn print(text: &str) -> Result<(), Error> {
    print_bytes(text.as_bytes())
}

/// Prints what need not be text to standard output.
///
/// # Errors
/// It is gone.
pub(crate) fn print_bytes(bytes: &[u8]) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        // As a program that a closed pipe ends.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Error::Said(141)),
        Err(source) => Err(Error::Io { what: "cannot write to standard output".into(), source }),
    }
}
