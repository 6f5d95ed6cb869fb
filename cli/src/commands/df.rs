//! `system df`: what images, containers and volumes take on the disk.

use std::collections::BTreeMap;

use berth_proto::berth::{
    image::v1::{Image, ListRequest as ListImages, UsageRequest, UsageResponse},
    runtime::v1::{Container, ListRequest, ListVolumesRequest, Volume, state::Status},
};
use gotmpl::Value;
use jiff::Timestamp;

use super::{each::print, volume};
use crate::{
    args::{
        Entry, Given,
        flag::{switch, value},
    },
    client::Client,
    format::{
        container, image,
        rows::{Layout, Row, render, value as row_value},
        template, units,
    },
    outcome::Error,
};

pub(crate) const ENTRY: Entry = Entry {
    paths: &["system df"],
    about: "Show how much disk images, containers and volumes use",
    usage: "[OPTIONS]",
    flags: || {
        vec![
            value("format", "string", "table, table TEMPLATE, json, or a Go template for each"),
            switch("verbose", "Each image, container and volume").short('v'),
        ]
    },
    run: |client, given| Box::pin(df(client, given)),
    ..Entry::PLAIN
};

const LAYOUT: Layout = Layout {
    table: "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}",
    quiet: "{{.Type}}",
    headings: &[
        ("Type", "TYPE"),
        ("TotalCount", "TOTAL"),
        ("Active", "ACTIVE"),
        ("Size", "SIZE"),
        ("Reclaimable", "RECLAIMABLE"),
    ],
};
const IMAGES: Layout = Layout {
    table: "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.Containers}}",
    ..image::LAYOUT
};
const CONTAINERS: Layout = Layout {
    table: "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}",
    ..container::LAYOUT
};
const VOLUMES: Layout = Layout { table: "{{.Name}}\t{{.Links}}\t{{.Size}}", ..volume::LAYOUT };
/// Docker's heading of a list that is always empty here: nothing builds.
const CACHE: &str =
    "Build cache usage: 0B\n\nCACHE ID   CACHE TYPE   SIZE      CREATED   LAST USED   USAGE     SHARED\n";

/// What is there.
struct Found {
    usage: UsageResponse,
    images: Vec<Image>,
    containers: Vec<Container>,
    volumes: Vec<Volume>,
}

async fn df(client: Client, given: Given) -> Result<u8, Error> {
    let found = find(&client).await?;
    let format = given.text("format").filter(|format| !format.is_empty());
    let text = match (given.on("verbose"), format) {
        (false, format) => render(&LAYOUT, format, false, found.summary())?,
        (true, None | Some("table")) => found.each()?,
        (true, Some(format)) => {
            let rows = found.rows();
            let rows =
                ["Images", "Containers", "Volumes", "BuildCache"].into_iter().zip(rows.into_iter().chain([vec![]]));
            let whole = rows.map(|(name, rows)| (name, Value::List(rows.into_iter().map(row_value).collect())));
            let format = if format == "json" { "{{json .}}" } else { format };
            template::Format::parse(format)?.execute(&row_value(whole.collect()))? + "\n"
        }
    };
    print(&text)?;
    Ok(0)
}

async fn find(client: &Client) -> Result<Found, Error> {
    let (mut images, mut containers, mut volumes) =
        (client.images().await?, client.containers().await?, client.volumes().await?);
    let usage = images.usage(UsageRequest {}).await?.into_inner();
    let listed = images.list(ListImages { all: true, ..ListImages::default() }).await?.into_inner().images;
    let request = ListRequest { all: true, size: true, ..ListRequest::default() };
    let containers = containers.list(request).await?.into_inner().containers;
    let request = ListVolumesRequest { size: true, ..ListVolumesRequest::default() };
    let volumes = volumes.list(request).await?.into_inner().volumes;
    Ok(Found { usage, images: listed, containers, volumes })
}

fn live(container: &Container) -> bool {
    let status = container.state.as_ref().map(|state| state.status());
    matches!(status, Some(Status::Running | Status::Paused | Status::Restarting))
}

