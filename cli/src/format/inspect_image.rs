//! An image in the shape of `docker image inspect`.

use berth_core::Reference;
use berth_proto::berth::image::v1::Image;
use serde_json::Value;

use super::json::{Json, object};

/// Docker's JSON of an image.
pub(crate) fn image(image: &Image, driver: &str) -> Json {
    let stored: Value = serde_json::from_slice(&image.config).unwrap_or(Value::Null);
    let text = |name: &str| Json::from(stored.get(name).and_then(Value::as_str).unwrap_or_default());
    let familiar = |names: &[String]| -> Vec<Json> {
        names.iter().map(|name| name.parse::<Reference>().map_or(name.clone(), |n| n.familiar()).into()).collect()
    };
    object! {
        "Id": image.id.as_str(),
        "RepoTags": familiar(&image.names),
        "RepoDigests": familiar(&image.repo_digests),
        "Parent": image.parent.as_str(),
        "Comment": last_comment(&stored),
        "Created": image.created.as_str(),
        "DockerVersion": text("docker_version"),
        "Author": text("author"),
        "Config": config(stored.get("config").unwrap_or(&Value::Null)),
        "Architecture": image.architecture.as_str(),
        "Variant": Json::from(image.variant.as_str()).omitted_if(image.variant.is_empty()),
        "Os": image.os.as_str(),
        "Size": image.size,
        "GraphDriver": object! { "Data": Json::NULL, "Name": driver },
        "RootFS": object! { "Type": "layers", "Layers": Json::from(image.diff_ids.clone()) },
        "Metadata": object! { "LastTagTime": last_tagged(image) },
        "Descriptor": object! {
            "mediaType": image.manifest_media_type.as_str(),
            "digest": image.manifest_digest.as_str(),
        },
    }
}

/// Docker's way to say never.
fn last_tagged(image: &Image) -> &str {
    if image.last_tagged.starts_with("1970-01-01T00:00:00") { "0001-01-01T00:00:00Z" } else { &image.last_tagged }
}

fn last_comment(stored: &Value) -> String {
    let last = stored.get("history").and_then(Value::as_array).and_then(|history| history.last());
    last.and_then(|entry| entry.get("comment")).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// The configuration's own members, and those that templates may ask for though the image does not have them.
fn config(stored: &Value) -> Json {
    const KNOWN: [&str; 13] = [
        "User",
        "ExposedPorts",
        "Env",
        "Entrypoint",
        "Cmd",
        "Healthcheck",
        "ArgsEscaped",
        "Volumes",
        "WorkingDir",
        "OnBuild",
        "Labels",
        "StopSignal",
        "Shell",
    ];
    let empty = |name: &str| match name {
        "User" | "WorkingDir" | "StopSignal" => Json::from(""),
        "ArgsEscaped" => Json::from(false),
        _ => Json::NULL,
    };
    let own = |name: &str| stored.get(name).filter(|value| !value.is_null()).cloned();
    let known = KNOWN.iter().map(|name| {
        let member = own(name).map_or_else(|| empty(name).omitted_if(true), Json::Leaf);
        ((*name).to_owned(), member)
    });
    let others = stored.as_object().into_iter().flatten().filter(|(name, _)| !KNOWN.contains(&name.as_str()));
    Json::Object(known.chain(others.map(|(name, value)| (name.clone(), Json::Leaf(value.clone())))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_shape() {
        let wire = Image {
            id: "sha256:aa".into(),
            names: vec!["docker.io/library/redis:4-alpine".into()],
            config:
                br#"{"config":{"ExposedPorts":{"6379/tcp":{}},"Cmd":["redis-server"]},"author":"me"}"#.to_vec().into(),
            ..Image::default()
        };
        let json: Value = serde_json::to_value(image(&wire, "overlay2")).unwrap();
        assert_eq!(json["RepoTags"][0], "redis:4-alpine");
        assert_eq!(json["Config"]["Cmd"][0], "redis-server");
        assert!(json["Config"].get("Labels").is_none(), "left out where the image has none");
        assert_eq!(
            image(&wire, "overlay2")
                .to_template()
                .field("Config")
                .and_then(|c| c.field("WorkingDir"))
                .unwrap()
                .to_string(),
            ""
        );
    }
}
