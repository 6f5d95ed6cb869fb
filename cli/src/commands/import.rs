//! `import`: an image from a tar of a root file system.

use std::{fs::File, io::Read};

use berth_proto::berth::image::v1::{ImportRequest, ImportStart, import_request::Message};
use clap::Arg;

use super::{
    each::{line, warn},
    upload::Upload,
};
use crate::{
    args::{
        Entry, Given,
        flag::{list, value},
    },
    client::Client,
    outcome::Error,
};

pub(crate) const ENTRY: Entry = Entry {
    paths: &["import", "image import"],
    about: "Make an image from a tar of a root file system",
    usage: "[OPTIONS] file|- [REPOSITORY[:TAG]]",
    operands: (1, 2),
    flags,
    run: |client, given| Box::pin(import(client, given)),
    ..Entry::PLAIN
};

fn flags() -> Vec<Arg> {
    vec![
        list("change", "list", "Dockerfile instruction that changes the image's configuration").short('c'),
        value("message", "string", "Why it was made").short('m'),
        value("platform", "string", "What it is for (os/architecture[/variant])"),
    ]
}

async fn import(client: Client, given: Given) -> Result<u8, Error> {
    let mut operands = given.operands().into_iter();
    let source = operands.next().unwrap_or_default();
    if source.starts_with("http://") || source.starts_with("https://") {
        return Err(Error::Invalid(format!(
            "berth fetches no archives by their address; do it with: curl -L {source} | berth import -"
        )));
    }
    let tar: Box<dyn Read + Send> = match source.as_str() {
        "-" => Box::new(std::io::stdin()),
        path => Box::new(File::open(path).map_err(Error::io(format!("open {path}")))?),
    };
    let start = ImportStart {
        name: operands.next().unwrap_or_default(),
        changes: given.owned("change"),
        comment: given.text_or_empty("message"),
        platform: given.text_or_empty("platform"),
    };
    let request = |message| ImportRequest { message: Some(message) };
    let (upload, requests) =
        Upload::begin(request(Message::Start(start)), tar, move |data| request(Message::Data(data)));
    let answer = client.images().await?.import(requests).await;
    upload.end()?;
    let answer = answer?.into_inner();
    warn(&answer.warnings);
    line(&answer.image.unwrap_or_default().id)?;
    Ok(0)
}
