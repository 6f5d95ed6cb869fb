//! Environment variables and labels: from the command line, from the caller's own environment, from files.

use std::{collections::HashMap, fs};

use crate::outcome::Error;

/// `NAME=value` as it is; `NAME` with the caller's own value; a `NAME` that the caller does not have is `None`, which
/// means nothing.
///
/// # Errors
/// There is no name.
pub(crate) fn variable(text: &str) -> Result<Option<String>, Error> {
    match text.split_once('=') {
        Some(("", _)) | None if text.is_empty() || text.starts_with('=') => {
            Err(Error::Invalid(format!("invalid environment variable: {text}")))
        }
        Some(_) => Ok(Some(text.to_owned())),
        None => Ok(std::env::var(text).ok().map(|value| format!("{text}={value}"))),
    }
}

/// The variables in a file: one a line, `#` begins a comment line, blank lines count for nothing.
///
/// # Errors
/// The file cannot be read, or a line is no variable.
pub(crate) fn from_file(path: &str) -> Result<Vec<String>, Error> {
    let mut all = Vec::new();
    for (number, line) in lines(path)? {
        let name = line.split('=').next().unwrap_or_default();
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(Error::Invalid(format!("{path}:{number}: {name:?} is not the name of a variable")));
        }
        all.extend(variable(&line)?);
    }
    Ok(all)
}

fn lines(path: &str) -> Result<Vec<(usize, String)>, Error> {
    let bytes = fs::read(path).map_err(Error::io(format!("cannot read {path}")))?;
    let text = String::from_utf8(bytes).map_err(|_| Error::Invalid(format!("{path} is not UTF-8")))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let lines = text.lines().enumerate().map(|(n, line)| (n + 1, line.trim_start().to_owned()));
    Ok(lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')).collect())
}

/// Everything of `--env-file` and `--env`; the command line has the last word.
///
/// # Errors
/// See [`variable`] and [`from_file`].
pub(crate) fn all(files: &[&str], given: &[&str]) -> Result<Vec<String>, Error> {
    let mut all = Vec::new();
    for file in files {
        all.extend(from_file(file)?);
    }
    for text in given {
        all.extend(variable(text)?);
    }
    Ok(all)
}

/// Labels of `--label-file` and `--label`.
///
/// # Errors
/// A file cannot be read, or a label has no name.
pub(crate) fn labels(files: &[&str], given: &[&str]) -> Result<HashMap<String, String>, Error> {
    let mut labels = HashMap::new();
    let mut add = |text: &str| {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        if name.is_empty() {
            return Err(Error::Invalid(format!("invalid label {text:?}: it has no name")));
        }
        labels.insert(name.to_owned(), value.to_owned());
        Ok(())
    };
    for file in files {
        for (_, line) in lines(file)? {
            add(&line)?;
        }
    }
    for text in given {
        add(text)?;
    }
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_come_from_everywhere() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "# comment\n\nA=1\n  B=x y \nPATH\nBERTH_TEST_NOT_THERE\n").unwrap();
        let path = std::env::var("PATH").unwrap();
        let all = all(&[file.path().to_str().unwrap()], &["A=2", "C="]).unwrap();
        assert_eq!(all, ["A=1", "B=x y ", &format!("PATH={path}"), "A=2", "C="]);
        assert!(variable("=x").is_err() && variable("").is_err());
        fs::write(file.path(), "a b=1\n").unwrap();
        assert!(from_file(file.path().to_str().unwrap()).unwrap_err().to_string().contains(":1:"));
    }

    #[test]
    fn labels_may_have_no_value() {
        let labels = labels(&[], &["a=b=c", "d"]).unwrap();
        assert_eq!((labels["a"].as_str(), labels["d"].as_str()), ("b=c", ""));
    }
}
