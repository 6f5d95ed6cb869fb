//! Which networks somebody wants, as `docker network ls --filter`: the values of one key are alternatives, the keys must
//! all hold, and so must every label.

use std::collections::BTreeMap;

use berth_proto::berth::runtime::v1::Network;

use super::Error;
use crate::labels;

const KEYS: [&str; 8] = ["dangling", "driver", "id", "label", "label!", "name", "scope", "type"];

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter(BTreeMap<String, Vec<String>>);

impl Filter {
    /// Reads `key=value` filters.
    ///
    /// # Errors
    /// No such filter, or a value that cannot be meant.
    pub(crate) fn parse(filters: &[String]) -> Result<Self, Error> {
        let mut parsed: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for filter in filters {
            let (key, value) =
                filter.split_once('=').ok_or_else(|| Error::Unmeant(format!("invalid filter '{filter}'")))?;
            let wrong = match key {
                _ if !KEYS.contains(&key) => return Err(Error::Unmeant(format!("invalid filter '{key}'"))),
                "dangling" => boolean(value).is_none(),
                "type" => !matches!(value, "custom" | "builtin"),
                _ => false,
            };
            if wrong {
                return Err(Error::Unmeant(format!("invalid filter '{key}={value}'")));
            }
            parsed.entry(key.into()).or_default().push(value.into());
        }
        Ok(Self(parsed))
    }

    /// Whether a network is wanted.
    pub(crate) fn admits(&self, network: &Network) -> bool {
        self.0.iter().all(|(key, values)| {
            let holds = |value: &String| match key.as_str() {
                "dangling" => boolean(value) == Some(!network.predefined && network.members.is_empty()),
                "driver" => network.driver == *value,
                "id" => network.id.contains(value.as_str()),
                "name" => network.name.contains(value.as_str()),
                "scope" => value == "local",
                "type" => network.predefined == (value == "builtin"),
                "label" => labels::holds(value, |name| network.labels.get(name)),
                _ => !labels::holds(value, |name| network.labels.get(name)),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_filter_holds_and_fails() {
        let network = Network {
            id: "abcdef".into(),
            name: "front".into(),
            driver: "bridge".into(),
            labels: [("tier".to_owned(), "web".to_owned())].into(),
            ..Network::default()
        };
        let admits = |filter: &str| Filter::parse(&[filter.to_owned()]).map(|filter| filter.admits(&network));
        for (yes, no) in [
            ("dangling=true", "dangling=false"),
            ("driver=bridge", "driver=host"),
            ("id=bcd", "id=x"),
            ("name=ron", "name=back"),
            ("scope=local", "scope=swarm"),
            ("type=custom", "type=builtin"),
            ("label=tier", "label=zone"),
            ("label=tier=web", "label=tier=db"),
            ("label!=zone", "label!=tier"),
        ] {
            assert!(admits(yes).unwrap() && !admits(no).unwrap(), "{yes} {no}");
        }
        for wrong in ["what=1", "dangling=x", "type=x", "name"] {
            assert!(admits(wrong).is_err(), "{wrong}");
        }
    }
}
