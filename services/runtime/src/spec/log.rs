//! Where a container's output is kept: `--log-driver` and `--log-opt`.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};

use berth_core::bundle::Log;
use berth_proto::berth::runtime::v1::ContainerSpec;

use super::Error;

/// What the shim is told about the log. `path` is where it lies if it is a file.
///
/// # Errors
/// There is no such driver, or an option cannot be meant.
pub(crate) fn log(spec: &ContainerSpec, path: &Path) -> Result<Log, Error> {
    let none = HashMap::new();
    let (driver, options) = spec.log.as_ref().map_or(("", &none), |config| (&config.driver, &config.options));
    match driver {
        "none" => Ok(Log::None),
        "" | "json-file" => json_file(options, spec, path),
        other => Err(Error::invalid(format!(
            "logger: no log driver named '{other}' is registered; the drivers are json-file and none"
        ))),
    }
}

fn json_file(options: &HashMap<String, String>, spec: &ContainerSpec, path: &Path) -> Result<Log, Error> {
    let (mut max_size, mut max_file) = (0, 1);
    let mut attributes = BTreeMap::new();
    let labels = || spec.labels.iter().map(|(name, value)| (&**name, &**value));
    let variables = || spec.env.iter().filter_map(|variable| variable.split_once('='));
    for (name, value) in options {
        match &**name {
            "max-size" if value == "-1" => {}
            "max-size" => {
                max_size = size(value)
                    .filter(|bytes| *bytes > 0)
                    .ok_or_else(|| Error::invalid(format!("max-size must be a positive number, not {value:?}")))?;
            }
            "max-file" => {
                max_file = value
                    .parse()
                    .ok()
                    .filter(|files| *files > 0)
                    .ok_or_else(|| Error::invalid("max-file cannot be less than 1"))?;
            }
            "labels" => add(&mut attributes, labels(), listed(value)),
            "env" => add(&mut attributes, variables(), listed(value)),
            "labels-regex" => add(&mut attributes, labels(), matching(name, value)?),
            "env-regex" => add(&mut attributes, variables(), matching(name, value)?),
            // Docker's delivery options; lines are always delivered here, and never lost.
            "mode" if value == "blocking" => {}
            _ => return Err(Error::invalid(format!("unknown log opt '{name}' for json-file log driver"))),
        }
    }
    Ok(Log::JsonFile { path: path.to_string_lossy().into_owned(), max_size, max_file, attributes })
}

/// Adds those whose names are wanted.
fn add<'a>(
    to: &mut BTreeMap<String, String>,
    all: impl Iterator<Item = (&'a str, &'a str)>,
    wanted: impl Fn(&str) -> bool,
) {
    to.extend(all.filter(|(name, _)| wanted(name)).map(|(name, value)| (name.to_owned(), value.to_owned())));
}

fn listed(names: &str) -> impl Fn(&str) -> bool {
    move |name| names.split(',').any(|listed| listed == name)
}

fn matching(option: &str, pattern: &str) -> Result<impl Fn(&str) -> bool + use<>, Error> {
    let pattern = regex_lite::Regex::new(pattern)
        .map_err(|error| Error::invalid(format!("the log opt '{option}' is no regular expression: {error}")))?;
    Ok(move |name: &str| pattern.is_match(name))
}

/// "10m", "1.5g", "100kb": thousands, as Docker has it here.
fn size(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match lower[digits.len()..].trim_end_matches('b') {
        "" => 1.0,
        "k" => 1e3,
        "m" => 1e6,
        "g" => 1e9,
        "t" => 1e12,
        _ => return None,
    };
    let number: f64 = digits.trim().parse().ok()?;
    let bytes = number * factor;
    (bytes.is_finite() && (0.0..9e18).contains(&bytes)).then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use berth_proto::berth::runtime::v1::LogConfig;

    use super::*;

    fn of(driver: &str, options: &[(&str, &str)]) -> Result<Log, String> {
        let options = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let spec = ContainerSpec {
            log: Some(LogConfig { driver: driver.into(), options }),
            labels: [("a".to_owned(), "1".to_owned()), ("ab".to_owned(), "2".to_owned())].into(),
            env: vec!["E=x".into(), "GONE".into()],
            ..ContainerSpec::default()
        };
        log(&spec, Path::new("/l")).map_err(|error| error.to_string())
    }

    #[test]
    fn labels_and_variables_that_are_asked_for() {
        let attributes = |options: &[(&str, &str)]| match of("", options).unwrap() {
            Log::JsonFile { attributes, .. } => attributes.into_iter().collect::<Vec<_>>(),
            Log::None => Vec::new(),
        };
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(attributes(&[("labels", "a,none"), ("env", "E,GONE")]), [pair("E", "x"), pair("a", "1")]);
        assert_eq!(attributes(&[("labels-regex", "^a")]), [pair("a", "1"), pair("ab", "2")]);
        assert!(of("", &[("env-regex", "(")]).unwrap_err().contains("no regular expression"));
    }

    #[test]
    fn the_drivers() {
        let file =
            |max_size, max_file| Log::JsonFile { path: "/l".into(), max_size, max_file, attributes: BTreeMap::new() };
        assert_eq!(log(&ContainerSpec::default(), Path::new("/l")).unwrap(), file(0, 1));
        assert_eq!(of("json-file", &[("max-size", "10m"), ("max-file", "3")]).unwrap(), file(10_000_000, 3));
        assert_eq!(of("none", &[]).unwrap(), Log::None);
        assert!(of("syslog", &[]).unwrap_err().contains("no log driver named 'syslog'"));
    }

    #[test]
    fn wrong_options_are_refused() {
        for (name, value) in [("max-size", "x"), ("max-size", "0"), ("max-size", "1e30g"), ("max-file", "0"), ("x", "")]
        {
            assert!(of("", &[(name, value)]).is_err(), "{name}={value}");
        }
        assert_eq!(size("1.5kB"), Some(1500));
        assert_eq!(size("kbé"), None);
    }
}
