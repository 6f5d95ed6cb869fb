//! Points in time as `logs`, `events` and filters take them: RFC 3339 with or without a zone and a time of day, seconds
//! since 1970, or a duration counted back from now (`10m`, `1h30m`).

use jiff::{SignedDuration, Timestamp, civil::DateTime};

use crate::format::units;

/// The point in time as RFC 3339.
///
/// # Errors
/// It is none of the forms.
pub(crate) fn instant(text: &str) -> Result<String, String> {
    let wrong = || {
        format!(
            "invalid time {text:?}: write a duration (10m, 1h30m), seconds since 1970, or a timestamp (2026-01-02T15:04:05Z)"
        )
    };
    if let Some(ago) = duration(text) {
        return Timestamp::now().checked_sub(ago).map(|time| time.to_string()).map_err(|_| wrong());
    }
    if let Some(time) = unix(text) {
        return time.map(|time| time.to_string()).map_err(|_| wrong());
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time.to_string());
    }
    // Without a zone it is this machine's.
    let full =
        if text.len() == "2006-01-02T15".len() && text.contains('T') { format!("{text}:00") } else { text.into() };
    let local: DateTime = full.parse().map_err(|_| wrong())?;
    local.to_zoned(units::zone().clone()).map(|time| time.timestamp().to_string()).map_err(|_| wrong())
}

fn unix(text: &str) -> Option<Result<Timestamp, jiff::Error>> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !digits(seconds) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let nanoseconds = format!("{fraction:0<9}").parse().ok()?;
    Some(Timestamp::new(seconds.parse().ok()?, nanoseconds))
}

/// Go's durations: numbers with units, one after the other (`1h30m`, `1.5s`, `300ms`).
pub(crate) fn duration(text: &str) -> Option<SignedDuration> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    if rest.is_empty() {
        return None;
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        seconds += number
            * match &rest[..letters] {
                "ns" => 1e-9,
                "us" | "µs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return None,
            };
        rest = &rest[letters..];
    }
    SignedDuration::try_from_secs_f64(if negative { -seconds } else { seconds }).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_count_back_from_now() {
        assert_eq!(duration("1h30m"), Some(SignedDuration::from_mins(90)));
        assert_eq!(duration("1.5s"), Some(SignedDuration::from_millis(1500)));
        assert_eq!(duration("10"), None);
        let before: Timestamp = instant("1h").unwrap().parse().unwrap();
        assert!(before < Timestamp::now());
    }

    #[test]
    fn timestamps() {
        assert_eq!(instant("1700000000").unwrap(), "2023-11-14T22:13:20Z");
        assert_eq!(instant("1700000000.5").unwrap(), "2023-11-14T22:13:20.5Z");
        assert_eq!(instant("2001-01-01T00:00:00Z").unwrap(), "2001-01-01T00:00:00Z");
        assert_eq!(instant("2001-01-01T00:00:00.123456789+02:00").unwrap(), "2000-12-31T22:00:00.123456789Z");
        assert!(instant("2001-01-01T10:11").is_ok() && instant("2001-01-01").is_ok());
        assert!(instant("yesterday").unwrap_err().contains("yesterday"));
    }

    proptest! {
        #[test]
        fn never_panics(text in "[0-9hmsn.TZ:µ+-]{0,30}") {
            let _ = instant(&text);
        }
    }
}
