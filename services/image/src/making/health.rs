//! `HEALTHCHECK`: how it is found out that a container is well.

use serde_json::{Map, Value, json};

/// Docker's shortest interval, in nanoseconds.
const SHORTEST: u64 = 1_000_000;

/// Reads what follows `HEALTHCHECK`. `shell` makes a line for the shell known, `list` a list in JSON.
pub(super) fn parse(
    rest: &str,
    mut shell: impl FnMut(&str) -> Result<Value, String>,
    list: impl Fn(&str) -> Result<Option<Vec<String>>, String>,
) -> Result<Value, String> {
    let mut check = Map::new();
    let mut rest = rest.trim();
    while let Some(flag) = rest.strip_prefix("--") {
        let (flag, after) = flag.split_once(char::is_whitespace).unwrap_or((flag, ""));
        rest = after.trim_start();
        let (name, value) = flag.split_once('=').ok_or_else(|| format!("Missing a value on flag: {flag}"))?;
        let key = match name {
            "interval" => "Interval",
            "timeout" => "Timeout",
            "start-period" => "StartPeriod",
            "start-interval" => "StartInterval",
            "retries" => {
                let retries = value.parse::<u32>().ok().filter(|retries| *retries > 0);
                let retries = retries.ok_or_else(|| format!("--retries must be at least 1 (not {value})"))?;
                check.insert("Retries".into(), retries.into());
                continue;
            }
            _ => return Err(format!("Unknown flag: {name}")),
        };
        let nanoseconds = duration(value).ok_or_else(|| format!("invalid duration {value:?} of --{name}"))?;
        if nanoseconds != 0 && nanoseconds < SHORTEST {
            return Err(format!("Interval {value:?} cannot be less than 1ms"));
        }
        if nanoseconds != 0 {
            check.insert(key.into(), nanoseconds.into());
        }
    }
    let (kind, command) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let command = command.trim();
    let test = match kind.to_ascii_uppercase().as_str() {
        "NONE" if command.is_empty() && check.is_empty() => json!(["NONE"]),
        "NONE" => return Err("HEALTHCHECK NONE takes no arguments".into()),
        "CMD" if command.is_empty() => return Err("Missing command after HEALTHCHECK CMD".into()),
        "CMD" => match list(command)? {
            Some(words) => [vec!["CMD".to_owned()], words].concat().into(),
            None => {
                // Said where it looks like a list; the health check itself asks for the shell by its own word.
                shell(command)?;
                json!(["CMD-SHELL", command])
            }
        },
        _ => return Err(format!("Unknown type {kind:?} in HEALTHCHECK (try CMD)")),
    };
    check.insert("Test".into(), test);
    Ok(check.into())
}

/// "1m30s", "1.5s", "300ms" in nanoseconds.
fn duration(text: &str) -> Option<u64> {
    if text == "0" {
        return Some(0);
    }
    let (mut rest, mut total) = (text, 0_f64);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let (unit, scale) =
            [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 6e10), ("h", 3.6e12)]
                .into_iter()
                .find(|(unit, _)| rest.starts_with(unit))?;
        rest = &rest[unit.len()..];
        total += number * scale;
    }
    // A hundred years are long enough.
    (total < 3.2e18).then_some(total as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Value, String> {
        parse(text, |_| Ok(Value::Null), |text| Ok(serde_json::from_str(text).ok()))
    }

    #[test]
    fn all_forms() {
        assert_eq!(parsed("NONE").unwrap(), json!({"Test": ["NONE"]}));
        assert_eq!(parsed("CMD curl -f x").unwrap(), json!({"Test": ["CMD-SHELL", "curl -f x"]}));
        assert_eq!(
            parsed(r#"--interval=1m30s --timeout=1.5s --retries=3 CMD ["a", "b"]"#).unwrap(),
            json!({"Interval": 90_000_000_000_u64, "Timeout": 1_500_000_000_u64, "Retries": 3, "Test": ["CMD", "a", "b"]})
        );
        for wrong in
            ["", "X", "CMD", "NONE x", "--interval CMD x", "--interval=x CMD y", "--retries=0 CMD x", "--x=1 CMD y"]
        {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
        assert_eq!(duration("300ms"), Some(300_000_000));
        assert_eq!((duration("5"), duration("é"), duration("1e9s")), (None, None, None));
    }
}
