//! Signals as people write them: "TERM", "SIGTERM", "15", "RTMIN+3".

use std::str::FromStr as _;

use nix::sys::signal::Signal;

use crate::error::{Error, Result};

/// The real-time signals that a C library leaves to programs.
const RT_MIN: u32 = 34;
const RT_MAX: u32 = 64;

/// KILL.
pub(crate) const KILL: u32 = libc::SIGKILL as u32;

/// Number of a signal.
///
/// # Errors
/// There is no such signal.
pub(crate) fn parse(text: &str) -> Result<u32> {
    let unknown = || Error::Invalid(format!("invalid signal: {text}"));
    if let Ok(number) = text.parse::<u32>() {
        return if (1..=RT_MAX).contains(&number) { Ok(number) } else { Err(unknown()) };
    }
    let upper = text.to_ascii_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |rest: &str| rest.parse::<u32>().ok();
    let real_time = match (bare.strip_prefix("RTMIN"), bare.strip_prefix("RTMAX")) {
        (Some(""), _) => Some(RT_MIN),
        (_, Some("")) => Some(RT_MAX),
        (Some(rest), _) => rest.strip_prefix('+').and_then(offset).and_then(|n| RT_MIN.checked_add(n)),
        (_, Some(rest)) => rest.strip_prefix('-').and_then(offset).and_then(|n| RT_MAX.checked_sub(n)),
        _ => None,
    };
    if let Some(number) = real_time {
        return if (RT_MIN..=RT_MAX).contains(&number) { Ok(number) } else { Err(unknown()) };
    }
    Signal::from_str(&format!("SIG{bare}")).map(|signal| signal as u32).map_err(|_| unknown())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_spelling() {
        for (text, number) in [
            ("TERM", 15),
            ("sigterm", 15),
            ("9", 9),
            ("SIGQUIT", 3),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
        ] {
            assert_eq!(parse(text).unwrap(), number, "{text}");
        }
        for text in ["", "0", "65", "-1", "NOPE", "RTMIN+31", "RTMIN-1", "RTMAX-99999999999"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
