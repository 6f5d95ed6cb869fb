//! JSON for people to read, with nothing changed in it.

use serde_json::Value;

/// A document as text.
pub(super) fn pretty(value: &Value) -> String {
    let text = serde_json::to_vec(value).unwrap_or_default();
    String::from_utf8_lossy(&indented(&text)).into_owned()
}

/// JSON with a line for each member, tabs before it, and everything else as it was, order and numbers too.
pub(super) fn indented(json: &[u8]) -> Vec<u8> {
    let (mut out, mut depth, mut quoted, mut escaped) = (Vec::with_capacity(json.len() * 2), 0_usize, false, false);
    let mut open = false;
    let line = |out: &mut Vec<u8>, depth: usize| {
        out.push(b'\n');
        out.extend(std::iter::repeat_n(b'\t', depth));
    };
    for &byte in json {
        if quoted {
            out.push(byte);
            (quoted, escaped) = (escaped || byte != b'"', !escaped && byte == b'\\');
            continue;
        }
        if byte.is_ascii_whitespace() {
            continue;
        }
        let closes = matches!(byte, b'}' | b']');
        if open && !closes {
            line(&mut out, depth);
        }
        if closes {
            depth = depth.saturating_sub(1);
            if !open {
                line(&mut out, depth);
            }
        }
        open = matches!(byte, b'{' | b'[');
        out.push(byte);
        match byte {
            b'{' | b'[' => depth += 1,
            b',' => line(&mut out, depth),
            b':' => out.push(b' '),
            b'"' => quoted = true,
            _ => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_keeps_its_order_and_its_strings() {
        let text = br#"{ "b":1,"a":[ {"x":"{,\"}"} ,[],{}],"n":1.50}"#;
        let expected = "{\n\t\"b\": 1,\n\t\"a\": [\n\t\t{\n\t\t\t\"x\": \"{,\\\"}\"\n\t\t},\n\t\t[],\n\t\t{}\n\t],\n\t\"n\": 1.50\n}";
        assert_eq!(String::from_utf8(indented(text)).unwrap(), expected);
    }
}
