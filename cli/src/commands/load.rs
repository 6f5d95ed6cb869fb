//! `load`: images from a tar.

use std::{fs::File, io::Read};

use berth_core::Reference;
use berth_proto::berth::image::v1::{LoadRequest, LoadStart, load_progress, load_request::Message};
use clap::Arg;

use super::{
    each::line,
    progress::{Display, Sink},
    upload::Upload,
};
use crate::{
    args::{
        Entry, Given,
        flag::{switch, value},
    },
    client::Client,
    outcome::Error,
    terminal::raw,
};

pub(crate) const ENTRY: Entry = Entry {
    paths: &["load", "image load"],
    about: "Load images from a tar archive or standard input",
    usage: "[OPTIONS]",
    flags,
    run: |client, given| Box::pin(load(client, given)),
    ..Entry::PLAIN
};

fn flags() -> Vec<Arg> {
    vec![
        value("input", "string", "Read from this file instead of standard input").short('i'),
        value("platform", "string", "Only this platform (os/architecture[/variant])"),
        switch("quiet", "No output of the progress").short('q'),
    ]
}

async fn load(client: Client, given: Given) -> Result<u8, Error> {
    let source: Box<dyn Read + Send> = match given.text("input") {
        Some(path) => Box::new(File::open(path).map_err(Error::io(format!("open {path}")))?),
        None if raw::stdin_is_terminal() => {
            return Err(Error::Invalid("requested load from stdin, but stdin is empty".into()));
        }
        None => Box::new(std::io::stdin()),
    };
    let start = LoadStart { platform: given.text_or_empty("platform"), name: String::new() };
    let request = |message| LoadRequest { message: Some(message) };
    let (upload, requests) =
        Upload::begin(request(Message::Start(start)), source, move |data| request(Message::Data(data)));
    let mut answers = client.images().await?.load(requests).await?.into_inner();
    let mut display = (!given.on("quiet")).then(|| Display::new(Sink::Stderr)).filter(|_| raw::stdout_is_terminal());
    let mut loaded = Vec::new();
    while let Some(progress) = answers.message().await? {
        match progress.message {
            Some(load_progress::Message::Layer(layer)) => {
                if let Some(display) = &mut display {
                    display.layer(&layer);
                }
            }
            Some(load_progress::Message::Loaded(image)) => loaded.push(image),
            None => {}
        }
    }
    if let Some(display) = &mut display {
        display.finish();
    }
    upload.end()?;
    for one in loaded {
        match one.name.parse::<Reference>() {
            Ok(name) => line(&format!("Loaded image: {}", name.familiar()))?,
            Err(_) => line(&format!("Loaded image ID: {}", one.image.unwrap_or_default().id))?,
        }
    }
    Ok(0)
}
