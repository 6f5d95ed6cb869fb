//! Which events somebody wants, as `docker events --filter`: the values of one key are alternatives, the keys must all
//! hold, and so must every label.

use std::collections::BTreeMap;

use super::Event;
use crate::{
    error::{Error, Result},
    labels,
};

const KEYS: [&str; 12] = [
    "config",
    "container",
    "daemon",
    "event",
    "image",
    "label",
    "network",
    "node",
    "plugin",
    "scope",
    "type",
    "volume",
];

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter(BTreeMap<String, Vec<String>>);

impl Filter {
    /// Reads `key=value` filters.
    ///
    /// # Errors
    /// No such filter.
    pub(crate) fn parse(filters: &[String]) -> Result<Self> {
        let mut parsed: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for filter in filters {
            let (key, value) = filter
                .split_once('=')
                .ok_or_else(|| Error::Invalid(format!("bad format of filter {filter:?} (expected name=value)")))?;
            if !KEYS.contains(&key) {
                return Err(Error::Invalid(format!("invalid filter '{key}'")));
            }
            parsed.entry(key.into()).or_default().push(value.into());
        }
        Ok(Self(parsed))
    }

    pub(super) fn admits(&self, event: &Event) -> bool {
        self.0.iter().all(|(key, values)| {
            let holds = |value: &String| holds(event, key, value);
            if key == "label" { values.iter().all(holds) } else { values.iter().any(holds) }
        })
    }
}

fn holds(event: &Event, key: &str, value: &str) -> bool {
    let attribute = |name: &str| event.attributes.get(name).map(String::as_str);
    let of = |kind: &str| event.kind == kind && (event.id.starts_with(value) || attribute("name") == Some(value));
    match key {
        // "health_status: healthy" and "exec_create: sh" are meant by their first word, too.
        "event" => event.action == value || event.action.split(':').next() == Some(value),
        "type" => event.kind == value,
        "scope" => value == "local",
        "container" => of("container"),
        "network" => of("network") || attribute("network") == Some(value),
        "volume" => of("volume"),
        "image" => {
            let named = if event.kind == "image" { Some(event.id.as_str()) } else { attribute("image") };
            let untagged =
                |image: &str| image.rsplit_once(':').is_some_and(|(name, tag)| name == value && !tag.contains('/'));
            named.is_some_and(|image| image == value || untagged(image))
                || event.kind == "image" && attribute("name").is_some_and(|name| name == value || untagged(name))
        }
        "label" => labels::holds(value, |name| event.attributes.get(name)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::record::Time;

    fn admits(filters: &[&str]) -> bool {
        let attributes = [("name", "web"), ("image", "nginx:1.18"), ("tier", "front"), ("zone", "a")];
        let event = Event {
            time: Time(1),
            kind: "container",
            action: "exec_create: sh -c true".into(),
            id: "abcdef".into(),
            attributes: attributes.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        };
        let filters: Vec<String> = filters.iter().map(|f| (*f).to_owned()).collect();
        Filter::parse(&filters).unwrap().admits(&event)
    }

    #[test]
    fn values_are_alternatives_and_keys_are_not() {
        assert!(admits(&[]));
        assert!(admits(&["event=start", "event=exec_create"]));
        assert!(!admits(&["event=start"]));
        assert!(admits(&["container=web", "image=nginx", "type=container", "scope=local"]));
        assert!(admits(&["container=abc"]));
        assert!(!admits(&["container=web", "type=network"]));
        assert!(admits(&["label=tier=front", "label=zone"]));
        assert!(!admits(&["label=tier=front", "label=zone=b"]));
        assert!(!admits(&["image=nginx:1"]));
    }

    #[test]
    fn unknown_filters_are_refused() {
        assert!(Filter::parse(&["what=1".into()]).unwrap_err().to_string().contains("invalid filter 'what'"));
        assert!(Filter::parse(&["event".into()]).is_err());
    }
}
