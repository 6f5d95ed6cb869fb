//! Tasks that are gone, with all they hold, the moment they are let go.
//!
//! One that is aborted lives until its executor comes around to it; a socket in it would keep the network namespace after
//! the exit was told.

use std::{
    cell::RefCell,
    future::poll_fn,
    pin::Pin,
    rc::{Rc, Weak},
    task::Poll,
};

type Slot = RefCell<Option<Pin<Box<dyn Future<Output = ()>>>>>;

/// Running tasks. Must not be dropped by one of them.
#[derive(Default)]
pub(super) struct Tasks(RefCell<Vec<Weak<Slot>>>);

impl Tasks {
    /// Runs it beside everything else.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let slot: Rc<Slot> = Rc::new(RefCell::new(Some(Box::pin(task))));
        let mut slots = self.0.borrow_mut();
        slots.retain(|slot| slot.strong_count() > 0);
        slots.push(Rc::downgrade(&slot));
        tokio::task::spawn_local(poll_fn(move |context| {
            let mut task = slot.borrow_mut();
            let done = task.as_mut().is_none_or(|task| task.as_mut().poll(context).is_ready());
            if done {
                task.take();
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        }));
    }

    /// How many have not ended.
    pub(super) fn count(&self) -> usize {
        self.0.borrow().iter().filter(|slot| slot.strong_count() > 0).count()
    }

    /// Ends all.
    pub(super) fn clear(&self) {
        let slots = std::mem::take(&mut *self.0.borrow_mut());
        for slot in slots.iter().filter_map(Weak::upgrade) {
            slot.borrow_mut().take();
        }
    }
}
