//! Two ring buffers as one stream in order.
//!
//! The kernel side keeps lifecycles and exchanges on two buffers, so that a burst of exchanges cannot push out a close. But
//! an exchange must not come before its connection's beginning nor after its end. Each item says when it was sent, and was
//! sent no later than it could be read. So:
//!
//! - Before a lifecycle event of time X come the exchange events up to X: they could be read when it could.
//! - When no lifecycle event is left, those up to the time at which the look began. What is later may belong to a connection
//!   whose beginning came since; it is held for the next read.
//!
//! A kernel-side program that is interrupted or preempted while it writes an item keeps all items behind it from being read,
//! but not those of the other buffer. Then nothing that is later than what could be behind it is handed out: the lifecycle
//! event is held, or no exchange is taken. The program goes on when its processor does, which is no matter of user space; so
//! whoever reads asks again later.

/// A buffer that items can be taken from, oldest first.
pub trait Source {
    /// Lends the next item to `take`.
    fn next<R>(&mut self, take: impl FnOnce(&[u8]) -> R) -> Next<R>;
}

/// What a buffer has to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next<R> {
    /// An item, and what was made of it.
    Item(R),
    /// Nothing: all that had been sent has been taken.
    Empty,
    /// Nothing yet: the next item is still being written.
    Blocked,
}

/// The two buffers.
pub struct Merge<L, E> {
    lifecycles: Held<L>,
    exchanges: Option<Held<E>>,
    blocked: bool,
}

/// A buffer, and the item that was taken out of it too early.
struct Held<S> {
    source: S,
    item: Vec<u8>,
    holds: bool,
}

/// What becomes of what may belong behind an item that is still being written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unfinished {
    /// It waits.
    HoldsBack,
    /// It goes on.
    IsPassedOver,
}

/// How far a buffer has been handed out.
enum Reached {
    /// All that was wanted.
    All,
    /// Up to an item that is still being written.
    Blocked,
}

impl<L: Source, E: Source> Merge<L, E> {
    /// Without a second buffer the first is passed on as it is.
    pub fn new(lifecycles: L, exchanges: Option<E>) -> Self {
        Self { lifecycles: Held::new(lifecycles), exchanges: exchanges.map(Held::new), blocked: false }
    }

    /// The first buffer.
    pub fn lifecycles(&self) -> &L {
        &self.lifecycles.source
    }

    /// The second buffer, if there is one.
    pub fn exchanges(&self) -> Option<&E> {
        self.exchanges.as_ref().map(|exchanges| &exchanges.source)
    }

    /// Whether the last read ended at an item that was still being written.
    pub fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Hands out what is there, in order. About `most` items: a lifecycle event's exchanges are not held back for it. Returns how
    /// many.
    ///
    /// `now` is the clock by which the items tell their times.
    ///
    /// # Errors
    /// The first that `each` returns; the rest is left for later.
    pub fn read<F>(
        &mut self,
        most: usize,
        now: impl FnOnce() -> u64,
        mut each: impl FnMut(&[u8]) -> Result<(), F>,
    ) -> Result<usize, F> {
        let fence = if self.exchanges.is_some() { now() } else { 0 };
        self.hand_out(most, fence, Unfinished::HoldsBack, &mut each)
    }

    /// Hands out all that can be read, in spite of items that are still being written: they will not come any more.
    ///
    /// # Errors
    /// The first that `each` returns.
    pub fn read_rest<F>(&mut self, mut each: impl FnMut(&[u8]) -> Result<(), F>) -> Result<(), F> {
        self.hand_out(usize::MAX, u64::MAX, Unfinished::IsPassedOver, &mut each).map(drop)
    }

