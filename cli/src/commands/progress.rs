//! How far a pull or load is: bars on a terminal, a line for each step elsewhere.

use std::{
    collections::HashMap,
    io::{self, IsTerminal as _, Write as _},
};

use berth_core::Reference;
use berth_proto::berth::image::v1::{LayerProgress, PullProgress, layer_progress::Phase, pull_progress::Message};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Where progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sink {
    /// Standard output, as `pull` does.
    Stdout,
    /// Standard error, because standard output is the container's or an ID's.
    Stderr,
}

/// Shows progress.
pub(crate) struct Display {
    sink: Sink,
    bars: Option<MultiProgress>,
    layers: HashMap<String, Layer>,
}

struct Layer {
    bar: Option<ProgressBar>,
    phase: Phase,
}

impl Display {
    /// Begins; nothing is shown yet.
    pub(crate) fn new(sink: Sink) -> Self {
        let (terminal, target) = match sink {
            Sink::Stdout => (io::stdout().is_terminal(), ProgressDrawTarget::stdout()),
            Sink::Stderr => (io::stderr().is_terminal(), ProgressDrawTarget::stderr()),
        };
        Self { sink, bars: terminal.then(|| MultiProgress::with_draw_target(target)), layers: HashMap::new() }
    }

    /// Shows what a pull says.
    pub(crate) fn show(&mut self, progress: PullProgress) {
        match progress.message {
            Some(Message::Plan(plan)) => {
                if let Ok(name) = plan.name.parse::<Reference>() {
                    self.line(&format!("{}: Pulling from {}", name.target(), name.path()));
                }
                for layer in plan.layers {
                    self.step(&layer.digest, Phase::Waiting, 0, layer.size);
                }
            }
            Some(Message::Layer(layer)) => self.layer(&layer),
            Some(Message::Notice(notice)) => self.notice(&notice),
            Some(Message::Done(_)) => self.finish(),
            None => {}
        }
    }

    /// Shows how far one layer is.
    pub(crate) fn layer(&mut self, layer: &LayerProgress) {
        self.step(&layer.digest, layer.phase(), layer.current, layer.total);
    }

    fn step(&mut self, digest: &str, phase: Phase, current: u64, total: u64) {
        let id = digest.strip_prefix("sha256:").unwrap_or(digest);
        let id = id.get(..12).unwrap_or(id);
        let known = self.layers.get(digest).map(|layer| layer.phase);
        let bars = self.bars.as_ref();
        let layer = self.layers.entry(digest.to_owned()).or_insert_with(|| {
            let bar = bars.map(|bars| bars.add(ProgressBar::new(total).with_prefix(id.to_owned())));
            Layer { bar, phase }
        });
        layer.phase = phase;
        match &layer.bar {
            Some(bar) => {
                if known != Some(phase) {
                    bar.set_style(style(phase));
                    bar.set_message(word(phase));
                }
                bar.set_length(total.max(current));
                bar.set_position(current);
                if matches!(phase, Phase::Complete | Phase::Exists) {
                    bar.finish();
                }
            }
            // Only the steps that people know from Docker's plain output.
            None => {
                let begun = |phase: Option<Phase>| !matches!(phase, None | Some(Phase::Waiting | Phase::Unspecified));
                if begun(Some(phase)) && !begun(known) && phase != Phase::Exists {
                    self.line(&format!("{id}: {}", word(Phase::Waiting)));
                }
                if known != Some(phase) && matches!(phase, Phase::Complete | Phase::Exists) {
                    self.line(&format!("{id}: {}", word(phase)));
                }
            }
        }
    }

    /// The bars stay as they are and lines follow them.
    pub(crate) fn finish(&mut self) {
        for layer in self.layers.values() {
            if let Some(bar) = &layer.bar {
                bar.abandon();
            }
        }
        self.bars = None;
    }

    /// A line above the bars.
    pub(crate) fn line(&self, text: &str) {
        // A reader that is gone misses nothing but this.
        let _ = match (&self.bars, self.sink) {
            (Some(bars), _) => bars.println(text),
            (None, Sink::Stdout) => writeln!(io::stdout(), "{text}"),
            (None, Sink::Stderr) => writeln!(io::stderr(), "{text}"),
        };
    }

    fn notice(&self, text: &str) {
        let _ = match &self.bars {
            Some(bars) => bars.println(text),
            None => writeln!(io::stderr(), "{text}"),
        };
    }
}

impl Drop for Display {
    /// What was reached stays on the screen, also where the pull fails.
    fn drop(&mut self) {
        for layer in self.layers.values() {
            if let Some(bar) = &layer.bar {
                bar.abandon();
            }
        }
    }
}

fn word(phase: Phase) -> &'static str {
    match phase {
        Phase::Unspecified | Phase::Waiting => "Pulling fs layer",
        Phase::Downloading => "Downloading",
        Phase::Verifying => "Verifying Checksum",
        Phase::Unpacking => "Extracting",
        Phase::Complete => "Pull complete",
        Phase::Exists => "Already exists",
    }
}

fn style(phase: Phase) -> ProgressStyle {
    let template = match phase {
        Phase::Downloading | Phase::Unpacking => {
            "{prefix}: {msg:<18} [{bar:50}] {decimal_bytes:>9}/{decimal_total_bytes:<9}"
        }
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
        for phase in [Phase::Waiting, Phase::Downloading, Phase::Unpacking, Phase::Complete] {
            let bar = ProgressBar::hidden().with_prefix("x");
            bar.set_style(style(phase));
            bar.set_message(word(phase));
        }
        for template in
            ["{prefix}: {msg:<18} [{bar:50}] {decimal_bytes:>9}/{decimal_total_bytes:<9}", "{prefix}: {msg}"]
        {
            assert!(ProgressStyle::with_template(template).is_ok());
        }
    }
}
