//! Sizes: a number and a unit of powers of 1024 (`64m`, `1g`, `1k`, `1.5GiB`); no unit means bytes.

/// Bytes of a size.
///
/// # Errors
/// It is no size; the message is Docker's.
pub(crate) fn bytes(text: &str) -> Result<i64, String> {
    let wrong = || format!("invalid size: '{text}'");
    let trimmed = text.trim();
    let digits = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(digits);
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let unit = unit.trim_start().to_ascii_lowercase();
    let letter = unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(&unit);
    let power = match letter {
        "" if unit != "ib" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(wrong()),
    };
    let bytes = number * 1024_f64.powi(power);
    // Beyond 2^63 a float no longer says which number was meant.
    if bytes.is_finite() && bytes < 9.2e18 { Ok(bytes as i64) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes() {
        for (text, size) in
            [("1k", 1024), ("64m", 64 << 20), ("1g", 1 << 30), ("7", 7), ("1.5GiB", 3 << 29), ("2 MB", 2 << 20)]
        {
            assert_eq!(bytes(text), Ok(size), "{text}");
        }
        for text in ["", "m", "-1", "1x", "1.2.3", "1ib", "99999999999p"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,12}") {
            let _ = bytes(&text);
        }
    }
}
