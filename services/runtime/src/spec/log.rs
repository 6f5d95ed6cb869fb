//! Where a container's output is kept: `--log-driver` and `--log-opt`.

use std::{collections::HashMap, path::Path};

use berth_core::bundle::Log;
use berth_proto::berth::runtime::v1::LogConfig;

use super::Error;

/// What the shim is told about the log. `path` is where it lies if it is a file.
///
/// # Errors
/// There is no such driver, or an option cannot be meant.
pub(crate) fn log(config: Option<&LogConfig>, path: &Path) -> Result<Log, Error> {
    let none = HashMap::new();
    let (driver, options) = config.map_or(("", &none), |config| (&config.driver, &config.options));
    match driver {
        "none" => Ok(Log::None),
        "" | "json-file" => json_file(options, path),
        other => Err(Error::invalid(format!(
            "logger: no log driver named '{other}' is registered; the drivers are json-file and none"
        ))),
    }
}

fn json_file(options: &HashMap<String, String>, path: &Path) -> Result<Log, Error> {
    let (mut max_size, mut max_file) = (0, 1);
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
            // Docker's delivery options; lines are always delivered here, and never lost.
            "mode" if value == "blocking" => {}
            _ => return Err(Error::invalid(format!("unknown log opt '{name}' for json-file log driver"))),
        }
    }
    Ok(Log::JsonFile { path: path.to_string_lossy().into_owned(), max_size, max_file })
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
    use super::*;

    fn of(driver: &str, options: &[(&str, &str)]) -> Result<Log, String> {
        let options = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let config = LogConfig { driver: driver.into(), options };
        log(Some(&config), Path::new("/l")).map_err(|error| error.to_string())
    }

    #[test]
    fn the_drivers() {
        let file = |max_size, max_file| Log::JsonFile { path: "/l".into(), max_size, max_file };
        assert_eq!(log(None, Path::new("/l")).unwrap(), file(0, 1));
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
