//! `pull`: an image from its registry.

use berth_core::Reference;
use berth_proto::berth::image::v1::{PullDone, PullRequest, TagsRequest, pull_progress::Message};
use clap::Arg;

use super::{
    each::line,
    progress::{Display, Sink},
};
use crate::{
    args::{
        Completes, Entry, Given,
        flag::{switch, value},
    },
    client::Client,
    credentials,
    outcome::Error,
};

pub(crate) const ENTRY: Entry = Entry {
    paths: &["pull", "image pull"],
    about: "Download an image from a registry",
    usage: "[OPTIONS] NAME[:TAG|@DIGEST]",
    operands: (1, 1),
    flags,
    completes: Completes::Images,
    run: |client, given| Box::pin(pull(client, given)),
    ..Entry::PLAIN
};

fn flags() -> Vec<Arg> {
    vec![
        switch("all-tags", "Every tag of the repository").short('a'),
        switch("disable-content-trust", "Accepted for compatibility; without effect").hide(true),
        value("platform", "string", "Platform of the image (os/architecture[/variant])"),
        switch("quiet", "The name only, when it is here").short('q'),
    ]
}

async fn pull(client: Client, given: Given) -> Result<u8, Error> {
    let typed = given.operand();
    let reference: Reference =
        typed.parse().map_err(|error: berth_core::reference::InvalidReference| error.to_string())?;
    let quiet = given.on("quiet");
    if given.on("all-tags") {
        return all_tags(&client, &given, &reference).await;
    }
    let untagged = reference.digest().is_none() && !typed.rsplit('/').next().unwrap_or(typed).contains(':');
    if untagged && !quiet {
        line("Using default tag: latest")?;
    }
    let platform = given.text_or_empty("platform");
    let done = bring(&client, typed, &platform, (!quiet).then_some(Sink::Stdout)).await?;
    if !quiet {
        line(&format!("Digest: {}", done.digest))?;
        let what = if done.changed { "Downloaded newer image for" } else { "Image is up to date for" };
        line(&format!("Status: {what} {}", reference.familiar()))?;
    }
    line(&reference.to_string())?;
    Ok(0)
}

/// Pulls what every tag of a repository names, one after the other.
async fn all_tags(client: &Client, given: &Given, reference: &Reference) -> Result<u8, Error> {
    let typed = given.operand();
    if reference.digest().is_some() || typed.rsplit('/').next().unwrap_or(typed).contains(':') {
        return Err(Error::Invalid("tag can't be used with --all-tags/-a".into()));
    }
    let quiet = given.on("quiet");
    let repository = reference.repository();
    let request = TagsRequest { repository: repository.clone(), auth: credentials::find(typed) };
    let mut tags = client.images().await?.tags(request).await?.into_inner().tags;
    tags.sort();
    let platform = given.text_or_empty("platform");
    let mut changed = false;
    for tag in tags {
        let name = format!("{repository}:{tag}");
        let done = bring(client, &name, &platform, (!quiet).then_some(Sink::Stdout)).await?;
        changed |= done.changed;
        if !quiet {
            line(&format!("Digest: {}", done.digest))?;
        }
    }
    if !quiet {
        let what = if changed { "Downloaded newer image for" } else { "Image is up to date for" };
        line(&format!("Status: {what} {}", reference.familiar_repository()))?;
    }
    line(&repository)?;
    Ok(0)
}

/// Pulls an image and shows how far it is.
///
/// # Errors
/// It cannot be pulled.
pub(crate) async fn bring(
    client: &Client,
    reference: &str,
    platform: &str,
    sink: Option<Sink>,
) -> Result<PullDone, Error> {
    let auth = credentials::find(reference);
    let request = PullRequest { reference: reference.to_owned(), platform: platform.to_owned(), auth };
    let mut answers = client.images().await?.pull(request).await?.into_inner();
    let mut display = sink.map(Display::new);
    while let Some(progress) = answers.message().await? {
        let done = match &progress.message {
            Some(Message::Done(done)) => Some(done.clone()),
            _ => None,
        };
        if let Some(display) = &mut display {
            display.show(progress);
        }
        if let Some(done) = done {
            return Ok(done);
        }
    }
    Err(Error::Contract("Pull ended without an image"))
}
