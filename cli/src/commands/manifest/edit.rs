//! `manifest create`, `annotate`, `push` and `rm`: a list for several platforms, of images that are in the registry.

use berth_proto::berth::image::v1::{ListedManifest, PutManifestListRequest};
use clap::Arg;
use serde_json::Value;

use super::{
    fetch,
    local::{List, Member},
    named,
};
use crate::{
    args::{
        Entry, Given,
        flag::{list, switch, value},
    },
    client::Client,
    commands::each::line,
    credentials,
    outcome::Error,
};

pub(crate) const CREATE: Entry = Entry {
    paths: &["manifest create"],
    about: "Begin a list of manifests that are in a registry",
    usage: "MANIFEST_LIST MANIFEST [MANIFEST...]",
    operands: (2, usize::MAX),
    flags: || vec![switch("amend", "Add to a list that is there").short('a'), insecure()],
    run: |client, given| Box::pin(create(client, given)),
    ..Entry::PLAIN
};

pub(crate) const ANNOTATE: Entry = Entry {
    paths: &["manifest annotate"],
    about: "Say more of a manifest in a list",
    usage: "[OPTIONS] MANIFEST_LIST MANIFEST",
    operands: (2, 2),
    flags: || {
        vec![
            value("arch", "string", "Architecture"),
            value("os", "string", "Operating system"),
            list("os-features", "strings", "Feature of the operating system"),
            value("os-version", "string", "Version of the operating system"),
            value("variant", "string", "Variant of the architecture"),
        ]
    },
    run: |_, given| Box::pin(async move { annotate(&given) }),
    ..Entry::PLAIN
};

pub(crate) const PUSH: Entry = Entry {
    paths: &["manifest push"],
    about: "Push a manifest list to a repository",
    usage: "[OPTIONS] MANIFEST_LIST",
    operands: (1, 1),
    flags: || vec![insecure(), switch("purge", "Forget the list here when it is there").short('p')],
    run: |client, given| Box::pin(push(client, given)),
    ..Entry::PLAIN
};

pub(crate) const REMOVE: Entry = Entry {
    paths: &["manifest rm"],
    about: "Forget one or more manifest lists that were begun here",
    usage: "MANIFEST_LIST [MANIFEST_LIST...]",
    operands: (1, usize::MAX),
    run: |_, given| Box::pin(async move { remove(&given) }),
    ..Entry::PLAIN
};

fn insecure() -> Arg {
    switch("insecure", "Accepted for compatibility: the configuration says which registries speak plain HTTP")
}

async fn create(client: Client, given: Given) -> Result<u8, Error> {
    let names = given.operands();
    let target = named(&names[0])?;
    let local = List::open(&target)?;
    if local.is_there() && !given.on("amend") {
        return Err(Error::Invalid("refusing to amend an existing manifest list with no --amend flag".into()));
    }
    // All are looked for before anything is kept.
    let mut members = Vec::new();
    for name in &names[1..] {
        let name = named(name)?;
        let served = fetch(&client, &name, true).await?;
        if served.config.is_empty() {
            return Err(Error::Invalid(format!("{} is a manifest list itself: name images", name.familiar())));
        }
        members.push(Member::of(&name, &served)?);
    }
    members.iter().try_for_each(|member| local.put(member))?;
    line(&format!("Created manifest list {target}"))?;
    Ok(0)
}

fn annotate(given: &Given) -> Result<u8, Error> {
    let names = given.operands();
    let local = List::open(&named(&names[0])?)?;
    let mut member = local.member(&named(&names[1])?)?;
    if !member.platform.is_object() {
        member.platform = Value::Object(serde_json::Map::new());
    }
    for (flag, field) in [("os", "os"), ("arch", "architecture"), ("variant", "variant"), ("os-version", "os.version")]
    {
        if let Some(text) = given.text(flag).filter(|text| !text.is_empty()) {
            member.platform[field] = text.into();
        }
    }
    let features: Vec<&str> = given.all("os-features").into_iter().flat_map(|list| list.split(',')).collect();
    if !features.is_empty() {
        member.platform["os.features"] = features.into();
    }
    local.put(&member)?;
    Ok(0)
}

async fn push(client: Client, given: Given) -> Result<u8, Error> {
    let target = named(given.operand())?;
    let local = List::open(&target)?;
    let members = local.members()?;
    if members.is_empty() {
        return Err(Error::Invalid(format!("{target} not found: it is to be made with 'berth manifest create'")));
    }
    for member in &members {
        let says =
            |field: &str| member.platform.get(field).and_then(Value::as_str).is_some_and(|text| !text.is_empty());
        if !says("os") || !says("architecture") {
            let name = &member.name;
            return Err(Error::Invalid(format!(
                "manifest {name} must have an OS and Architecture to be pushed to a registry"
            )));
        }
    }
    let (media_type, list) = local.document(&members)?;
    let listed = |member: &Member| ListedManifest {
        reference: member.name.to_string(),
        media_type: member.media_type.clone(),
        manifest: member.raw.clone().into(),
    };
    let request = PutManifestListRequest {
        reference: target.to_string(),
        auth: credentials::find(&target.to_string()),
        manifests: members.iter().map(listed).collect(),
        media_type: media_type.into(),
        list: list.into(),
    };
    let digest = client.images().await?.put_manifest_list(request).await?.into_inner().digest;
    line(&digest)?;
    if given.on("purge") {
        local.remove()?;
    }
    Ok(0)
}

fn remove(given: &Given) -> Result<u8, Error> {
    let mut code = 0;
    for name in given.operands() {
        if let Err(error) = named(&name).and_then(|name| List::open(&name)?.remove()) {
            error.print();
            code = 1;
        }
    }
    Ok(code)
}
