//! `load`: images from a tar.

use std::{fs::File, io::Read};

use berth_core::Reference;
use berth_proto::berth::image::v1::{LoadRequest, LoadStart, load_progress, load_request::Message};
use bytes::BytesMut;
use clap::Arg;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{
    each::line,
    progress::{Display, Sink},
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

/// What a message carries.
const CHUNK: usize = 1 << 20;
/// Messages that wait for the connection.
const QUEUE: usize = 4;

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
    let (sender, requests) = mpsc::channel(QUEUE);
    let start = LoadStart { platform: given.text_or_empty("platform"), name: String::new() };
    // The channel is new and holds more than one.
    let _ = sender.try_send(LoadRequest { message: Some(Message::Start(start)) });
    let (failed, failure) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        if let Err(error) = send(source, &sender) {
            // Heard first, then the stream ends.
            let _ = failed.send(error);
        }
    });
    let mut answers = client.images().await?.load(ReceiverStream::new(requests)).await?.into_inner();
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
    if let Ok(source) = failure.try_recv() {
        return Err(Error::Io { what: "cannot read the archive".into(), source });
    }
    for one in loaded {
        match one.name.parse::<Reference>() {
            Ok(name) => line(&format!("Loaded image: {}", name.familiar()))?,
            Err(_) => line(&format!("Loaded image ID: {}", one.image.unwrap_or_default().id))?,
        }
    }
    Ok(0)
}

fn send(mut source: impl Read, sender: &mpsc::Sender<LoadRequest>) -> std::io::Result<()> {
    let mut buffer = BytesMut::new();
    loop {
        buffer.resize(CHUNK, 0);
        let mut filled = 0;
        while filled < CHUNK {
            match source.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(size) => filled += size,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let bytes = buffer.split_to(filled).freeze();
        if bytes.is_empty() || sender.blocking_send(LoadRequest { message: Some(Message::Data(bytes)) }).is_err() {
            return Ok(());
        }
    }
}
