//! Word of the OOM killer, for those who are told of events.

use std::{os::fd::AsFd as _, rc::Rc};

use tokio::io::Interest;

use crate::{shim::Shim, streams::watched};

impl Shim {
    /// Tells each time the OOM killer strikes, where somebody listens. The exit's record asks the counter itself.
    pub(crate) fn watch_memory(self: &Rc<Self>) {
        if !self.events.are_wanted() {
            return;
        }
        let events = match self.with_container(|engine, container| engine.oom_events(container)) {
            Ok(events) => events,
            Err(error) => return crate::note::note!("warning: {error}"),
        };
        let Ok(fd) = events.as_fd().try_clone_to_owned() else { return };
        let Ok(watched) = watched(fd, Interest::READABLE) else { return };
        let shim = Rc::downgrade(self);
        tokio::task::spawn_local(async move {
            let mut events = events;
            while let Ok(mut ready) = watched.readable().await {
                let Some(shim) = shim.upgrade().filter(|shim| shim.container.borrow().is_some()) else { return };
                ready.clear_ready();
                if events.take() > 0 {
                    shim.events.out_of_memory(&shim);
                }
            }
        });
    }
}
