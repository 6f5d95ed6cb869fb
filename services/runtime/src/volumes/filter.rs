//! Which volumes somebody wants, as `docker volume ls --filter`: the values of one key are alternatives, the keys must all
//! hold, and so must every label.

use std::collections::BTreeMap;

use super::{Error, volume::Volume};
use crate::labels;

const KEYS: [&str; 5] = ["name", "driver", "dangling", "label", "label!"];

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter(BTreeMap<String, Vec<String>>);

impl Filter {
    /// Reads `key=value` filters.
    ///
    /// # Errors
    /// No such filter, or a value that cannot be meant.
    pub(super) fn parse(filters: &[String]) -> Result<Self, Error> {
        let mut parsed: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for filter in filters {
            let wrong = || Error::BadFilter(filter.clone());
            let (key, value) = filter.split_once('=').ok_or_else(wrong)?;
            if !KEYS.contains(&key) || (key == "dangling" && boolean(value).is_none()) {
                return Err(wrong());
            }
            parsed.entry(key.into()).or_default().push(value.into());
        }
        Ok(Self(parsed))
    }

    /// Whether a volume is wanted; `used` where a container has it.
    pub(super) fn admits(&self, volume: &Volume, used: bool) -> bool {
        self.0.iter().all(|(key, values)| {
            let holds = |value: &String| match key.as_str() {
                "name" => volume.name.contains(value.as_str()),
                "driver" => value == "local",
                "dangling" => boolean(value) == Some(!used),
                "label" => labels::holds(value, |name| volume.details.labels.get(name)),
                _ => !labels::holds(value, |name| volume.details.labels.get(name)),
            };
            if key.starts_with("label") { values.iter().all(holds) } else { values.iter().any(holds) }
        })
    }
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}
