//! Names and ids: which are valid, and inventing them.

use rand::{Rng as _, seq::IndexedRandom as _};

use crate::error::{Error, Result};

const MOODS: &[&str] = &[
    "able", "bold", "brave", "bright", "brisk", "calm", "candid", "clever", "cosy", "curious", "dapper", "eager",
    "early", "fair", "fleet", "fond", "gentle", "glad", "grand", "handy", "happy", "honest", "jolly", "keen", "kind",
    "lively", "lucid", "lucky", "merry", "mild", "modest", "neat", "nimble", "noble", "patient", "plain", "polite",
    "proud", "quick", "quiet", "ready", "serene", "sharp", "silent", "sleek", "sober", "spry", "steady", "sunny",
    "swift", "tender", "tidy", "trim", "upbeat", "vivid", "warm", "wise", "witty", "young", "zesty",
];
const THINGS: &[&str] = &[
    "anchor",
    "barge",
    "beacon",
    "bollard",
    "bosun",
    "bow",
    "breeze",
    "brig",
    "buoy",
    "canoe",
    "captain",
    "caravel",
    "chart",
    "clipper",
    "coast",
    "compass",
    "coral",
    "cove",
    "crane",
    "crew",
    "current",
    "cutter",
    "deck",
    "delta",
    "dinghy",
    "dock",
    "dolphin",
    "ferry",
    "fjord",
    "frigate",
    "gale",
    "galley",
    "gull",
    "harbour",
    "haven",
    "heron",
    "hull",
    "island",
    "jetty",
    "keel",
    "ketch",
    "lagoon",
    "lantern",
    "lighthouse",
    "mast",
    "mooring",
    "oar",
    "pelican",
    "pier",
    "pilot",
    "quay",
    "raft",
    "reef",
    "rudder",
    "sail",
    "schooner",
    "sextant",
    "skipper",
    "sloop",
    "tide",
    "tug",
    "wharf",
];

/// Takes Docker's names: a letter or digit, then `[a-zA-Z0-9_.-]`; a leading slash is dropped. One letter alone, which
/// Docker refuses for no reason it tells, is a name too.
///
/// # Errors
/// It is none.
pub(crate) fn check(name: &str) -> Result<&str> {
    let bare = name.strip_prefix('/').unwrap_or(name);
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    let bytes = bare.as_bytes();
    let valid = bytes.first().is_some_and(u8::is_ascii_alphanumeric) && bytes.iter().all(|b| inner(*b));
    if valid { Ok(bare) } else { Err(Error::BadName { name: name.into() }) }
}

/// A name that nobody chose.
pub(crate) fn invent(taken: impl Fn(&str) -> bool) -> String {
    let mut rng = rand::rng();
    let mut pick = |words: &[&'static str]| words.choose(&mut rng).copied().unwrap_or("nameless");
    let plain = (0..8).map(|_| format!("{}_{}", pick(MOODS), pick(THINGS))).find(|name| !taken(name));
    plain.unwrap_or_else(|| format!("{}_{}_{:08x}", pick(MOODS), pick(THINGS), rand::rng().random::<u32>()))
}

/// A container's or an exec's id: 64 hex digits. One whose first twelve are all decimal could be taken for a number.
pub(crate) fn id() -> String {
    loop {
        let id = hex::encode(rand::random::<[u8; 32]>());
        if id.bytes().take(12).any(|b| b.is_ascii_alphabetic()) {
            return id;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_dockers_names() {
        for name in ["web", "/web", "a", "a1", "A.b_c-d", "0x"] {
            assert_eq!(check(name).unwrap(), name.trim_start_matches('/'));
        }
        for name in ["", "-bad", "_x", "a b", "ä1", "a/b", "//a1", ".."] {
            assert!(check(name).unwrap_err().to_string().contains("Invalid container name"), "{name}");
        }
    }

    #[test]
    fn invents_free_ones() {
        assert!(check(&invent(|_| false)).unwrap().contains('_'));
        let crowded = invent(|name| name.matches('_').count() == 1);
        assert_eq!(crowded.matches('_').count(), 2, "{crowded}");
        assert_eq!(id().len(), 64);
    }
}
