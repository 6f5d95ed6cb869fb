//! `manifest inspect`: a list that is being made here, or what a registry has under a name, as it is there.

use berth_core::Reference;
use clap::Arg;
use serde_json::Value;

use super::{
    fetch,
    json::{indented, pretty},
    local::{List, Member},
    named,
};
use crate::{
    args::{Completes, Entry, Given, flag::switch},
    client::Client,
    commands::each::{line, print_bytes},
    outcome::Error,
};

pub(crate) const ENTRY: Entry = Entry {
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
    let (names, verbose) = (given.operands(), given.on("verbose"));
    let first = named(&names[0])?;
    let local = List::open(&first)?;
    if let Some(second) = names.get(1) {
        let member = local.member(&named(second)?)?;
        return if verbose { line(&pretty(&member.shown()?)) } else { bytes(&member.raw) }.map(|()| 0);
    }
    let members = local.members()?;
    if !members.is_empty() {
        if verbose {
            let all = members.iter().map(Member::shown).collect::<Result<Vec<_>, _>>()?;
            return line(&pretty(&Value::from(all))).map(|()| 0);
        }
        return bytes(&local.document(&members)?.1).map(|()| 0);
    }
    let served = fetch(&client, &first, verbose).await?;
    if !verbose {
        return bytes(&served.manifest).map(|()| 0);
    }
    let document: Value = serde_json::from_slice(&served.manifest)
        .map_err(|error| Error::Invalid(format!("the manifest is no JSON: {error}")))?;
    let Some(manifests) = document.get("manifests").and_then(Value::as_array) else {
        return line(&pretty(&Member::of(&first, &served)?.shown()?)).map(|()| 0);
    };
    let mut all = Vec::new();
    for entry in manifests {
        let digest = entry.get("digest").and_then(Value::as_str).unwrap_or_default();
        let one: Reference = format!("{}@{digest}", first.repository())
            .parse()
            .map_err(|_| Error::Invalid(format!("the list names {digest:?}, which is no digest")))?;
        let mut member = Member::of(&one, &fetch(&client, &one, true).await?)?;
        if let Some(platform) = entry.get("platform") {
            member.platform = platform.clone();
        }
        all.push(member.shown()?);
    }
    line(&pretty(&Value::from(all))).map(|()| 0)
}

fn bytes(json: &[u8]) -> Result<(), Error> {
    let mut text = indented(json);
    text.push(b'\n');
    print_bytes(&text)
}
