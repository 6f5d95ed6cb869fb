//! `images`: the images.

use berth_proto::berth::image::v1::ListRequest;
use clap::Arg;
use jiff::Timestamp;

use super::{each::print, list_format::list_format};
use crate::{
    args::{
        Completes, Entry, Given,
        flag::{list, switch, value},
    },
    client::Client,
    format::{image, rows},
    outcome::Error,
    spec,
};

pub(crate) const ENTRY: Entry = Entry {
    paths: &["images", "image ls", "image list"],
    about: "List images",
    usage: "[OPTIONS] [REPOSITORY[:TAG]]",
    operands: (0, 1),
    flags,
    completes: Completes::Images,
    run: |client, given| Box::pin(images(client, given)),
    ..Entry::PLAIN
};

fn flags() -> Vec<Arg> {
    vec![
        switch("all", "Also those that only others build on").short('a'),
        switch("digests", "With digests"),
        list(
            "filter",
            "filter",
            "Only those for which this holds (reference=…, dangling=true, label=k=v, before=…, since=…, until=24h)",
        )
        .short('f'),
        value("format", "string", "table, table TEMPLATE, json, or a Go template for each"),
        switch("no-trunc", "Nothing shortened"),
        switch("quiet", "IDs only").short('q'),
        switch("tree", "Not supported: an image here is for one platform").hide(true),
    ]
}

async fn images(client: Client, given: Given) -> Result<u8, Error> {
    if given.on("tree") {
        let why = "an image here is for one platform, so there is no tree of them; leave it out".into();
        return Err(Error::Unsupported { flag: "tree".into(), why });
    }
    let moment = |filter: &str| match filter.strip_prefix("until=") {
        Some(text) => spec::instant(text).map(|moment| format!("until={moment}")),
        None => Ok(filter.to_owned()),
    };
    let mut filters: Vec<String> = given.all("filter").into_iter().map(moment).collect::<Result<_, _>>()?;
    filters.extend(given.operands().first().map(|name| format!("reference={name}")));
    let request = ListRequest { filters, all: given.on("all") };
    let mut images = client.images().await?.list(request).await?.into_inner().images;
    // Newest first, then by name, so that lists can be compared.
    images.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.names.cmp(&b.names)));
    let (now, truncate) = (Timestamp::now(), !given.on("no-trunc"));
    let mut rows: Vec<_> = images.iter().flat_map(|one| image::rows(one, now, truncate)).collect();
    if given.on("quiet") && given.text("format").is_none() {
        let mut seen = std::collections::BTreeSet::new();
        rows.retain(|row| seen.insert(row["ID"].to_string()));
    }
    let layout = if given.on("digests") { &image::LAYOUT_WITH_DIGESTS } else { &image::LAYOUT };
    let format = list_format(&given, "imagesFormat", given.on("quiet"));
    print(&rows::render(layout, format.as_deref(), given.on("quiet"), rows)?)?;
    Ok(0)
}
