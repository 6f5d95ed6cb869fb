//! What happens to images, told to whoever listens just then. The runtime service does, and keeps what people ask for later;
//! nothing is kept here.

use std::collections::BTreeMap;

use tokio::sync::broadcast;

/// A listener that is slower by more than this misses the oldest.
const MOST: usize = 256;

/// Something that happened.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) time: jiff::Timestamp,
    /// "pull", "push", "tag", "untag", "delete", "load", "save", "import", "prune"
    pub(crate) action: &'static str,
    /// An image's ID; for "pull" and "push" the name that was pulled or pushed.
    pub(crate) id: String,
    /// "name", and the image's labels.
    pub(crate) attributes: BTreeMap<String, String>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Events(broadcast::Sender<Event>);

impl Default for Events {
    fn default() -> Self {
        Self(broadcast::Sender::new(MOST))
    }
}

impl Events {
    /// Says it.
    pub(crate) fn say(
        &self,
        action: &'static str,
        id: impl Into<String>,
        attributes: impl IntoIterator<Item = (String, String)>,
    ) {
        let (id, attributes) = (id.into(), attributes.into_iter().collect());
        // That nobody listens is no error.
        let _ = self.0.send(Event { time: jiff::Timestamp::now(), action, id, attributes });
    }

    /// Says it of an image by its name.
    pub(crate) fn named(&self, action: &'static str, id: impl Into<String>, name: impl Into<String>) {
        self.say(action, id, [("name".to_owned(), name.into())]);
    }

    /// Everything from now on.
    pub(crate) fn listen(&self) -> broadcast::Receiver<Event> {
        self.0.subscribe()
    }
}
