//! `Range` (RFC 9110, section 14): one range of bytes. Several at once, which no puller asks for, get the whole content,
//! as the RFC allows.

/// What of the content to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Selection {
    All,
    /// From the first to behind the last.
    Part(u64, u64),
    /// There is nothing there.
    Unsatisfiable,
}

/// Reads the header's value, for content of this size.
pub(super) fn select(value: &str, size: u64) -> Selection {
    let Some(range) = value.trim().strip_prefix("bytes=") else { return Selection::All };
    let Some((first, last)) = range.split_once('-') else { return Selection::All };
    let number = |text: &str| -> Option<Option<u64>> {
        match text.trim() {
            "" => Some(None),
            text if text.bytes().all(|byte| byte.is_ascii_digit()) => Some(Some(text.parse().unwrap_or(u64::MAX))),
            _ => None,
        }
    };
    let (Some(first), Some(last)) = (number(first), number(last)) else { return Selection::All };
    let (begin, end) = match (first, last) {
        (None, None) => return Selection::All,
        (None, Some(0)) => return Selection::Unsatisfiable,
        (None, Some(suffix)) => (size.saturating_sub(suffix), size),
        (Some(first), Some(last)) if last < first => return Selection::Unsatisfiable,
        (Some(first), last) => (first, last.map_or(size, |last| last.saturating_add(1).min(size))),
    };
    if begin < end { Selection::Part(begin, end) } else { Selection::Unsatisfiable }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        use Selection::{All, Part, Unsatisfiable};
        for (value, selection) in [
            ("bytes=500-1499", Part(500, 1500)),
            ("bytes=500-", Part(500, 4000)),
            ("bytes=-500", Part(3500, 4000)),
            ("bytes=-5000", Part(0, 4000)),
            ("bytes=2000-5000", Part(2000, 4000)),
            ("bytes=0-0", Part(0, 1)),
            ("bytes=3999-99999999999999999999999", Part(3999, 4000)),
            ("bytes=500-0", Unsatisfiable),
            ("bytes=5000-10000", Unsatisfiable),
            ("bytes=4000-", Unsatisfiable),
            ("bytes=-0", Unsatisfiable),
            ("bytes=0-1,5-6", All),
            ("bytes=a-b", All),
            ("bytes=-", All),
            ("lines=1-2", All),
            ("", All),
        ] {
            assert_eq!(select(value, 4000), selection, "{value}");
        }
        assert_eq!(select("bytes=0-", 0), Unsatisfiable);
    }
}
