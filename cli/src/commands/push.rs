//! `push`: images to their registry.

use std::{
    collections::HashMap,
    io::{self, IsTerminal as _, Write as _},
};

use berth_core::Reference;
use berth_proto::berth::image::v1::{PushLayer, PushRequest, PushedTag, push_layer::Phase, push_progress::Message};
use clap::Arg;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::each::line;
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
    paths: &["push", "image push"],
    about: "Upload an image to a registry",
    usage: "[OPTIONS] NAME[:TAG]",
    operands: (1, 1),
    flags,
    completes: Completes::Images,
    run: |client, given| Box::pin(push(client, given)),
    ..Entry::PLAIN
};

fn flags() -> Vec<Arg> {
    vec![
        switch("all-tags", "Every tag of the repository").short('a'),
        switch("disable-content-trust", "Accepted for compatibility; without effect").hide(true),
        value("platform", "string", "Only where the image is for this platform (os[/arch[/variant]])"),
        switch("quiet", "The name only, when it is there").short('q'),
    ]
}

async fn push(client: Client, given: Given) -> Result<u8, Error> {
    let typed = given.operand();
    let reference: Reference =
        typed.parse().map_err(|error: berth_core::reference::InvalidReference| error.to_string())?;
    let (quiet, all_tags) = (given.on("quiet"), given.on("all-tags"));
    if reference.digest().is_some() {
        return Err(Error::Invalid("cannot push a digest reference".into()));
    }
    let tagged = typed.rsplit('/').next().unwrap_or(typed).contains(':');
    match (all_tags, tagged) {
        (true, true) => return Err(Error::Invalid("tag can't be used with --all-tags/-a".into())),
        (false, false) if !quiet => line("Using default tag: latest")?,
        _ => {}
    }
    let request = PushRequest {
        reference: typed.to_owned(),
        all_tags,
        platform: given.text_or_empty("platform"),
        auth: credentials::find(typed),
    };
    let mut answers = client.images().await?.push(request).await?.into_inner();
    let mut display = (!quiet).then(Display::new);
    while let Some(progress) = answers.message().await? {
        match (progress.message, &mut display) {
            (Some(message), Some(display)) => display.show(message),
            (Some(Message::Notice(notice)), None) => drop(writeln!(io::stderr(), "{notice}")),
            _ => {}
        }
    }
    if quiet {
        line(&if all_tags { reference.repository() } else { reference.to_string() })?;
    }
    Ok(0)
}

/// Bars on a terminal, a line for each step elsewhere.
struct Display {
    bars: Option<MultiProgress>,
    layers: HashMap<String, (Option<ProgressBar>, Phase)>,
}

impl Display {
    fn new() -> Self {
        let terminal = io::stdout().is_terminal();
        let bars = terminal.then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stdout()));
        Self { bars, layers: HashMap::new() }
    }

    fn show(&mut self, message: Message) {
        match message {
            Message::Start(start) => self.line(&format!("The push refers to repository [{}]", start.repository)),
            Message::Layer(layer) => self.layer(&layer),
            Message::Notice(notice) => match &self.bars {
                Some(bars) => drop(bars.println(notice)),
                None => drop(writeln!(io::stderr(), "{notice}")),
            },
            Message::Tag(PushedTag { tag, digest, size }) => {
                self.settle();
                self.line(&format!("{tag}: digest: {digest} size: {size}"));
            }
        }
    }

    fn layer(&mut self, layer: &PushLayer) {
        let id = layer.diff_id.strip_prefix("sha256:").unwrap_or(&layer.diff_id);
        let id = id.get(..12).unwrap_or(id);
        let phase = layer.phase();
        let word = match phase {
            Phase::Unspecified | Phase::Preparing => "Preparing".to_owned(),
            Phase::Pushing => "Pushing".to_owned(),
            Phase::Pushed => "Pushed".to_owned(),
            Phase::Exists => "Layer already exists".to_owned(),
            Phase::Mounted => format!("Mounted from {}", layer.from),
        };
        let known = self.layers.get(&layer.diff_id).map(|(_, phase)| *phase);
        let bars = self.bars.as_ref();
        let (bar, last) = self.layers.entry(layer.diff_id.clone()).or_insert_with(|| {
            (bars.map(|bars| bars.add(ProgressBar::new(layer.total).with_prefix(id.to_owned()))), phase)
        });
        *last = phase;
        match bar {
            Some(bar) => {
                if known != Some(phase) {
                    bar.set_style(style(phase));
                    bar.set_message(word);
                }
                bar.set_length(layer.total.max(layer.current));
                bar.set_position(layer.current);
                if matches!(phase, Phase::Pushed | Phase::Exists | Phase::Mounted) {
                    bar.abandon();
                }
            }
            // Bytes are for a terminal.
            None if known != Some(phase) && phase != Phase::Pushing => self.line(&format!("{id}: {word}")),
            None => {}
        }
    }

    /// What follows has bars of its own.
    fn settle(&mut self) {
        for (bar, _) in self.layers.values() {
            bar.iter().for_each(ProgressBar::abandon);
        }
        self.layers.clear();
        if self.bars.is_some() {
            self.bars = Some(MultiProgress::with_draw_target(ProgressDrawTarget::stdout()));
        }
    }

    /// A reader that is gone misses nothing but this.
    fn line(&self, text: &str) {
        let _ = match &self.bars {
            Some(bars) => bars.println(text),
            None => writeln!(io::stdout(), "{text}"),
        };
    }
}

impl Drop for Display {
    /// What was reached stays on the screen, also where the push fails.
    fn drop(&mut self) {
        for (bar, _) in self.layers.values() {
            bar.iter().for_each(ProgressBar::abandon);
        }
    }
}

fn style(phase: Phase) -> ProgressStyle {
    let template = match phase {
        Phase::Pushing => "{prefix}: {msg} [{bar:50}] {decimal_bytes:>9}/{decimal_total_bytes:<9}",
        _ => "{prefix}: {msg}",
    };
    // The templates are ours; one that could not be read would only look plainer.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_style_is_a_template() {
        for template in ["{prefix}: {msg} [{bar:50}] {decimal_bytes:>9}/{decimal_total_bytes:<9}", "{prefix}: {msg}"] {
            assert!(ProgressStyle::with_template(template).is_ok());
        }
        let _ = style(Phase::Pushing);
    }
}
