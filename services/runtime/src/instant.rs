//! Moments as the API writes them.

use crate::{
    container::record::Time,
    error::{Error, Result},
};

/// Reads an RFC 3339 time; empty is none.
///
/// # Errors
/// Something else is written there, or a moment before 1970.
pub(crate) fn parse(text: &str, field: &str) -> Result<Option<Time>> {
    if text.is_empty() {
        return Ok(None);
    }
    let parsed = text.parse::<jiff::Timestamp>().ok().and_then(|time| u64::try_from(time.as_nanosecond()).ok());
    match parsed {
        Some(nanoseconds) => Ok(Some(Time(nanoseconds))),
        None => Err(Error::Invalid(format!("{field} {text:?} is not an RFC 3339 time since 1970"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_times_and_refuses_the_rest() {
        assert_eq!(parse("", "since").unwrap(), None);
        assert_eq!(parse("1970-01-01T00:00:01.5Z", "since").unwrap(), Some(Time(1_500_000_000)));
        assert_eq!(parse("1970-01-01T01:00:01+01:00", "since").unwrap(), Some(Time(1_000_000_000)));
        assert!(parse("yesterday", "until").unwrap_err().to_string().contains("until \"yesterday\""));
        assert!(parse("1969-12-31T00:00:00Z", "until").is_err());
    }
}
