//! `inspect`: all there is to know, in Docker's shape.

use berth_core::Kind;
use berth_proto::berth::{
    image::v1::GetRequest,
    runtime::v1::{InfoRequest, InspectRequest},
};
use clap::Arg;

use super::each::print;
use crate::{
    args::{
        Completes, Entry, Given,
        flag::{switch, value},
    },
    client::Client,
    format::{inspect_container, inspect_image, json::Json, template::Format},
    outcome::Error,
};

pub(crate) const ENTRY: Entry = Entry {
    paths: &["inspect"],
    about: "Show all about containers, images, networks and volumes",
    usage: "[OPTIONS] NAME|ID [NAME|ID...]",
    operands: (1, usize::MAX),
    flags,
    completes: Completes::Both,
    run: |client, given| Box::pin(async move { of_type(client, &given, given.text("type").unwrap_or_default()).await }),
    ..Entry::PLAIN
};

pub(crate) const CONTAINER: Entry = Entry {
    paths: &["container inspect"],
    about: "Show all about one or more containers",
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    completes: Completes::Containers,
    run: |client, given| Box::pin(async move { of_type(client, &given, "container").await }),
    ..ENTRY
};

pub(crate) const IMAGE: Entry = Entry {
    paths: &["image inspect"],
    about: "Show all about one or more images",
    usage: "[OPTIONS] IMAGE [IMAGE...]",
    completes: Completes::Images,
    run: |client, given| Box::pin(async move { of_type(client, &given, "image").await }),
    ..ENTRY
};

pub(crate) const VOLUME: Entry = Entry {
    paths: &["volume inspect"],
    about: "Show all about one or more volumes",
    usage: "[OPTIONS] VOLUME [VOLUME...]",
    completes: Completes::Nothing,
    run: |client, given| Box::pin(async move { of_type(client, &given, "volume").await }),
    ..ENTRY
};

fn flags() -> Vec<Arg> {
    vec![
        value("format", "string", "json, or a Go template for each").short('f'),
        value("type", "string", "Only things of this type: container, image, network or volume"),
        switch("size", "Sizes of containers too").short('s'),
    ]
}

async fn of_type(client: Client, given: &Given, wanted: &str) -> Result<u8, Error> {
    if !matches!(wanted, "" | "container" | "image" | "network" | "volume") {
        return Err(Error::Invalid(format!(
            "{wanted:?} is not a valid value for --type; it is container, image, network or volume"
        )));
    }
    let format = match given.text("format") {
        None | Some("") => None,
        Some("json") => Some(Format::parse("{{json .}}")?),
        Some(format) => Some(Format::parse(format)?),
    };
    let (mut found, mut errors, mut text) = (Vec::new(), Vec::new(), String::new());
    for name in given.operands() {
        match one(&client, &name, wanted, given.on("size")).await {
            Ok(Some(value)) => found.push(value),
            Ok(None) => {
                let what = if wanted.is_empty() { "object" } else { wanted };
                errors.push(format!("Error: No such {what}: {name}"));
            }
            Err(error @ Error::Service(_)) => errors.push(error.to_string()),
            Err(error) => return Err(error),
        }
    }
    match format {
        Some(format) => {
            for value in &found {
                text += &format.execute(&value.to_template())?;
                text.push('\n');
            }
        }
        None => text = Json::List(found).pretty() + "\n",
    }
    print(&text)?;
    for error in &errors {
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), "{error}");
    }
    Ok(u8::from(!errors.is_empty()))
}

async fn one(client: &Client, name: &str, wanted: &str, size: bool) -> Result<Option<Json>, Error> {
    if matches!(wanted, "" | "container") {
        let request = InspectRequest { container: name.to_owned(), size };
        match client.containers().await?.inspect(request).await.map_err(Error::from) {
            Ok(answer) => {
                let container =
                    answer.into_inner().container.ok_or(Error::Contract("Inspect answered no container"))?;
                return Ok(Some(inspect_container::container(&container, size)));
            }
            Err(error) if error.is(Kind::NotFound) => {}
            Err(error) => return Err(error),
        }
    }
    if matches!(wanted, "" | "image") {
        let request = GetRequest { reference: name.to_owned(), ..GetRequest::default() };
        match client.images().await?.get(request).await.map_err(Error::from) {
            Ok(answer) => {
                let image = answer.into_inner().image.ok_or(Error::Contract("Get answered no image"))?;
                let driver =
                    client.system().await?.info(InfoRequest {}).await.map(|info| info.into_inner().storage_driver);
                // It is told where it is known; the image is all the same.
                return Ok(Some(inspect_image::image(&image, &driver.unwrap_or_default())));
            }
            // A name that can be no image's is none.
            Err(error) if error.is(Kind::NotFound) || error.is(Kind::InvalidArgument) => {}
            Err(error) => return Err(error),
        }
    }
    if matches!(wanted, "" | "network")
        && let Some(network) = super::network::find(client, name).await?
    {
        return Ok(Some(network));
    }
    if matches!(wanted, "" | "volume") {
        match super::volume::find(client, name).await {
            // Where only a volume can be meant, the service's own words say it.
            Err(error) if error.is(Kind::NotFound) && wanted.is_empty() => {}
            found => return found.map(Some),
        }
    }
    Ok(None)
}