    /// Hands out about `most` items; when no lifecycle event is left, exchange events up to `fence`. Returns how many.
    fn hand_out<F, G: FnMut(&[u8]) -> Result<(), F>>(
        &mut self,
        most: usize,
        fence: u64,
        unfinished: Unfinished,
        each: &mut G,
    ) -> Result<usize, F> {
        let Self { lifecycles, exchanges, blocked } = self;
        *blocked = false;
        let mut taken_in_all = 0;
        while taken_in_all < most {
            let before = |item: &[u8], each: &mut G| {
                let Some(exchanges) = exchanges else { return Ok(Reached::All) };
                let reached = exchanges.up_to(sent_at(item), usize::MAX, &mut taken_in_all, each)?;
                Ok(if unfinished == Unfinished::IsPassedOver { Reached::All } else { reached })
            };
            match lifecycles.next(before, each) {
                Next::Item(passed) => passed?,
                Next::Blocked if unfinished == Unfinished::HoldsBack => {
                    *blocked = true;
                    return Ok(taken_in_all);
                }
                Next::Empty | Next::Blocked => break,
            }
            taken_in_all += 1;
        }
        if let Some(exchanges) = exchanges {
            let left = most.saturating_sub(taken_in_all);
            let reached = exchanges.up_to(fence, left, &mut taken_in_all, each)?;
            *blocked = matches!(reached, Reached::Blocked);
        }
        Ok(taken_in_all)
    }
}

impl<S: Source> Held<S> {
    fn new(source: S) -> Self {
        Self { source, item: Vec::new(), holds: false }
    }

    /// Hands out the next item, after what must come `before` it; holds it if not all of that has come.
    #[inline]
    fn next<F, G: FnMut(&[u8]) -> Result<(), F>>(
        &mut self,
        before: impl FnOnce(&[u8], &mut G) -> Result<Reached, F>,
        each: &mut G,
    ) -> Next<Result<(), F>> {
        let Self { source, item, holds } = self;
        let was_held = std::mem::take(holds);
        let passed = if was_held {
            Next::Item(match before(item, each) {
                Ok(Reached::All) => each(item),
                Ok(Reached::Blocked) => {
                    *holds = true;
                    Ok(())
                }
                Err(error) => Err(error),
            })
        } else {
            source.next(|next| match before(next, each)? {
                Reached::All => each(next),
                Reached::Blocked => {
                    item.clear();
                    item.extend_from_slice(next);
                    *holds = true;
                    Ok(())
                }
            })
        };
        if *holds { Next::Blocked } else { passed }
    }

    /// Hands out at most so many of the items that were sent up to `limit`, and adds how many to `taken`.
    #[inline]
    fn up_to<F>(
        &mut self,
        limit: u64,
        most: usize,
        taken: &mut usize,
        each: &mut impl FnMut(&[u8]) -> Result<(), F>,
    ) -> Result<Reached, F> {
        let Self { source, item, holds } = self;
        let mut passed = 0;
        while passed < most {
            if *holds {
                if sent_at(item) > limit {
                    break;
                }
                *holds = false;
                each(item)?;
            } else {
                let next = source.next(|next| {
                    if sent_at(next) <= limit {
                        return each(next);
                    }
                    item.clear();
                    item.extend_from_slice(next);
                    *holds = true;
                    Ok(())
                });
                match next {
                    Next::Item(outcome) => outcome?,
                    Next::Empty => break,
                    Next::Blocked => return Ok(Reached::Blocked),
                }
                if *holds {
                    break;
                }
            }
            passed += 1;
            *taken += 1;
        }
        Ok(Reached::All)
    }
}

