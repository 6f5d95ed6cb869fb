//! The keys that leave a container running and give the terminal back: `ctrl-p ctrl-q`, or those of `--detach-keys`.

/// What is pressed when nothing else is said.
pub(crate) const DEFAULT: &str = "ctrl-p,ctrl-q";

/// Recognises a sequence of keys in a stream of input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Keys {
    sequence: Vec<u8>,
    matched: usize,
}

impl Keys {
    /// Reads keys as Docker writes them: characters, `ctrl-` and a letter or one of `@[\]^_`, joined by commas; nothing for no
    /// keys at all.
    ///
    /// # Errors
    /// There is no such key.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let key = |name: &str| match (name.as_bytes(), name.strip_prefix("ctrl-").map(str::as_bytes)) {
            (&[byte], _) if byte.is_ascii() => Ok(byte),
            (_, Some(&[byte])) => match byte {
                b'a'..=b'z' => Ok(byte - b'a' + 1),
                b'@' => Ok(0),
                b'[' | b'\\' | b']' | b'^' | b'_' => Ok(byte - b'[' + 27),
                _ => Err(()),
            },
            (b"DEL", _) => Ok(127),
            _ => Err(()),
        };
        let sequence = text.split(',').filter(|_| !text.is_empty()).map(key).collect::<Result<_, ()>>();
        let sequence = sequence.map_err(|()| {
            format!("invalid detach keys ({text}): write characters and ctrl-LETTER, joined by commas (ctrl-p,ctrl-q)")
        })?;
        Ok(Self { sequence, matched: 0 })
    }

    /// Splits input into what is passed on and whether the sequence was completed in it. The beginning of a sequence is held
    /// back until it is known to be none.
    pub(crate) fn filter(&mut self, input: &[u8], passed: &mut Vec<u8>) -> bool {
        for byte in input {
            if self.sequence.is_empty() {
                passed.push(*byte);
                continue;
            }
            if self.sequence[self.matched] != *byte {
                passed.extend_from_slice(&self.sequence[..self.matched]);
                self.matched = 0;
            }
            if self.sequence[self.matched] == *byte {
                self.matched += 1;
                if self.matched == self.sequence.len() {
                    return true;
                }
            } else {
                passed.push(*byte);
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_dockers_names() {
        assert_eq!(Keys::parse(DEFAULT).unwrap().sequence, [16, 17]);
        assert_eq!(Keys::parse("ctrl-@,a,ctrl-[,ctrl-_").unwrap().sequence, [0, b'a', 27, 31]);
        assert!(Keys::parse("").unwrap().sequence.is_empty());
        for wrong in ["ctrl-P", "ctrl-", "ab", "ctrl-p,", "é"] {
            assert!(Keys::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn holds_back_only_what_may_be_the_sequence() {
        let mut keys = Keys::parse(DEFAULT).unwrap();
        let mut passed = Vec::new();
        assert!(!keys.filter(b"a\x10", &mut passed));
        assert_eq!(passed, b"a");
        assert!(!keys.filter(b"b\x10\x10", &mut passed));
        assert_eq!(passed, b"a\x10b\x10");
        assert!(keys.filter(b"\x11rest", &mut passed));
        assert_eq!(passed, b"a\x10b\x10");
    }

    proptest! {
        #[test]
        fn loses_nothing_of_what_is_no_sequence(input in proptest::collection::vec(0u8..16, 0..200)) {
            let mut keys = Keys::parse(DEFAULT).unwrap();
            let mut passed = Vec::new();
            prop_assert!(!keys.filter(&input, &mut passed));
            prop_assert_eq!(passed, input);
        }

        #[test]
        fn parsing_never_panics(text in "\\PC{0,16}") {
            let _ = Keys::parse(&text);
        }
    }
}
