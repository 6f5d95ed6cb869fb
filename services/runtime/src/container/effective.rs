//! What a container was made from, as the configuration that an image of it has (OCI image-spec, "Image Configuration",
//! `config`): what was asked for, completed with its own image's, as Docker commits it.

use berth_proto::berth::runtime::v1::mount::Type;
use serde_json::{Map, Value, json};

use super::record::Record;

/// Of its image's, what a container has no word of its own for.
const OF_THE_IMAGE: [&str; 4] = ["Healthcheck", "Shell", "ArgsEscaped", "Volumes"];

/// The configuration; `image` is that of the container's image, whole.
pub(super) fn config(record: &Record, image: &[u8]) -> Map<String, Value> {
    let image: Value = serde_json::from_slice(image).unwrap_or_default();
    let mut config = Map::new();
    for key in OF_THE_IMAGE {
        if let Some(value) = image.get("config").and_then(|config| config.get(key)).filter(|value| !value.is_null()) {
            config.insert(key.into(), value.clone());
        }
    }
    let spec = &record.spec;
    if let Some(check) = spec.health_check.as_ref().filter(|check| !check.test.is_empty()) {
        let mut health = Map::from_iter([("Test".to_owned(), json!(check.test))]);
        for (key, number) in [
            ("Interval", check.interval),
            ("Timeout", check.timeout),
            ("StartPeriod", check.start_period),
            ("StartInterval", check.start_interval),
            ("Retries", i64::from(check.retries)),
        ] {
            if number != 0 {
                health.insert(key.into(), number.into());
            }
        }
        config.insert("Healthcheck".into(), health.into());
    }
    // A name alone takes the image's away.
    let env: Vec<&String> = spec.env.iter().filter(|variable| variable.contains('=')).collect();
    for (key, list) in [("Env", json!(env)), ("Entrypoint", json!(spec.entrypoint)), ("Cmd", json!(spec.command))] {
        if list.as_array().is_some_and(|list| !list.is_empty()) {
            config.insert(key.into(), list);
        }
    }
    for (key, text) in [("User", &spec.user), ("WorkingDir", &spec.working_dir), ("StopSignal", &spec.stop_signal)] {
        if !text.is_empty() {
            config.insert(key.into(), text.as_str().into());
        }
    }
    if !spec.labels.is_empty() {
        let labels: Map<String, Value> = spec.labels.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
        config.insert("Labels".into(), labels.into());
    }
    let empty = |names: Vec<String>| names.into_iter().map(|name| (name, json!({}))).collect::<Map<String, Value>>();
    if !record.exposed_ports.is_empty() {
        config.insert("ExposedPorts".into(), empty(record.exposed_ports.clone()).into());
    }
    let anonymous = spec.mounts.iter().filter(|mount| mount.r#type() == Type::Volume && mount.source.is_empty());
    let mut volumes = empty(anonymous.map(|mount| mount.target.clone()).collect());
    if let Some(Value::Object(of_the_image)) = config.remove("Volumes") {
        volumes.extend(of_the_image);
    }
    if !volumes.is_empty() {
        config.insert("Volumes".into(), volumes.into());
    }
    config
}

#[cfg(test)]
mod tests {
    use berth_proto::berth::runtime::v1::{ContainerSpec, Mount};

    use super::*;

    #[test]
    fn what_was_asked_for_and_what_the_image_has() {
        let image =
            br#"{"config":{"Volumes":{"/v":{}},"Healthcheck":{"Test":["NONE"]},"OnBuild":["RUN x"],"Cmd":["old"]}}"#;
        let volume = |source: &str, target: &str| Mount {
            r#type: Type::Volume.into(),
            source: source.into(),
            target: target.into(),
            ..Mount::default()
        };
        let spec = ContainerSpec {
            env: vec!["A=1".into(), "GONE".into()],
            command: vec!["new".into()],
            user: "7".into(),
            labels: [("l".to_owned(), "v".to_owned())].into(),
            mounts: vec![volume("", "/anonymous"), volume("named", "/named")],
            ..ContainerSpec::default()
        };
        let record = Record { spec, exposed_ports: vec!["80/tcp".into()], ..Record::default() };
        assert_eq!(
            Value::from(config(&record, image)),
            json!({
                "Env": ["A=1"], "Cmd": ["new"], "User": "7", "Labels": {"l": "v"}, "ExposedPorts": {"80/tcp": {}},
                "Volumes": {"/v": {}, "/anonymous": {}}, "Healthcheck": {"Test": ["NONE"]},
            })
        );
        assert!(config(&Record::default(), b"").is_empty());
    }
}
