//! Times as the log writes them: RFC 3339 with nanoseconds, UTC.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Length of a time's text.
const LENGTH: usize = "2006-01-02T15:04:05.000000000Z".len();

/// Nanoseconds since 1970.
pub(crate) fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_nanos() as u64
}

/// Formats times; the second is kept, because most lines come many in one.
#[derive(Debug)]
pub(crate) struct Stamp {
    second: u64,
    text: [u8; LENGTH],
}

impl Default for Stamp {
    fn default() -> Self {
        Self { second: u64::MAX, text: *b"1970-01-01T00:00:00.000000000Z" }
    }
}

impl Stamp {
    /// The text of a time in nanoseconds since 1970.
    pub(crate) fn format(&mut self, ns: u64) -> &[u8] {
        let second = ns / 1_000_000_000;
        if second != self.second {
            self.second = second;
            let (year, month, day) = date(second / 86_400);
            digits(&mut self.text[0..4], year);
            digits(&mut self.text[5..7], month);
            digits(&mut self.text[8..10], day);
            digits(&mut self.text[11..13], second / 3600 % 24);
            digits(&mut self.text[14..16], second / 60 % 60);
            digits(&mut self.text[17..19], second % 60);
        }
        digits(&mut self.text[20..29], ns % 1_000_000_000);
        &self.text
    }
}

fn digits(text: &mut [u8], mut number: u64) {
    for digit in text.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// Year, month and day of a day since 1970, in the Gregorian calendar: counted in eras of 400 years that begin in March,
/// so that the day a leap year adds is the last of its year.
fn date(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (in_month, month) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    (era * 400 + year + u64::from(month <= 2), month, in_month)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_times() {
        let mut stamp = Stamp::default();
        let mut text = |ns| String::from_utf8(stamp.format(ns).to_vec()).unwrap();
        assert_eq!(text(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(text(1_709_164_799_000_000_001), "2024-02-28T23:59:59.000000001Z");
        assert_eq!(text(1_709_164_800_120_000_000), "2024-02-29T00:00:00.120000000Z");
        assert_eq!(text(1_709_251_200_000_000_000), "2024-03-01T00:00:00.000000000Z");
        assert_eq!(text(4_107_542_400_000_000_000), "2100-03-01T00:00:00.000000000Z");
        assert_eq!(text(1_735_689_599_999_999_999), "2024-12-31T23:59:59.999999999Z");
    }
}
