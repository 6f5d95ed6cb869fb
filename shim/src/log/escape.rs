//! Bytes as the inside of a JSON string.

/// What must not stand in a JSON string as it is; the rest, by the kilobyte, is copied.
const SPECIAL: [bool; 256] = {
    let mut special = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        special[byte] = byte < 0x20 || byte == b'"' as usize || byte == b'\\' as usize || byte >= 0x7f;
        byte += 1;
    }
    special
};

/// Appends `bytes`, escaped. Each byte that is no part of UTF-8 becomes U+FFFD.
pub(crate) fn escape(bytes: &[u8], out: &mut Vec<u8>) {
    let mut rest = bytes;
    loop {
        let plain = plain_prefix(rest);
        out.extend_from_slice(&rest[..plain]);
        rest = &rest[plain..];
        let Some(&first) = rest.first() else { return };
        let length = match first {
            b'"' => simple(out, b"\\\""),
            b'\\' => simple(out, b"\\\\"),
            b'\n' => simple(out, b"\\n"),
            b'\r' => simple(out, b"\\r"),
            b'\t' => simple(out, b"\\t"),
            0..0x20 | 0x7f => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                let code = [b'\\', b'u', b'0', b'0', HEX[usize::from(first >> 4)], HEX[usize::from(first & 15)]];
                simple(out, &code)
            }
            _ => match character(rest) {
                0 => simple(out, "\u{fffd}".as_bytes()),
                // Some readers take these two for the ends of lines.
                3 if rest.starts_with("\u{2028}".as_bytes()) => {
                    out.extend_from_slice(b"\\u2028");
                    3
                }
                3 if rest.starts_with("\u{2029}".as_bytes()) => {
                    out.extend_from_slice(b"\\u2029");
                    3
                }
                length => {
                    out.extend_from_slice(&rest[..length]);
                    length
                }
            },
        };
        rest = &rest[length..];
    }
}

fn simple(out: &mut Vec<u8>, text: &[u8]) -> usize {
    out.extend_from_slice(text);
    1
}

/// How many bytes from the start may stand as they are: eight at a time, then one by one.
fn plain_prefix(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = ONES * 0x80;
    // Has a byte below `n`? The classic trick, exact as long as no byte's own high bit is set, which is looked at too.
    let below = |word: u64, n: u64| word.wrapping_sub(ONES * n) & !word & HIGH;
    let mut at = 0;
    while let Some(eight) = bytes.get(at..at + 8) {
        let word = u64::from_le_bytes([eight[0], eight[1], eight[2], eight[3], eight[4], eight[5], eight[6], eight[7]]);
        let quote = word ^ (ONES * u64::from(b'"'));
        let backslash = word ^ (ONES * u64::from(b'\\'));
        let delete = word ^ (ONES * 0x7f);
        let found = (word & HIGH) | below(word, 0x20) | below(quote, 1) | below(backslash, 1) | below(delete, 1);
        if found != 0 {
            break;
        }
        at += 8;
    }
    at + bytes[at..].iter().position(|byte| SPECIAL[usize::from(*byte)]).unwrap_or(bytes.len() - at)
}

/// Length of the UTF-8 character at the start, 0 where there is none.
pub(crate) fn character(bytes: &[u8]) -> usize {
    let within = |at: usize, low: u8, high: u8| bytes.get(at).is_some_and(|byte| (low..=high).contains(byte));
    let next = |at| within(at, 0x80, 0xbf);
    match bytes.first() {
        Some(0..=0x7f) => 1,
        Some(0xc2..=0xdf) if next(1) => 2,
        Some(0xe0) if within(1, 0xa0, 0xbf) && next(2) => 3,
        Some(0xed) if within(1, 0x80, 0x9f) && next(2) => 3,
        Some(0xe1..=0xec | 0xee..=0xef) if next(1) && next(2) => 3,
        Some(0xf0) if within(1, 0x90, 0xbf) && next(2) && next(3) => 4,
        Some(0xf4) if within(1, 0x80, 0x8f) && next(2) && next(3) => 4,
        Some(0xf1..=0xf3) if next(1) && next(2) && next(3) => 4,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(bytes: &[u8]) -> String {
        let mut out = vec![b'"'];
        escape(bytes, &mut out);
        out.push(b'"');
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn reads_back_as_it_was() {
        let all: String = (0u32..0x3000).chain(0xfff0..0x1_0100).filter_map(char::from_u32).collect();
        for shift in 0..9 {
            let text = format!("{}{all}", "x".repeat(shift));
            assert_eq!(serde_json::from_str::<String>(&escaped(text.as_bytes())).unwrap(), text);
        }
    }

    #[test]
    fn what_is_no_utf8_is_replaced_byte_by_byte() {
        assert_eq!(escaped(b"a\xff\xc3(\xe2\x82"), "\"a\u{fffd}\u{fffd}(\u{fffd}\u{fffd}\"");
        assert_eq!(escaped(b"\xed\xa0\x80\xc0\x80\xf5"), format!("\"{}\"", "\u{fffd}".repeat(6)));
        assert_eq!(escaped("\u{2028}\0\u{7f}".as_bytes()), r#""\u2028\u0000\u007f""#);
    }
}
