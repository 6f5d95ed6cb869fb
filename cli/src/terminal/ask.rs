//! Questions to the person at the terminal. A secret is typed without being shown, and however the question ends, the
//! terminal shows again what is typed.

use std::io::{self, Write as _};

use tokio::sync::mpsc::Receiver;

use super::{
    raw,
    signals::{self, Came},
};
use crate::outcome::Error;

/// Asks for a line; without the spaces around it.
///
/// # Errors
/// Standard input cannot be read, or the person ended it with a signal.
pub(crate) async fn line(prompt: &str) -> Result<String, Error> {
    read(prompt, &mut signals::ending()).await
}

async fn read(prompt: &str, ending: &mut Receiver<Came>) -> Result<String, Error> {
    let mut out = io::stdout();
    out.write_all(prompt.as_bytes())
        .and_then(|()| out.flush())
        .map_err(Error::io("cannot write to standard output"))?;
    let (sender, typed) = tokio::sync::oneshot::channel();
    // A read cannot be called off: the thread ends with the process.
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = io::stdin().read_line(&mut line).map(|_| line);
        let _ = sender.send(read);
    });
    tokio::select! {
        typed = typed => match typed {
            Ok(Ok(line)) => Ok(line.trim().to_owned()),
            Ok(Err(error)) => Err(Error::io("cannot read standard input")(error)),
            Err(_) => Err(Error::Contract("a question was dropped")),
        },
        Some((_, number)) = ending.recv() => {
            raw::restore();
            let _ = writeln!(out);
            Err(Error::Said(128 + u8::try_from(number).unwrap_or(0)))
        }
    }
}

/// Asks for a line that is not shown.
///
/// # Errors
/// As [`line`].
pub(crate) async fn secret(prompt: &str) -> Result<String, Error> {
    // Before anything is changed that a signal would leave so.
    let mut ending = signals::ending();
    raw::hide().map_err(Error::io("cannot keep the terminal from showing what is typed"))?;
    let typed = read(prompt, &mut ending).await;
    raw::restore();
    if typed.is_ok() {
        let _ = writeln!(io::stdout());
    }
    typed
}
