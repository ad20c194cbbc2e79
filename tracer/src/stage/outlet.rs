//! The way from the pipeline to the sink. A reader that does not read (a pager that waits for a key, a full pipe) must not keep the
//! tracer from emptying the kernel's buffers, and what it does not read must not pile up.
//!
//! So between a trace and whatever may keep it waiting are a queue of bounded size and a thread that writes. When the queue is full,
//! what comes is dropped, whole records at a time, and the pipeline counts it.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::sink::{Sink, SinkError};
use crate::rights::given_up;

/// What a piece takes beside its bytes, about.
const OVERHEAD: usize = 64;

/// How long a reader is waited for after an error, for each piece: a slow one takes seconds for one of 64 KiB.
const LAST_PATIENCE: Duration = Duration::from_secs(10);

/// How long a queue that is full is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Not at all: the kernel's buffers fill up meanwhile.
    None,
    /// As long as a piece is taken at least this often, and not again after that.
    WhileItMoves(Duration),
    /// As long as it takes: nothing else is left to do.
    Unlimited,
}

/// Whether records are on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Admission {
    /// They are, or have been written.
    Admitted,
    /// There was no room for them.
    Dropped,
}

/// Takes records to the sink.
pub enum Outlet {
    /// At once, however long that takes.
    Direct(Sink),
    /// By way of the queue.
    Queued(Queue),
}

impl Outlet {
    /// One that waits for its reader: for what loses nothing by that, such as a replay.
    pub fn waiting(sink: Sink) -> Self {
        Self::Direct(sink)
    }

    /// One that keeps at most so many bytes, and waits for nobody. A plain file keeps nobody waiting, so it needs no queue.
    ///
    /// # Errors
    /// If the thread that writes cannot be started.
    pub fn unstalled(sink: Sink, most_bytes: usize) -> Result<Self> {
        Ok(if sink.is_plain_file() { Self::Direct(sink) } else { Self::Queued(Queue::new(sink, most_bytes)?) })
    }

    /// Takes whole records.
    ///
    /// # Errors
    /// Why records could not be written, these or earlier ones.
    pub fn write(&mut self, records: &[u8]) -> Result<Admission, SinkError> {
        match self {
            Self::Direct(sink) => sink.write(records).map(|()| Admission::Admitted),
            Self::Queued(queue) => queue.push(records),
        }
    }

    /// Whether more than half of the room is taken.
    pub fn is_pressed(&self) -> bool {
        match self {
            Self::Direct(_) => false,
            Self::Queued(queue) => queue.is_pressed(),
        }
    }

    /// How long a full queue is waited for from now on.
    pub fn set_patience(&mut self, patience: Patience) {
        if let Self::Queued(queue) = self {
            queue.patience = patience;
        }
    }

    /// Waits until all has been written, however long that takes.
    ///
    /// # Errors
    /// As [`Outlet::write`].
    pub fn drain(&mut self) -> Result<(), SinkError> {
        match self {
            Self::Direct(_) => Ok(()),
            Self::Queued(queue) => queue.drain(),
        }
    }
}

/// Records that wait to be written, and the thread that does.
pub struct Queue {
    shared: Arc<Shared>,
    most_bytes: usize,
    patience: Patience,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Something waits, or the end has come.
    filled: Condvar,
    /// Something has been written, or nothing can be any more.
    written: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Box<[u8]>>,
    /// Of what waits and what is being written.
    bytes: usize,
    failure: Option<SinkError>,
    has_failed: bool,
    closed: bool,
}

impl Queue {
    fn new(sink: Sink, most_bytes: usize) -> Result<Self> {
        let shared = Arc::<Shared>::default();
        let theirs = Arc::clone(&shared);
        let (begun, begins) = mpsc::channel();
        let run = move || {
            // It handles what strangers had a hand in, and needs none.
            let outcome = given_up::give_up_all();
            let is_ready = outcome.is_ok();
            let _ = begun.send(outcome);
            if is_ready {
                write_all(sink, &theirs);
            }
        };
        thread::Builder::new()
            .name("output".to_owned())
            .spawn(run)
            .context("cannot start the thread that writes the output")?;
        begins.recv().context("the thread that writes the output has ended")??;
        Ok(Self { shared, most_bytes, patience: Patience::None })
    }

