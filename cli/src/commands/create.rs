//! `create`: a container that is there and does not run yet. The image is pulled where it is not here.

use std::{
    fs,
    io::{self, Write as _},
    path::Path,
};

use berth_core::{Failure, Reference};
use berth_proto::berth::{
    image::v1::{GetRequest, PullProgress},
    runtime::v1::{ContainerSpec, CreateRequest, Created, create_progress::Message, create_request::PullPolicy},
};
use prost::Message as _;

use super::{
    each::{line, warn},
    progress::{Display, Sink},
    pull,
};
use crate::{
    args::{Completes, Entry, Given},
    client::Client,
    credentials,
    outcome::Error,
    spec,
};

pub(crate) const ENTRY: Entry = Entry {
    paths: &["create", "container create"],
    about: "Create a container without starting it",
    usage: "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    operands: (1, usize::MAX),
    ends_at: 1,
    flags: spec::flags,
    completes: Completes::Images,
    codes: (125, 1),
    run: |client, given| Box::pin(create(client, given)),
};

async fn create(client: Client, given: Given) -> Result<u8, Error> {
    let created = Box::pin(make(&client, &given, spec::build(&given)?)).await?;
    line(&created.id)?;
    Ok(0)
}

/// Makes the container.
///
/// # Errors
/// The service says no, or the file for the ID cannot be written.
pub(crate) async fn make(client: &Client, given: &Given, mut spec: ContainerSpec) -> Result<Created, Error> {
    let policy = match given.text("pull").unwrap_or("missing") {
        "missing" | "" => PullPolicy::Missing,
        "always" => PullPolicy::Always,
        "never" => PullPolicy::Never,
        other => {
            return Err(Error::Invalid(format!(
                "invalid pull option: '{other}': must be one of always, missing or never"
            )));
        }
    };
    let cidfile = given.text("cidfile");
    if let Some(file) = cidfile.filter(|file| Path::new(file).exists()) {
        return Err(Error::Invalid(format!(
            "container ID file found, make sure the other container isn't running or delete {file}"
        )));
    }
    if given.on("publish-all") {
        let exposed = exposed_by_image(client, given, &spec, policy).await?;
        spec::publish_all(given, &exposed, &mut spec)?;
    }
    let created = request(client, given, spec, policy).await?;
    warn(&created.warnings);
    if let Some(file) = cidfile {
        fs::write(file, &created.id).map_err(Error::io(format!("failed to write the container ID to {file}")))?;
    }
    Ok(created)
}

/// Asks for the container. Credentials are looked for only where something may have to be pulled, because a helper program
/// takes its time.
async fn request(client: &Client, given: &Given, spec: ContainerSpec, policy: PullPolicy) -> Result<Created, Error> {
    let name = given.text_or_empty("name");
    let request =
        |policy, auth| CreateRequest { name: name.clone(), spec: Some(spec.clone()), pull: policy as i32, auth };
    if policy == PullPolicy::Missing && credentials::may_be_there() {
        match follow(client, given, request(PullPolicy::Never, None), &spec.image).await {
            Err(Error::Service(Failure { reason, .. })) if reason == "IMAGE_NOT_FOUND" => {}
            other => return other,
        }
    }
    let auth = if policy == PullPolicy::Never { None } else { credentials::find(&spec.image) };
    follow(client, given, request(policy, auth.map(credentials::for_create)), &spec.image).await
}

async fn follow(client: &Client, given: &Given, request: CreateRequest, image: &str) -> Result<Created, Error> {
    let announced = request.pull == PullPolicy::Missing as i32;
    let mut answers = client.containers().await?.create(request).await?.into_inner();
    let mut display = None;
    while let Some(answer) = answers.message().await? {
        match answer.message {
            Some(Message::Created(created)) => return Ok(created),
            Some(Message::Pull(bytes)) if !given.on("quiet") => {
                let display = display.get_or_insert_with(|| {
                    if announced {
                        let name = image.parse::<Reference>().map_or(image.to_owned(), |name| name.familiar());
                        let _ = writeln!(io::stderr(), "Unable to find image '{name}' locally");
                    }
                    Display::new(Sink::Stderr)
                });
                if let Ok(progress) = PullProgress::decode(bytes) {
                    display.show(progress);
                }
            }
            _ => {}
        }
    }
    Err(Error::Contract("Create ended without a container"))
}

/// The ports that the image exposes; it is pulled where the policy says so, because they are in it.
async fn exposed_by_image(
    client: &Client,
    given: &Given,
    spec: &ContainerSpec,
    policy: PullPolicy,
) -> Result<Vec<String>, Error> {
    let mut images = client.images().await?;
    let get = || GetRequest { reference: spec.image.clone(), platform: spec.platform.clone(), ..GetRequest::default() };
    let found = if policy == PullPolicy::Always { None } else { images.get(get()).await.ok() };
    let image = match found {
        Some(found) => found.into_inner().image,
        None if policy == PullPolicy::Never => images.get(get()).await?.into_inner().image,
        None => {
            pull::bring(client, &spec.image, &spec.platform, (!given.on("quiet")).then_some(Sink::Stderr)).await?.image
        }
    };
    let config = image.map(|image| image.config).unwrap_or_default();
    let config: serde_json::Value = serde_json::from_slice(&config).unwrap_or_default();
    let ports = config.pointer("/config/ExposedPorts").and_then(serde_json::Value::as_object);
    Ok(ports.into_iter().flatten().map(|(port, _)| port.clone()).collect())
}
