//! What a shim is started with: the flags of shim v2, one dash as Go writes them, and a word that says what to do.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use crate::error::{During as _, Error};

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Hold a container whose runtime service listens already (bundles of ours).
    Serve,
    /// Start a shim that holds one, and print where it listens (containerd).
    Start,
    /// Clean up after a shim that died.
    Delete,
    /// Say which version this is.
    Version,
}

/// The flags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arguments {
    /// Which of the caller's namespaces the container belongs to.
    pub namespace: String,
    /// The container's name.
    pub id: String,
    /// Its bundle.
    pub bundle: PathBuf,
    /// The caller's socket (containerd).
    pub address: String,
    /// A program that publishes events (containerd; TTRPC_ADDRESS is used instead).
    pub publish_binary: String,
    /// Say more.
    pub debug: bool,
}

impl Arguments {
    /// The bundle's true path; without the flag it is the working directory.
    ///
    /// # Errors
    /// There is no such directory.
    pub fn bundle(&self) -> Result<PathBuf, Error> {
        let named = if self.bundle.as_os_str().is_empty() { Path::new(".") } else { &self.bundle };
        std::fs::canonicalize(named).during(|| format!("finding the bundle {}", named.display()))
    }

    /// Reads a command line without the program's name.
    ///
    /// # Errors
    /// An unknown flag, a flag without its value, or a word that says nothing to do.
    pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<(Self, Action), Error> {
        let mut arguments = Self::default();
        let mut action = None;
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            let text = word.to_string_lossy().into_owned();
            let Some(flag) = text.strip_prefix('-') else {
                action = Some(match text.as_str() {
                    "serve" => Action::Serve,
                    "start" => Action::Start,
                    "delete" => Action::Delete,
                    other => return Err(Error::Usage(format!("there is no action {other}"))),
                });
                continue;
            };
            let flag = flag.strip_prefix('-').unwrap_or(flag);
            let (flag, given) = match flag.split_once('=') {
                Some((flag, value)) => (flag, Some(OsString::from(value))),
                None => (flag, None),
            };
            match flag {
                "debug" => arguments.debug = given.is_none_or(|value| value == "true"),
                "v" | "version" => action = Some(Action::Version),
                _ => {
                    let value = given.or_else(|| words.next());
                    let value = value.ok_or_else(|| Error::Usage(format!("-{flag} needs a value")))?;
                    let text = value.to_string_lossy().into_owned();
                    match flag {
                        "namespace" => arguments.namespace = text,
                        "id" => arguments.id = text,
                        "bundle" => arguments.bundle = value.into(),
                        "address" => arguments.address = text,
                        "publish-binary" => arguments.publish_binary = text,
                        other => return Err(Error::Usage(format!("there is no flag -{other}"))),
                    }
                }
            }
        }
        let action = action.ok_or_else(|| Error::Usage("say what to do: serve, start or delete".into()))?;
        if action != Action::Version && arguments.id.is_empty() {
            return Err(Error::Usage("-id is needed".into()));
        }
        Ok((arguments, action))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<(Arguments, Action), Error> {
        Arguments::parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn reads_what_containerd_writes() {
        let line = "-namespace k8s.io -address /run/c.sock -publish-binary /usr/bin/containerd -debug -id x start";
        let (arguments, action) = parse(line).unwrap();
        assert_eq!((arguments.id.as_str(), action, arguments.debug), ("x", Action::Start, true));
        let (arguments, action) = parse("-namespace=berth -id=y -bundle=/b delete").unwrap();
        assert_eq!((arguments.bundle, action), (PathBuf::from("/b"), Action::Delete));
    }

    #[test]
    fn says_what_is_wrong() {
        for (line, words) in
            [("-id", "needs a value"), ("-id x", "what to do"), ("-id x fly", "no action fly"), ("-x 1 serve", "-x")]
        {
            assert!(parse(line).unwrap_err().to_string().contains(words), "{line}");
        }
    }
}