impl Found {
    fn summary(&self) -> Vec<Row> {
        let used = self.images.iter().filter(|image| !image.used_by.is_empty()).count();
        let active = self.containers.iter().filter(|container| live(container)).count();
        let written: u64 = self.containers.iter().map(|container| container.size_rw).sum();
        let stopped = self.containers.iter().filter(|container| !live(container));
        let linked = self.volumes.iter().filter(|volume| !volume.containers.is_empty()).count();
        let size = |volume: &Volume| volume.size.unwrap_or_default();
        let unlinked = self.volumes.iter().filter(|volume| volume.containers.is_empty());
        vec![
            row("Images", self.images.len(), used, self.usage.total, self.usage.unused),
            row("Containers", self.containers.len(), active, written, stopped.map(|container| container.size_rw).sum()),
            row(
                "Local Volumes",
                self.volumes.len(),
                linked,
                self.volumes.iter().map(size).sum(),
                unlinked.map(size).sum(),
            ),
            row("Build Cache", 0, 0, 0, 0),
        ]
    }

    /// Images, containers and volumes, one row each.
    fn rows(&self) -> [Vec<Row>; 3] {
        let now = Timestamp::now();
        let usage: BTreeMap<_, _> = self.usage.images.iter().map(|usage| (usage.id.as_str(), usage)).collect();
        let images = self.images.iter().flat_map(|one| {
            let mut rows = image::rows(one, now, true);
            if let Some(usage) = usage.get(one.id.as_str()) {
                for row in &mut rows {
                    row.insert("Size", units::size(usage.size).into());
                    row.insert("SharedSize", units::size(usage.shared).into());
                    row.insert("UniqueSize", units::size(usage.size.saturating_sub(usage.shared)).into());
                }
            }
            rows
        });
        let containers = self.containers.iter().map(|one| {
            let mut row = container::row(one, now, true);
            row.insert("Size", units::size(one.size_rw).into());
            row
        });
        [images.collect(), containers.collect(), self.volumes.iter().map(volume::row).collect()]
    }

    fn each(&self) -> Result<String, Error> {
        let [images, containers, volumes] = self.rows();
        Ok(format!(
            "Images space usage:\n\n{}\nContainers space usage:\n\n{}\nLocal Volumes space usage:\n\n{}\n{CACHE}",
            render(&IMAGES, None, false, images)?,
            render(&CONTAINERS, None, false, containers)?,
            render(&VOLUMES, None, false, volumes)?,
        ))
    }
}

fn row(kind: &'static str, count: usize, active: usize, size: u64, unused: u64) -> Row {
    let share = (unused * 100).checked_div(size).map(|share| format!(" ({share}%)")).unwrap_or_default();
    Row::from([
        ("Type", kind.into()),
        ("TotalCount", count.to_string().into()),
        ("Active", active.to_string().into()),
        ("Size", units::size(size).into()),
        ("Reclaimable", format!("{}{share}", units::size(unused)).into()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_as_dockers() {
        let mut running = Container { size_rw: 500, ..Container::default() };
        running.state.get_or_insert_default().set_status(Status::Running);
        let image = Image { used_by: vec!["c".into()], ..Image::default() };
        let found = Found {
            usage: UsageResponse { total: 4_000_000, unused: 1_000_000, ..UsageResponse::default() },
            images: vec![image, Image::default()],
            containers: vec![running, Container { size_rw: 1500, ..Container::default() }],
            volumes: vec![Volume { size: Some(7), ..Volume::default() }],
        };
        let text = render(&LAYOUT, None, false, found.summary()).unwrap();
        let expected = "TYPE            TOTAL     ACTIVE    SIZE      RECLAIMABLE\n\
                        Images          2         1         4MB       1MB (25%)\n\
                        Containers      2         1         2kB       1.5kB (75%)\n\
                        Local Volumes   1         0         7B        7B (100%)\n\
                        Build Cache     0         0         0B        0B\n";
        assert_eq!(text, expected);
    }
}
