//! Filters of image lists, as `docker images --filter` has them.

use berth_core::Reference;

use crate::{error::Error, images::Images, manifest::Config, store::Record};

/// Whether an image passes all filters.
pub(crate) fn admits(filters: &[String], images: &Images, record: &Record, config: &Config) -> Result<bool, Error> {
    for filter in filters {
        let (key, value) = filter.split_once('=').ok_or_else(|| Error::Filter(filter.clone()))?;
        let passes = match key {
            "dangling" => match value {
                "true" | "1" => record.names.is_empty(),
                "false" | "0" => !record.names.is_empty(),
                _ => return Err(Error::Filter(filter.clone())),
            },
            "label" => {
                let labels = config.config.as_ref().and_then(|c| c.labels.as_ref());
                let (key, wanted) = value.split_once('=').map_or((value, None), |(k, v)| (k, Some(v)));
                labels.and_then(|l| l.get(key)).is_some_and(|is| wanted.is_none_or(|wanted| wanted == is))
            }
            "reference" => record.names.iter().filter_map(|name| name.parse::<Reference>().ok()).any(|name| {
                let repository = name.familiar_repository();
                matches(value, &repository) || matches(value, &name.familiar()) || matches(value, &name.to_string())
            }),
            "before" | "since" => {
                let other = images.find(value)?;
                let other = Config::parse(&images.store.blobs.read(&other.id)?, value)?;
                match key {
                    "before" => config.created < other.created,
                    _ => config.created > other.created,
                }
            }
            _ => return Err(Error::Filter(filter.clone())),
        };
        if !passes {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Shell patterns: `*` is anything but a slash, `?` one character.
fn matches(pattern: &str, text: &str) -> bool {
    fn go(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), _) => {
                go(rest, text) || text.split_first().is_some_and(|(c, text)| *c != b'/' && go(pattern, text))
            }
            (Some((b'?', rest)), Some((c, text))) => *c != b'/' && go(rest, text),
            (Some((p, rest)), Some((c, text))) => p == c && go(rest, text),
            _ => false,
        }
    }
    // A pattern of many stars would take long on a long name; names are short.
    pattern.len() <= 256 && go(pattern.as_bytes(), text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_match_as_in_a_shell() {
        assert!(matches("red*", "redis") && matches("*/x:?", "user/x:1") && matches("redis", "redis"));
        assert!(!matches("red*", "user/redis") && !matches("*", "user/redis") && !matches("redi", "redis"));
    }
}
