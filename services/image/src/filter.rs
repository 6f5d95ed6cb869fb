//! Filters of image lists, as `docker images --filter` has them: labels must all be there, of several references one must
//! match.

use berth_core::{Digest, Reference};
use jiff::Timestamp;

use crate::{
    error::Error,
    images::{Images, find_in},
    manifest::Config,
    store::{All, Record},
};

/// Filters, read once for a whole list.
#[derive(Debug, Default)]
pub(crate) struct Filters {
    dangling: Option<bool>,
    labels: Vec<(String, Option<String>)>,
    /// Labels that must not be there.
    without: Vec<(String, Option<String>)>,
    /// Made before all of these.
    until: Vec<Timestamp>,
    references: Vec<String>,
    before: Option<Timestamp>,
    since: Option<Timestamp>,
}

impl Filters {
    /// Reads `key=value` filters. Blocks: the images that `before` and `since` name are looked up.
    pub(crate) fn parse(texts: &[String], images: &Images, all: &All) -> Result<Self, Error> {
        let mut filters = Self::default();
        let created = |id: &Digest| {
            let stored = images.store.configs.get(&images.store.blobs, id)?;
            Ok::<_, Error>(stored.config.created().unwrap_or(Timestamp::UNIX_EPOCH))
        };
        let named = |name: &str| {
            let record = find_in(all, name)?.ok_or_else(|| Error::absent(name))?;
            created(&record.id)
        };
        for text in texts {
            let (key, value) = text.split_once('=').ok_or_else(|| Error::Filter(text.clone()))?;
            let invalid = || Error::Filter(format!("{key}=[{value}]"));
            match key.trim() {
                "dangling" => {
                    filters.dangling = Some(match value.to_ascii_lowercase().as_str() {
                        "true" | "1" => true,
                        "false" | "0" => false,
                        _ => return Err(invalid()),
                    });
                }
                "label" => filters.labels.push(match value.split_once('=') {
                    Some((key, value)) => (key.into(), Some(value.into())),
                    None => (value.into(), None),
                }),
                "label!" => filters.without.push(match value.split_once('=') {
                    Some((key, value)) => (key.into(), Some(value.into())),
                    None => (value.into(), None),
                }),
                "until" => filters.until.push(value.parse().map_err(|_| invalid())?),
                "reference" => filters.references.push(value.into()),
                "before" => filters.before = Some(named(value)?),
                "since" => filters.since = Some(named(value)?),
                _ => return Err(Error::Filter(key.into())),
            }
        }
        Ok(filters)
    }

    /// The image as it is listed, with the names that match; `None` where it is not.
    pub(crate) fn admit(&self, mut record: Record, config: &Config) -> Option<Record> {
        match self.dangling {
            Some(true) if !record.names.is_empty() => return None,
            Some(false) if record.names.is_empty() && record.repo_digests.is_empty() => return None,
            _ => {}
        }
        let labels = config.config.as_ref().and_then(|c| c.labels.as_ref());
        let has = |(key, wanted): &(String, Option<String>)| {
            labels.and_then(|l| l.get(key)).is_some_and(|is| wanted.as_ref().is_none_or(|wanted| wanted == is))
        };
        if !self.labels.iter().all(has) || self.without.iter().any(has) {
            return None;
        }
        let made = config.created().unwrap_or(Timestamp::UNIX_EPOCH);
        if self.until.iter().any(|limit| made >= *limit) {
            return None;
        }
        if self.before.is_some_and(|limit| made >= limit) || self.since.is_some_and(|limit| made <= limit) {
            return None;
        }
        if !self.references.is_empty() {
            record.names.retain(|name| self.refers(name));
            record.repo_digests.retain(|name| self.refers(name));
            if record.names.is_empty() && record.repo_digests.is_empty() {
                return None;
            }
        }
        Some(record)
    }

    fn refers(&self, name: &str) -> bool {
        let Ok(reference) = name.parse::<Reference>() else { return false };
        let forms = [reference.familiar(), reference.familiar_repository(), name.to_owned()];
        self.references.iter().any(|pattern| forms.iter().any(|form| matches(pattern.as_bytes(), form.as_bytes())))
    }
}

/// Shell patterns: `*` is anything but a slash, `?` one character, `[a-z]` one of a set, `\\` takes the next as it is.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where the last star was, and how much it has taken: a later star makes earlier ones settled.
    let mut star: Option<(usize, usize)> = None;
    loop {
        let step = match pattern.get(p) {
            None if t == text.len() => return true,
            Some(b'*') => {
                star = Some((p + 1, t));
                p += 1;
                continue;
            }
            None => None,
            Some(_) => text.get(t).and_then(|c| one(&pattern[p..], *c)),
        };
        if let Some(length) = step {
            p += length;
            t += 1;
        } else if let Some((after, taken)) = star
            && text.get(taken).is_some_and(|c| *c != b'/')
        {
            star = Some((after, taken + 1));
            (p, t) = (after, taken + 1);
        } else {
            return false;
        }
    }
}

/// Length of the pattern's first element where it matches `c`.
fn one(pattern: &[u8], c: u8) -> Option<usize> {
    match pattern {
        [b'?', ..] => (c != b'/').then_some(1),
        [b'\\', literal, ..] => (*literal == c).then_some(2),
        [b'[', rest @ ..] => {
            let end = rest.iter().skip(1).position(|b| *b == b']')? + 1;
            let (negated, set) = match &rest[..end] {
                [b'^', set @ ..] => (true, set),
                set => (false, set),
            };
            let mut found = false;
            let mut at = 0;
            while at < set.len() {
                match set[at..] {
                    [from, b'-', to, ..] => {
                        found |= (from..=to).contains(&c);
                        at += 3;
                    }
                    _ => {
                        found |= set[at] == c;
                        at += 1;
                    }
                }
            }
            (found != negated && c != b'/').then_some(end + 2)
        }
        [literal, ..] => (*literal == c).then_some(1),
        [] => None,
    }
}

#[cfg(test)]
mod tests {
    fn matches(pattern: &str, text: &str) -> bool {
        super::matches(pattern.as_bytes(), text.as_bytes())
    }

    #[test]
    fn patterns_match_as_in_a_shell() {
        assert!(matches("red*", "redis") && matches("*/x:?", "user/x:1") && matches("redis", "redis"));
        assert!(!matches("red*", "user/redis") && !matches("*", "user/redis") && !matches("redi", "redis"));
        assert!(matches("r[a-e]d*", "redis") && !matches("r[^a-e]d*", "redis") && !matches("r[a", "ra"));
        assert!(matches("*is*:4*", "redis:4-alpine") && matches("a\\*b", "a*b") && !matches("a\\*b", "axb"));
    }

    #[test]
    fn many_stars_take_no_time() {
        assert!(!matches(&"*a".repeat(2000), &"a".repeat(1000)));
    }
}
