//! `container prune`, `image prune`, `system prune`, and what all prunes have in common: the question before, and the report after.

use std::io::{self, BufRead as _, Write as _};

use berth_proto::berth::{
    image::v1::{PruneRequest as PruneImages, removed::What},
    runtime::v1::{PruneNetworksRequest, PruneRequest, PruneVolumesRequest},
};

use super::each::print;
use crate::{
    args::{
        Entry, Given,
        flag::{list, switch},
    },
    client::Client,
    format::units,
    outcome::Error,
    spec,
};

pub(crate) const CONTAINERS: Entry = Entry {
    paths: &["container prune"],
    about: "Remove all containers that do not run",
    usage: "[OPTIONS]",
    flags: || {
        vec![
            list("filter", "filter", "Only those for which this holds (until=24h, label=tier, label!=keep)"),
            switch("force", "Do not ask").short('f'),
        ]
    },
    run: |client, given| Box::pin(containers(client, given)),
    ..Entry::PLAIN
};

async fn containers(client: Client, given: Given) -> Result<u8, Error> {
    if !given.on("force") && !confirmed("WARNING! This will remove all stopped containers.")? {
        return Err(Error::Invalid("container prune has been cancelled".into()));
    }
    let request = PruneRequest { filters: filters(&given)? };
    let pruned = client.containers().await?.prune(request).await?.into_inner();
    report("Deleted Containers:", &pruned.containers, pruned.reclaimed)?;
    Ok(0)
}

pub(crate) const IMAGES: Entry = Entry {
    paths: &["image prune"],
    about: "Remove images that have no name, or that no container uses",
    usage: "[OPTIONS]",
    flags: || {
        vec![
            switch("all", "Those with a name as well, where no container uses them").short('a'),
            list("filter", "filter", "Only those for which this holds (until=24h, label=tier, label!=keep)"),
            switch("force", "Do not ask").short('f'),
        ]
    },
    run: |client, given| Box::pin(images(client, given)),
    ..Entry::PLAIN
};

pub(crate) const SYSTEM: Entry = Entry {
    paths: &["system prune"],
    about: "Remove what is not used: containers, images, and volumes where that is asked for",
    usage: "[OPTIONS]",
    flags: || {
        vec![
            switch("all", "All images that no container uses, not only those without a name").short('a'),
            list("filter", "filter", "Only those for which this holds (until=24h, label=tier, label!=keep)"),
            switch("force", "Do not ask").short('f'),
            switch("volumes", "Anonymous volumes too"),
        ]
    },
    run: |client, given| Box::pin(system(client, given)),
    ..Entry::PLAIN
};

async fn images(client: Client, given: Given) -> Result<u8, Error> {
    let all = given.on("all");
    let warning = if all {
        "WARNING! This will remove all images without at least one container associated to them."
    } else {
        "WARNING! This will remove all dangling images."
    };
    if !given.on("force") && !confirmed(warning)? {
        return Err(Error::Invalid("image prune has been cancelled".into()));
    }
    let (gone, bytes) = prune_images(&client, all, filters(&given)?).await?;
    report("Deleted Images:", &gone, bytes)?;
    Ok(0)
}

/// Lines as `rmi` prints them, and bytes.
async fn prune_images(client: &Client, all: bool, filters: Vec<String>) -> Result<(Vec<String>, u64), Error> {
    let pruned = client.images().await?.prune(PruneImages { all, filters }).await?.into_inner();
    let lines = pruned.removed.into_iter().filter_map(|removed| match removed.what? {
        What::Untagged(name) => Some(format!("untagged: {name}")),
        What::Deleted(id) => Some(format!("deleted: {id}")),
    });
    Ok((lines.collect(), pruned.reclaimed))
}

async fn system(client: Client, given: Given) -> Result<u8, Error> {
    let (all, volumes) = (given.on("all"), given.on("volumes"));
    let mut warning = String::from(
        "WARNING! This will remove:\n  - all stopped containers\n  - all networks not used by at least one container\n",
    );
    if volumes {
        warning += "  - all anonymous volumes not used by at least one container\n";
    }
    warning += if all {
        "  - all images without at least one container associated to them\n"
    } else {
        "  - all dangling images\n"
    };
    if !given.on("force") && !confirmed(&warning)? {
        return Err(Error::Invalid("system prune has been cancelled".into()));
    }
    let filters = filters(&given)?;
    if volumes && filters.iter().any(|filter| filter.starts_with("until=")) {
        return Err(Error::Invalid("the \"until\" filter is not supported with \"--volumes\"".into()));
    }
    // Containers first: what they have is nobody's then.
    let containers = client.containers().await?.prune(PruneRequest { filters: filters.clone() }).await?.into_inner();
    let mut bytes = containers.reclaimed;
    list_gone("Deleted Containers:", &containers.containers)?;
    let request = PruneNetworksRequest { filters: filters.clone() };
    let networks = client.networks().await?.prune(request).await?.into_inner().networks;
    list_gone("Deleted Networks:", &networks)?;
    if volumes {
        let request = PruneVolumesRequest { all: false, filters: filters.clone() };
        let pruned = client.volumes().await?.prune(request).await?.into_inner();
        list_gone("Deleted Volumes:", &pruned.volumes)?;
        bytes += pruned.reclaimed;
    }
    let (gone, freed) = prune_images(&client, all, filters).await?;
    list_gone("Deleted Images:", &gone)?;
    print(&format!("Total reclaimed space: {}\n", units::size(bytes + freed)))?;
    Ok(0)
}

/// What went.
///
/// # Errors
/// Standard output is gone.
pub(super) fn list_gone(heading: &str, gone: &[String]) -> Result<(), Error> {
    if gone.is_empty() { Ok(()) } else { print(&format!("{heading}\n{}\n\n", gone.join("\n"))) }
}

/// The filters, with the moments in them told as the service wants them.
pub(super) fn filters(given: &Given) -> Result<Vec<String>, Error> {
    let moment = |filter: &str| match filter.strip_prefix("until=") {
        Some(text) => spec::instant(text).map(|moment| format!("until={moment}")),
        None => Ok(filter.to_owned()),
    };
    Ok(given.all("filter").into_iter().map(moment).collect::<Result<_, _>>()?)
}

/// Asks whether to go on. Only a plain yes is one; where nobody is there to answer, nothing goes.
///
/// # Errors
/// The terminal is gone.
pub(super) fn confirmed(warning: &str) -> Result<bool, Error> {
    print(&format!("{warning}\nAre you sure you want to continue? [y/N] "))?;
    let _ = io::stdout().flush();
    let mut answer = String::new();
    let failed = |source| Error::Io { what: "cannot read the answer".into(), source };
    io::stdin().lock().read_line(&mut answer).map_err(failed)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes" | "YES" | "Yes"))
}

/// What went, and what that freed.
///
/// # Errors
/// Standard output is gone.
pub(super) fn report(heading: &str, gone: &[String], bytes: u64) -> Result<(), Error> {
    list_gone(heading, gone)?;
    print(&format!("Total reclaimed space: {}\n", units::size(bytes)))
}
