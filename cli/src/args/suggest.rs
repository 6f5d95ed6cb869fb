//! What a mistyped command may have meant.

use crate::commands::COMMANDS;

/// The command whose words are at most two edits away.
pub(crate) fn nearest(typed: &str) -> Option<&'static str> {
    let all = COMMANDS.iter().flat_map(|entry| entry.paths.iter().copied());
    let close = all.map(|path| (distance(typed, path), path)).filter(|(edits, _)| *edits <= 2);
    // Of two that are as close, the one of the group that was typed.
    let group = |path: &str| path.split_once(' ').map(|(group, _)| group.to_owned());
    close.min_by_key(|(edits, path)| (*edits, group(path) != group(typed))).map(|(_, path)| path)
}

/// Levenshtein's distance in characters; words this long are not compared.
fn distance(a: &str, b: &str) -> usize {
    if a.len() > 64 {
        return usize::MAX;
    }
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, right) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(left != *right);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_meant() {
        assert_eq!(nearest("sart"), Some("start"));
        assert_eq!(nearest("imagse"), Some("images"));
        assert_eq!(nearest("image sl"), Some("image ls"));
        assert_eq!(nearest("something-else"), None);
    }
}