    fn push(&mut self, records: &[u8]) -> Result<Admission, SinkError> {
        let cost = records.len() + OVERHEAD;
        // What is larger than the whole queue goes when nothing else waits.
        let has_room = |state: &State| state.bytes == 0 || state.bytes + cost <= self.most_bytes;
        let limit = match self.patience {
            Patience::None => Some(Duration::ZERO),
            Patience::WhileItMoves(limit) => Some(limit),
            Patience::Unlimited => None,
        };
        let mut state = self.shared.await_while_it_moves(limit, has_room);
        if let Some(failure) = state.failure.take() {
            return Err(failure);
        }
        if state.has_failed || !has_room(&state) {
            // A reader that stands still is not waited for again.
            self.patience = Patience::None;
            return Ok(Admission::Dropped);
        }
        state.bytes += cost;
        state.waiting.push_back(records.into());
        drop(state);
        self.shared.filled.notify_one();
        Ok(Admission::Admitted)
    }

    fn is_pressed(&self) -> bool {
        self.shared.lock().bytes > self.most_bytes / 2
    }

    fn drain(&mut self) -> Result<(), SinkError> {
        let mut state = self.shared.await_while_it_moves(None, State::is_empty);
        state.failure.take().map_or(Ok(()), Err)
    }
}

impl Drop for Queue {
    /// A trace that ends by an error leaves a queue behind. What is in it is written as long as somebody reads: half a line helps
    /// nobody.
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.filled.notify_one();
        drop(self.shared.await_while_it_moves(Some(LAST_PATIENCE), State::is_empty));
    }
}

