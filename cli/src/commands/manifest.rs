//! `manifest inspect`: what a registry has under a name, as it is there.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use berth_core::{Kind, Reference};
use berth_proto::berth::image::v1::{ManifestRequest, ManifestResponse};
use clap::Arg;
use serde_json::{Value, json};

use super::each::{line, print_bytes};
use crate::{
    args::{Completes, Entry, Given, flag::switch},
    client::Client,
    credentials,
    outcome::Error,
};

pub(crate) const INSPECT: Entry = Entry {
    paths: &["manifest inspect"],
    about: "Show an image's manifest, or manifest list",
    usage: "[OPTIONS] [MANIFEST_LIST] MANIFEST",
    operands: (1, 2),
    flags,
    completes: Completes::Images,
    run: |client, given| Box::pin(inspect(client, given)),
    ..Entry::PLAIN
};

fn flags() -> Vec<Arg> {
    vec![
        switch("insecure", "Accepted for compatibility: the configuration says which registries speak plain HTTP"),
        switch("verbose", "With descriptors, and the manifests that a list names").short('v'),
    ]
}

async fn inspect(client: Client, given: Given) -> Result<u8, Error> {
    let names = given.operands();
    if names.len() > 1 {
        return Err(Error::Invalid(
            "manifest lists are not kept here: name the one in the registry, or one of its manifests by name@digest"
                .into(),
        ));
    }
    let reference: Reference =
        given.operand().parse().map_err(|error: berth_core::reference::InvalidReference| error.to_string())?;
    let served = fetch(&client, &reference).await?;
    if !given.on("verbose") {
        let mut text = indented(&served.manifest);
        text.push(b'\n');
        print_bytes(&text)?;
        return Ok(0);
    }
    let document = parsed(&served)?;
    let Some(manifests) = document.get("manifests").and_then(Value::as_array) else {
        let shown = verbose(&reference, &served, None)?;
        return line(&pretty(&shown)).map(|()| 0);
    };
    let mut all = Vec::new();
    for entry in manifests {
        let digest = entry.get("digest").and_then(Value::as_str).unwrap_or_default();
        let one: Reference = format!("{}@{digest}", reference.repository())
            .parse()
            .map_err(|_| Error::Invalid(format!("the list names {digest:?}, which is no digest")))?;
        let served = fetch(&client, &one).await?;
        all.push(verbose(&one, &served, entry.get("platform"))?);
    }
    line(&pretty(&Value::from(all))).map(|()| 0)
}

async fn fetch(client: &Client, reference: &Reference) -> Result<ManifestResponse, Error> {
    let name = reference.to_string();
    let request = ManifestRequest { reference: name.clone(), auth: credentials::find(&name) };
    match client.images().await?.manifest(request).await.map_err(Error::from) {
        Err(error) if error.is(Kind::NotFound) => {
            Err(Error::Invalid(format!("no such manifest: {}", reference.familiar())))
        }
        answer => Ok(answer?.into_inner()),
    }
}

fn parsed(served: &ManifestResponse) -> Result<Value, Error> {
    serde_json::from_slice(&served.manifest)
        .map_err(|error| Error::Invalid(format!("the manifest is no JSON: {error}")))
}

/// Docker's description of one manifest. A platform that no list tells is not made up.
fn verbose(reference: &Reference, served: &ManifestResponse, platform: Option<&Value>) -> Result<Value, Error> {
    let member = if served.media_type.contains("oci") { "OCIManifest" } else { "SchemaV2Manifest" };
    let mut descriptor =
        json!({ "mediaType": served.media_type, "digest": served.digest, "size": served.manifest.len() });
    if let Some(platform) = platform {
        descriptor["platform"] = platform.clone();
    }
    Ok(json!({
        "Ref": reference.to_string(),
        "Descriptor": descriptor,
        "Raw": BASE64_STANDARD.encode(&served.manifest),
        member: parsed(served)?,
    }))
}

fn pretty(value: &Value) -> String {
    let text = serde_json::to_vec(value).unwrap_or_default();
    String::from_utf8_lossy(&indented(&text)).into_owned()
}

/// JSON with a line for each member, tabs before it, and everything else as it was, order and numbers too.
fn indented(json: &[u8]) -> Vec<u8> {
    let (mut out, mut depth, mut quoted, mut escaped) = (Vec::with_capacity(json.len() * 2), 0_usize, false, false);
    let mut open = false;
    let line = |out: &mut Vec<u8>, depth: usize| {
        out.push(b'\n');
        out.extend(std::iter::repeat_n(b'\t', depth));
    };
    for &byte in json {
        if quoted {
            out.push(byte);
            (quoted, escaped) = (escaped || byte != b'"', !escaped && byte == b'\\');
            continue;
        }
        if byte.is_ascii_whitespace() {
            continue;
        }
        let closes = matches!(byte, b'}' | b']');
        if open && !closes {
            line(&mut out, depth);
        }
        if closes {
            depth = depth.saturating_sub(1);
            if !open {
                line(&mut out, depth);
            }
        }
        open = matches!(byte, b'{' | b'[');
        out.push(byte);
        match byte {
            b'{' | b'[' => depth += 1,
            b',' => line(&mut out, depth),
            b':' => out.push(b' '),
            b'"' => quoted = true,
            _ => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_keeps_its_order_and_its_strings() {
        let text = br#"{ "b":1,"a":[ {"x":"{,\"}"} ,[],{}],"n":1.50}"#;
        let expected = "{\n\t\"b\": 1,\n\t\"a\": [\n\t\t{\n\t\t\t\"x\": \"{,\\\"}\"\n\t\t},\n\t\t[],\n\t\t{}\n\t],\n\t\"n\": 1.50\n}";
        assert_eq!(String::from_utf8(indented(text)).unwrap(), expected);
    }
}
