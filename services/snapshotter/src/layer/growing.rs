//! A blob that another process is still writing: a reader that waits, without asking again and again, until it is told
//! that more is there.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt as _,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

#[derive(Debug, Default)]
struct State {
    available: u64,
    end: Option<End>,
}

/// How the blob's arrival ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It is whole and its digest is right.
    Finished,
    /// Its writer went away, or whoever asked for the layer.
    Abandoned,
}

/// How far a blob has arrived, and how far it was read; shared by who hears of it and who reads.
#[derive(Debug, Default)]
pub(crate) struct Arrival {
    state: Mutex<State>,
    changed: Condvar,
    consumed: watch::Sender<u64>,
}

impl Arrival {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole after every assignment, whoever panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This many bytes can be read by now.
    pub(crate) fn advance(&self, available: u64) {
        let mut state = self.lock();
        state.available = state.available.max(available);
        self.changed.notify_all();
    }

    /// Nothing more will come. The first end counts.
    pub(crate) fn end(&self, end: End) {
        let mut state = self.lock();
        state.end.get_or_insert(end);
        self.changed.notify_all();
    }

    /// Nobody waits for the layer any more; also where the blob has been said to be whole.
    pub(crate) fn abandon(&self) {
        self.lock().end = Some(End::Abandoned);
        self.changed.notify_all();
    }

    /// Waits until more than `position` can be read, or the end.
    fn beyond(&self, position: u64) -> (u64, Option<End>) {
        let mut state = self.lock();
        while state.available <= position && state.end.is_none() {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        (state.available, state.end)
    }

    /// Tells whenever more of the blob was read; always only the newest number.
    pub(crate) fn consumed(&self) -> watch::Receiver<u64> {
        self.consumed.subscribe()
    }

    /// Whether nobody wants it any more.
    pub(crate) fn abandoned(&self) -> bool {
        self.lock().end == Some(End::Abandoned)
    }

    /// Waits for the end.
    pub(crate) fn ended(&self) -> End {
        let mut state = self.lock();
        loop {
            match state.end {
                Some(end) => return end,
                None => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

/// Reads a blob as far as it has arrived, then waits for more.
#[derive(Debug)]
pub(crate) struct Growing {
    file: File,
    position: u64,
    arrival: Arc<Arrival>,
}

impl Growing {
    pub(crate) fn new(file: File, arrival: Arc<Arrival>) -> Self {
        Self { file, position: 0, arrival }
    }
}

impl Read for Growing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (available, end) = self.arrival.beyond(self.position);
        if end == Some(End::Abandoned) {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the blob's writer went away"));
        }
        // A finished blob is read to the file's end, whatever the last message said.
        let limit = if end.is_some() { u64::MAX } else { available };
        let want = buffer.len().min(usize::try_from(limit - self.position).unwrap_or(usize::MAX));
        let size = self.file.read_at(&mut buffer[..want], self.position)?;
        self.position += size as u64;
        if size == 0 && want > 0 && end.is_none() {
            return Err(io::Error::other("the file is shorter than was said"));
        }
        self.arrival.consumed.send_replace(self.position);
        Ok(size)
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, thread};

    use super::*;

    #[test]
    fn waits_for_what_is_still_to_come() {
        let mut file = tempfile::tempfile().unwrap();
        let arrival = Arc::new(Arrival::default());
        let mut reader = Growing::new(file.try_clone().unwrap(), Arc::clone(&arrival));
        let reading = thread::spawn(move || {
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes).map(|_| bytes)
        });
        for part in [b"one ", b"two ", b"six "] {
            file.write_all(part).unwrap();
            arrival.advance(file.metadata().unwrap().len());
        }
        arrival.end(End::Finished);
        assert_eq!(reading.join().unwrap().unwrap(), b"one two six ");
    }

    #[test]
    fn bytes_that_are_not_there_are_an_error() {
        let arrival = Arc::new(Arrival::default());
        let mut reader = Growing::new(tempfile::tempfile().unwrap(), Arc::clone(&arrival));
        arrival.advance(10);
        assert!(reader.read(&mut [0; 8]).unwrap_err().to_string().contains("shorter"));
    }

    #[test]
    fn who_finishes_and_goes_away_wants_nothing() {
        let arrival = Arc::new(Arrival::default());
        arrival.end(End::Finished);
        arrival.end(End::Abandoned);
        assert!(!arrival.abandoned(), "the end of what was said is no farewell");
        arrival.abandon();
        arrival.end(End::Finished);
        assert_eq!(arrival.ended(), End::Abandoned);
    }

    #[test]
    fn a_writer_that_goes_away_is_an_error() {
        let arrival = Arc::new(Arrival::default());
        let mut reader = Growing::new(tempfile::tempfile().unwrap(), Arc::clone(&arrival));
        arrival.end(End::Abandoned);
        assert!(reader.read(&mut [0; 8]).is_err());
    }
}