impl State {
    fn is_empty(&self) -> bool {
        self.bytes == 0
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until that is so, nothing can be written any more, or nothing has been for so long.
    fn await_while_it_moves(&self, limit: Option<Duration>, is_so: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        let (mut seen, mut seen_at) = (state.bytes, Instant::now());
        while !is_so(&state) && !state.has_failed && limit.is_none_or(|limit| seen_at.elapsed() < limit) {
            state = self.await_written(state, limit);
            if state.bytes != seen {
                (seen, seen_at) = (state.bytes, Instant::now());
            }
        }
        state
    }

    fn await_written<'s>(&self, state: MutexGuard<'s, State>, limit: Option<Duration>) -> MutexGuard<'s, State> {
        match limit {
            Some(limit) => self.written.wait_timeout(state, limit).unwrap_or_else(PoisonError::into_inner).0,
            None => self.written.wait(state).unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// The next piece; `None` when no more will come.
    fn next(&self) -> Option<Box<[u8]>> {
        let mut state = self.lock();
        loop {
            if let Some(piece) = state.waiting.pop_front() {
                return Some(piece);
            }
            if state.closed {
                return None;
            }
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Writes what waits until no more comes, or until it cannot be written.
fn write_all(mut sink: Sink, shared: &Shared) {
    while let Some(piece) = shared.next() {
        let written = sink.write(&piece);
        let mut state = shared.lock();
        state.bytes -= piece.len() + OVERHEAD;
        let failed = written.is_err();
        if let Err(failure) = written {
            state.waiting.clear();
            (state.bytes, state.failure, state.has_failed) = (0, Some(failure), true);
        }
        drop(state);
        shared.written.notify_one();
        if failed {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{self, Write},
        sync::mpsc::{self, Receiver, SyncSender},
    };

    use super::*;

    /// Takes one piece for each permit, and hands it on.
    struct Gate {
        permits: Receiver<()>,
        passed: mpsc::Sender<Vec<u8>>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.permits.recv().map_err(|_| io::ErrorKind::BrokenPipe)?;
            let _ = self.passed.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    const MOST: usize = 10 * (10 + OVERHEAD);

    fn gated() -> (Queue, SyncSender<()>, Receiver<Vec<u8>>) {
        let (permit, permits) = mpsc::sync_channel(1_000);
        let (passed, seen) = mpsc::channel();
        (Queue::new(Sink::to(Box::new(Gate { permits, passed })), MOST).expect("a thread"), permit, seen)
    }

    fn piece(index: usize) -> Vec<u8> {
        format!("{index:>9}\n").into_bytes()
    }

    #[test]
    fn what_nobody_reads_is_kept_up_to_the_bound_and_then_dropped_and_what_was_kept_comes_whole_and_in_order() {
        let (mut queue, permit, seen) = gated();
        let admitted =
            (0..1_000).filter(|index| queue.push(&piece(*index)).expect("no failure") == Admission::Admitted);
        let admitted: Vec<_> = admitted.collect();
        assert_eq!(admitted, (0..10).collect::<Vec<_>>(), "as many as there is room for");
        assert!(queue.is_pressed());
        for _ in 0..1_000 {
            permit.send(()).expect("a writer");
        }
        queue.drain().expect("written");
        assert!(!queue.is_pressed());
        assert_eq!(seen.try_iter().collect::<Vec<_>>(), admitted.into_iter().map(piece).collect::<Vec<_>>());
        assert_eq!(queue.push(&piece(0)).expect("no failure"), Admission::Admitted, "there is room again");
    }

    #[test]
    fn a_patient_one_waits_for_a_reader_that_moves_and_drops_nothing() {
        let (mut queue, permit, seen) = gated();
        queue.patience = Patience::WhileItMoves(Duration::from_secs(20));
        let reader = thread::spawn(move || {
            (0..100).for_each(|_| {
                thread::sleep(Duration::from_millis(1));
                permit.send(()).expect("a writer");
            });
        });
        for index in 0..100 {
            assert_eq!(queue.push(&piece(index)).expect("no failure"), Admission::Admitted);
        }
        queue.drain().expect("written");
        reader.join().expect("a reader");
        assert_eq!(seen.try_iter().count(), 100);
    }

    #[test]
    fn a_patient_one_gives_up_on_a_reader_that_stands_still() {
        let (mut queue, _permit, _seen) = gated();
        queue.patience = Patience::WhileItMoves(Duration::from_millis(20));
        let dropped = (0..12).filter(|index| queue.push(&piece(*index)).expect("no failure") == Admission::Dropped);
        assert_eq!(dropped.count(), 2);
    }

    #[test]
    fn what_waits_when_a_queue_is_left_is_written_as_long_as_somebody_reads() {
        let (mut queue, permit, seen) = gated();
        for index in 0..5 {
            assert_eq!(queue.push(&piece(index)).expect("no failure"), Admission::Admitted);
        }
        let reader = thread::spawn(move || {
            (0..5).for_each(|_| {
                thread::sleep(Duration::from_millis(20));
                permit.send(()).expect("a writer");
            });
            permit
        });
        drop(queue);
        assert_eq!(seen.try_iter().collect::<Vec<_>>(), (0..5).map(piece).collect::<Vec<_>>());
        drop(reader.join().expect("a reader"));
    }

    #[test]
    fn a_reader_that_has_gone_is_told_once_and_nobody_waits_for_it() {
        let (mut queue, permit, _seen) = gated();
        queue.patience = Patience::Unlimited;
        drop(permit);
        let failure = (0..100).find_map(|index| queue.push(&piece(index)).err());
        let failure = failure.or_else(|| queue.drain().err());
        assert!(matches!(failure, Some(SinkError::Closed)), "{failure:?}");
        assert!(queue.push(&piece(0)).is_ok());
        assert!(queue.drain().is_ok());
    }

    #[test]
    fn a_piece_larger_than_the_whole_queue_goes_when_nothing_else_waits() {
        let (mut queue, permit, seen) = gated();
        permit.send(()).expect("a writer");
        assert_eq!(queue.push(&[b'x'; 2 * MOST]).expect("no failure"), Admission::Admitted);
        queue.drain().expect("written");
        assert_eq!(seen.recv().expect("a piece").len(), 2 * MOST);
    }
}
