//! Sizes and times as people read them, in Docker's words.

use std::sync::OnceLock;

use jiff::{SignedDuration, Timestamp, tz::TimeZone};

/// "4.04MB": three digits, powers of 1000.
pub(crate) fn size(bytes: u64) -> String {
    let (value, unit) = scaled(bytes as f64, 1000.0, &["B", "kB", "MB", "GB", "TB", "PB"]);
    format!("{}{unit}", significant(value, 3))
}

/// "23.48GiB": four digits, powers of 1024.
pub(crate) fn size_binary(bytes: u64) -> String {
    let (value, unit) = scaled(bytes as f64, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB"]);
    format!("{}{unit}", significant(value, 4))
}

fn scaled<'a>(mut value: f64, step: f64, units: &[&'a str]) -> (f64, &'a str) {
    let mut at = 0;
    while value >= step && at + 1 < units.len() {
        value /= step;
        at += 1;
    }
    (value, units[at])
}

/// Go's `%.Ng` for numbers below 10000.
fn significant(value: f64, digits: usize) -> String {
    let whole = if value < 1.0 { 1 } else { value.log10() as usize + 1 };
    let text = format!("{value:.*}", digits.saturating_sub(whole));
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// "3 minutes"
pub(crate) fn duration(duration: SignedDuration) -> String {
    let seconds = duration.as_secs().max(0);
    let hours = (seconds as f64 / 3600.0).round() as i64;
    match (seconds, seconds / 60, hours) {
        (..1, ..) => "Less than a second".into(),
        (1, ..) => "1 second".into(),
        (2..60, ..) => format!("{seconds} seconds"),
        (_, 1, _) => "About a minute".into(),
        (_, 2..60, _) => format!("{} minutes", seconds / 60),
        (.., ..=1) => "About an hour".into(),
        (.., 2..48) => format!("{hours} hours"),
        (.., 48..336) => format!("{} days", hours / 24),
        (.., 336..1440) => format!("{} weeks", hours / 24 / 7),
        (.., 1440..17520) => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

/// How long ago, without the word "ago"; nothing where it never happened.
pub(crate) fn since(time: &str, now: Timestamp) -> String {
    match time.parse::<Timestamp>() {
        Ok(time) => duration(now.duration_since(time)),
        Err(_) => String::new(),
    }
}

/// "3 minutes ago"; "N/A" where it never happened.
pub(crate) fn ago(time: &str, now: Timestamp) -> String {
    match since(time, now) {
        text if text.is_empty() => "N/A".into(),
        text => text + " ago",
    }
}

/// "2026-11-25 10:00:00 +0100 CET"
pub(crate) fn local(time: &str) -> String {
    match time.parse::<Timestamp>() {
        Ok(time) => {
            let zoned = time.to_zoned(zone().clone());
            zoned.strftime("%Y-%m-%d %H:%M:%S %z %Z").to_string()
        }
        Err(_) => time.to_owned(),
    }
}

/// This machine's time zone. It is read from where it is said, because looking it up by name walks through the directory
/// of all zones, which takes longer than the rest of `ps`.
pub(crate) fn zone() -> &'static TimeZone {
    static ZONE: OnceLock<TimeZone> = OnceLock::new();
    ZONE.get_or_init(|| {
        if std::env::var_os("TZ").is_some_and(|name| !name.is_empty()) {
            return TimeZone::system();
        }
        let read = std::fs::read("/etc/localtime").ok();
        read.and_then(|bytes| TimeZone::tzif("Local", &bytes).ok()).unwrap_or(TimeZone::UTC)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (bytes, text) in
            [(0, "0B"), (999, "999B"), (4_040_000, "4.04MB"), (187_400_000, "187MB"), (1_200_000_000, "1.2GB")]
        {
            assert_eq!(size(bytes), text);
        }
        assert_eq!(size_binary(25_211_904_000), "23.48GiB");
    }

    #[test]
    fn durations() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (180, "3 minutes"),
            (3599, "59 minutes"),
            (3600, "About an hour"),
            (7200, "2 hours"),
            (86_400 * 3, "3 days"),
            (86_400 * 15, "2 weeks"),
            (86_400 * 70, "2 months"),
            (86_400 * 800, "2 years"),
        ] {
            assert_eq!(duration(SignedDuration::from_secs(seconds)), text, "{seconds}");
        }
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        assert_eq!(ago("2025-12-31T23:57:00Z", now), "3 minutes ago");
        assert_eq!(ago("", now), "N/A");
    }
}