/// Every event has it in the same place. What is too short to be one is handed out at once, to be counted.
#[inline]
fn sent_at(item: &[u8]) -> u64 {
    item.first_chunk::<16>().and_then(|head| head.last_chunk()).map_or(0, |at| u64::from_ne_bytes(*at))
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, collections::VecDeque, rc::Rc};

    use super::*;
    use proptest::{prelude::*, sample::Index};

    /// What a program of the kernel side does next, at its own pace: it looks at the clock, takes room in the buffer, and
    /// finishes what it wrote there. Others may do the same in between.
    #[derive(Clone, Copy, Debug)]
    struct Step {
        socket: usize,
        halt: Halt,
    }

    /// After what it is held up.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Halt {
        Look,
        Reserve,
        Finish,
    }

    /// A connection's events: one lifecycle event, some exchanges, one lifecycle event. They follow each other.
    #[derive(Clone, Copy, Debug, Default)]
    struct Socket {
        exchanges: usize,
        sent: usize,
        looked_at: Option<u64>,
        /// It has taken room for its next item.
        writes: bool,
    }

    /// An item in a buffer.
    #[derive(Debug)]
    struct Slot {
        socket: usize,
        item: Vec<u8>,
        finished: bool,
    }

    /// The kernel side, running whenever user space does anything.
    #[derive(Debug)]
    struct World {
        clock: u64,
        steps: VecDeque<Step>,
        sockets: Vec<Socket>,
        /// How many steps are taken in between, again and again.
        paces: Vec<usize>,
        pace: usize,
        lifecycles: VecDeque<Slot>,
        exchanges: VecDeque<Slot>,
    }

    impl World {
        fn go_on(&mut self) {
            self.pace = (self.pace + 1) % self.paces.len();
            for _ in 0..self.paces[self.pace] {
                if let Some(step) = self.steps.pop_front() {
                    self.step(step);
                }
            }
        }

        fn step(&mut self, step: Step) {
            self.clock += 1;
            let Step { socket: index, halt } = step;
            let Socket { exchanges, sent, looked_at, writes } = self.sockets[index];
            if sent == exchanges + 2 {
                return;
            }
            let is_lifecycle = sent == 0 || sent == exchanges + 1;
            let ring = if is_lifecycle { &mut self.lifecycles } else { &mut self.exchanges };
            let at = looked_at.unwrap_or(self.clock);
            let socket = &mut self.sockets[index];
            socket.looked_at = Some(at);
            if halt == Halt::Look {
                return;
            }
            if !writes {
                let item = [index as u64, at, sent as u64].map(u64::to_ne_bytes).concat();
                ring.push_back(Slot { socket: index, item, finished: false });
                socket.writes = true;
            }
            if halt == Halt::Reserve {
                return;
            }
            let slot = ring.iter_mut().find(|slot| slot.socket == index && !slot.finished).expect("its room");
            slot.finished = true;
            *socket = Socket { exchanges, sent: sent + 1, looked_at: None, writes: false };
        }
    }

    type Shared = Rc<RefCell<World>>;

    struct Ring(Shared, fn(&mut World) -> &mut VecDeque<Slot>);

    impl Source for Ring {
        fn next<R>(&mut self, take: impl FnOnce(&[u8]) -> R) -> Next<R> {
            self.0.borrow_mut().go_on();
            let slot = match (self.1)(&mut self.0.borrow_mut()) {
                slots if slots.is_empty() => return Next::Empty,
                slots => slots.pop_front_if(|slot| slot.finished),
            };
            slot.map_or(Next::Blocked, |slot| Next::Item(take(&slot.item)))
        }
    }

    fn merge(world: &Shared) -> Merge<Ring, Ring> {
        let lifecycles = Ring(Rc::clone(world), |world| &mut world.lifecycles);
        Merge::new(lifecycles, Some(Ring(Rc::clone(world), |world| &mut world.exchanges)))
    }

    fn world() -> impl Strategy<Value = World> {
        let sockets = prop::collection::vec(0..5usize, 1..8);
        let halt = prop_oneof![Just(Halt::Look), Just(Halt::Reserve), Just(Halt::Finish)];
        let steps = prop::collection::vec((any::<Index>(), halt), 0..300);
        (sockets, steps, prop::collection::vec(0..6usize, 1..20)).prop_map(|(exchanges, steps, paces)| {
            let sockets: Vec<_> =
                exchanges.into_iter().map(|exchanges| Socket { exchanges, ..Socket::default() }).collect();
            let step = |(socket, halt): (Index, Halt)| Step { socket: socket.index(sockets.len()), halt };
            World {
                clock: 1,
                steps: steps.into_iter().map(step).collect(),
                sockets,
                paces,
                pace: 0,
                lifecycles: VecDeque::new(),
                exchanges: VecDeque::new(),
            }
        })
    }

    fn word(item: &[u8], index: usize) -> u64 {
        u64::from_ne_bytes(*item[8 * index..].first_chunk().expect("a word"))
    }

    /// A buffer of finished items, and at its end one that is still being written if so.
    fn ring(slots: &[(u64, u64)], blocked: bool) -> VecDeque<Slot> {
        let slot = |(number, at): &(u64, u64), finished| Slot {
            socket: 0,
            item: [0, *at, *number].map(u64::to_ne_bytes).concat(),
            finished,
        };
        let unfinished = blocked.then(|| slot(&(u64::MAX, 1), false));
        slots.iter().map(|item| slot(item, true)).chain(unfinished).collect()
    }

    fn still(lifecycles: VecDeque<Slot>, exchanges: VecDeque<Slot>) -> Shared {
        let (steps, sockets) = (VecDeque::new(), Vec::new());
        Rc::new(RefCell::new(World { clock: 1, steps, sockets, paces: vec![0], pace: 0, lifecycles, exchanges }))
    }

    #[test]
    fn what_is_still_being_written_holds_back_what_may_come_after_it_until_it_is_given_up() {
        let mut merge = merge(&still(ring(&[(2, 9), (3, 10)], false), ring(&[(1, 5)], true)));
        let mut seen = Vec::new();
        let mut take = |item: &[u8]| {
            seen.push(word(item, 2));
            Ok::<_, ()>(())
        };
        for taken in [1, 0] {
            assert_eq!(merge.read(usize::MAX, || 100, &mut take), Ok(taken));
            assert!(merge.is_blocked());
        }
        merge.read_rest(&mut take).expect("taken");
        assert_eq!(seen, [1, 2, 3]);
    }

    #[test]
    fn no_exchange_is_handed_out_while_a_lifecycle_event_is_being_written() {
        let mut merge = merge(&still(ring(&[], true), ring(&[(1, 5)], false)));
        assert_eq!(merge.read(usize::MAX, || 100, |_| Ok::<_, ()>(())), Ok(0));
        assert!(merge.is_blocked());
    }

    proptest! {
        #[test]
        fn whatever_the_timing_nothing_is_lost_and_each_connection_is_in_order(
            world in world(),
            batches in prop::collection::vec(1..9usize, 1..12),
        ) {
            let world = Rc::new(RefCell::new(world));
            let mut merge = merge(&world);
            let seen_count = world.borrow().sockets.len();
            let mut seen = vec![0; seen_count];
            let mut read = |most: usize| {
                let now = || {
                    world.borrow_mut().go_on();
                    world.borrow().clock
                };
                merge.read(most, now, |item| {
                    let (socket, number) = (word(item, 0) as usize, word(item, 2));
                    prop_assert_eq!(number, seen[socket], "of connection {}", socket);
                    seen[socket] += 1;
                    Ok(())
                })
            };
            for most in batches {
                read(most)?;
            }
            while let Some(step) = { world.borrow_mut().steps.pop_front() } {
                world.borrow_mut().step(step);
            }
            let under_way = (0..seen_count).filter(|socket| world.borrow().sockets[*socket].writes).collect::<Vec<_>>();
            for socket in under_way {
                world.borrow_mut().step(Step { socket, halt: Halt::Finish });
            }
            read(usize::MAX)?;
            let sent: Vec<_> = world.borrow().sockets.iter().map(|socket| socket.sent as u64).collect();
            prop_assert_eq!(seen, sent);
        }

        #[test]
        fn a_batch_ends(most in 1..50usize, there in 0..100usize) {
            let slot = |_| Slot { socket: 0, item: [[0u8; 8], 1u64.to_ne_bytes()].concat(), finished: true };
            let items: VecDeque<_> = (0..there).map(slot).collect();
            let world = Rc::new(RefCell::new(World {
                clock: 1, steps: VecDeque::new(), sockets: Vec::new(), paces: vec![0], pace: 0,
                lifecycles: VecDeque::new(), exchanges: items,
            }));
            let mut count = 0;
            let read = merge(&world).read(most, || 1, |_| {
                count += 1;
                Ok::<_, ()>(())
            });
            prop_assert_eq!((read, count), (Ok(most.min(there)), most.min(there)));
        }
    }
}
