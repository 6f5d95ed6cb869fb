//! `volume create`, `ls`, `rm`, `prune`; and what `inspect` shows of a volume.

use std::collections::BTreeMap;

use berth_core::Kind;
use berth_proto::berth::runtime::v1::{
    CreateVolumeRequest, InspectVolumeRequest, ListVolumesRequest, PruneVolumesRequest, RemoveVolumeRequest, Volume,
};

use super::{
    each::{each, line, print},
    list_format::list_format,
    prune::{confirmed, report},
};
use crate::{
    args::{
        Entry, Given,
        flag::{list, switch, value},
    },
    client::Client,
    format::{
        json::{Json, object},
        rows::{Layout, Row, render},
        units,
    },
    outcome::Error,
    spec,
};

pub(crate) const CREATE: Entry = Entry {
    paths: &["volume create"],
    about: "Make a volume",
    usage: "[OPTIONS] [VOLUME]",
    operands: (0, 1),
    flags: || {
        vec![
            value("driver", "string", "Volume driver; there is \"local\"").short('d'),
            list("label", "list", "A label (NAME=value)"),
            value("name", "string", "Name of the volume").hide(true),
            list("opt", "list", "An option of the driver (NAME=value)").short('o'),
        ]
    },
    run: |client, given| Box::pin(create(client, given)),
    ..Entry::PLAIN
};

pub(crate) const LIST: Entry = Entry {
    paths: &["volume ls", "volume list"],
    about: "List volumes",
    usage: "[OPTIONS]",
    flags: || {
        vec![
            list("filter", "filter", "Only those for which this holds (name=data, label=tier, dangling=true)")
                .short('f'),
            value("format", "string", "table, table TEMPLATE, json, or a Go template for each"),
            switch("quiet", "Names only").short('q'),
        ]
    },
    run: |client, given| Box::pin(ls(client, given)),
    ..Entry::PLAIN
};

pub(crate) const REMOVE: Entry = Entry {
    paths: &["volume rm", "volume remove"],
    about: "Remove one or more volumes that no container has",
    usage: "[OPTIONS] VOLUME [VOLUME...]",
    operands: (1, usize::MAX),
    flags: || vec![switch("force", "One that is not there is no error").short('f')],
    run: |client, given| Box::pin(remove(client, given)),
    ..Entry::PLAIN
};

pub(crate) const PRUNE: Entry = Entry {
    paths: &["volume prune"],
    about: "Remove the volumes that no container has",
    usage: "[OPTIONS]",
    flags: || {
        vec![
            switch("all", "Those with a name as well, not only anonymous ones").short('a'),
            list("filter", "filter", "Only those for which this holds (label=tier, label!=keep)"),
            switch("force", "Do not ask").short('f'),
        ]
    },
    run: |client, given| Box::pin(prune(client, given)),
    ..Entry::PLAIN
};

/// How `volume ls` looks.
pub(crate) const LAYOUT: Layout = Layout {
    table: "{{.Driver}}\t{{.Name}}",
    quiet: "{{.Name}}",
    headings: &[
        ("Availability", "AVAILABILITY"),
        ("Driver", "DRIVER"),
        ("Group", "GROUP"),
        ("Labels", "LABELS"),
        ("Links", "LINKS"),
        ("Mountpoint", "MOUNTPOINT"),
        ("Name", "VOLUME NAME"),
        ("Scope", "SCOPE"),
        ("Size", "SIZE"),
        ("Status", "STATUS"),
    ],
};

async fn create(client: Client, given: Given) -> Result<u8, Error> {
    let name = match (given.operand(), given.text("name")) {
        (name, None) => name.to_owned(),
        ("", Some(name)) => name.to_owned(),
        _ => {
            return Err(Error::Invalid(
                "conflicting options: cannot specify a volume-name through both --name and as a positional arg".into(),
            ));
        }
    };
    let request = CreateVolumeRequest {
        name,
        driver: given.text_or_empty("driver"),
        labels: spec::labels(&[], &given.all("label"))?,
        options: spec::labels(&[], &given.all("opt"))?,
    };
    let made = client.volumes().await?.create(request).await?.into_inner().volume;
    line(&made.ok_or(Error::Contract("Create answered no volume"))?.name)?;
    Ok(0)
}

async fn ls(client: Client, given: Given) -> Result<u8, Error> {
    let request = ListVolumesRequest { filters: given.owned("filter"), size: false };
    let volumes = client.volumes().await?.list(request).await?.into_inner().volumes;
    let format = list_format(&given, "volumesFormat", given.on("quiet"));
    print(&render(&LAYOUT, format.as_deref(), given.on("quiet"), volumes.iter().map(row).collect())?)?;
    Ok(0)
}

/// The row of a volume.
pub(crate) fn row(volume: &Volume) -> Row {
    let labels: BTreeMap<_, _> = volume.labels.iter().collect();
    let labels: Vec<_> = labels.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    let none = "N/A".to_owned();
    Row::from([
        ("Availability", none.clone().into()),
        ("Driver", volume.driver.as_str().into()),
        ("Group", none.clone().into()),
        ("Labels", labels.join(",").into()),
        ("Links", volume.size.map_or(none.clone(), |_| volume.containers.len().to_string()).into()),
        ("Mountpoint", volume.mountpoint.as_str().into()),
        ("Name", volume.name.as_str().into()),
        ("Scope", "local".into()),
        ("Size", volume.size.map_or(none.clone(), units::size).into()),
        ("Status", none.into()),
    ])
}

/// A volume by its name, in Docker's shape.
///
/// # Errors
/// It is not there.
pub(crate) async fn find(client: &Client, name: &str) -> Result<Json, Error> {
    let request = InspectVolumeRequest { name: name.into(), size: false };
    let volume = client.volumes().await?.inspect(request).await?.into_inner().volume;
    let volume = volume.ok_or(Error::Contract("Inspect answered no volume"))?;
    let labels: BTreeMap<_, _> = volume.labels.iter().collect();
    let labels = labels.into_iter().map(|(name, value)| (name.clone(), Json::from(value.as_str()))).collect();
    Ok(object! {
        "CreatedAt": volume.created.as_str(),
        "Driver": volume.driver.as_str(),
        "Labels": if volume.labels.is_empty() { Json::NULL } else { Json::Object(labels) },
        "Mountpoint": volume.mountpoint.as_str(),
        "Name": volume.name.as_str(),
        "Options": Json::NULL,
        "Scope": "local",
    })
}

async fn remove(client: Client, given: Given) -> Result<u8, Error> {
    let force = given.on("force");
    let volumes = client.volumes().await?;
    each(given.operands(), |name| {
        let mut volumes = volumes.clone();
        async move {
            match volumes.remove(RemoveVolumeRequest { name: name.clone(), force }).await.map_err(Error::from) {
                Ok(_) => Ok(name),
                Err(error) if force && error.is(Kind::NotFound) => Ok(name),
                Err(error) => Err(error),
            }
        }
    })
    .await
}

async fn prune(client: Client, given: Given) -> Result<u8, Error> {
    let all = given.on("all");
    let which = if all { "all volumes" } else { "anonymous local volumes" };
    let warning = format!("WARNING! This will remove {which} not used by at least one container.");
    if !given.on("force") && !confirmed(&warning)? {
        return Err(Error::Invalid("volume prune has been cancelled".into()));
    }
    let request = PruneVolumesRequest { all, filters: given.owned("filter") };
    let pruned = client.volumes().await?.prune(request).await?.into_inner();
    report("Deleted Volumes:", &pruned.volumes, pruned.reclaimed)?;
    Ok(0)
}
