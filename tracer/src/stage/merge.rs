//! Two ring buffers as one stream in order.
//!
//! The kernel side keeps lifecycles and exchanges on two buffers, so that a burst of exchanges cannot push out a close. But
//! an exchange must not come before its connection's beginning nor after its end. Each item says when it was sent, and was
//! sent no later than it could be read. So:
//!
//! - Before a lifecycle event of time X come the exchange events up to X: they could be read when it could.
//! - When no lifecycle event is left, those up to the time at which the look began. What is later may belong to a connection
//!   whose beginning came since; it is held for the next read.

/// A buffer that items can be taken from, oldest first.
pub trait Source {
    /// Lends the next item to `take`; `None` if none is there.
    fn next<R>(&mut self, take: impl FnOnce(&[u8]) -> R) -> Option<R>;
}

/// The two buffers.
pub struct Merge<L, E> {
    lifecycles: L,
    exchanges: Option<Exchanges<E>>,
}

/// The buffer of the exchanges, and the item that was taken out of it too early.
struct Exchanges<E> {
    source: E,
    held: Vec<u8>,
    holds: bool,
}

impl<L: Source, E: Source> Merge<L, E> {
    /// Without a second buffer the first is passed on as it is.
    pub fn new(lifecycles: L, exchanges: Option<E>) -> Self {
        let exchanges = exchanges.map(|source| Exchanges { source, held: Vec::new(), holds: false });
        Self { lifecycles, exchanges }
    }

    /// The first buffer.
    pub fn lifecycles(&self) -> &L {
        &self.lifecycles
    }

    /// The second buffer, if there is one.
    pub fn exchanges(&self) -> Option<&E> {
        self.exchanges.as_ref().map(|exchanges| &exchanges.source)
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
        let Self { lifecycles, exchanges } = self;
        let mut taken_in_all = 0;
        let fence = if exchanges.is_some() { now() } else { 0 };
        while taken_in_all < most {
            let taken = lifecycles.next(|item| {
                if let Some(exchanges) = exchanges {
                    taken_in_all += exchanges.up_to(sent_at(item), usize::MAX, &mut each)?;
                }
                each(item)
            });
            let Some(taken) = taken else { break };
            taken?;
            taken_in_all += 1;
        }
        if let Some(exchanges) = exchanges {
            taken_in_all += exchanges.up_to(fence, most.saturating_sub(taken_in_all), &mut each)?;
        }
        Ok(taken_in_all)
    }
}

impl<E: Source> Exchanges<E> {
    /// Hands out at most so many of the items that were sent up to `limit`. Returns how many.
    #[inline]
    fn up_to<F>(&mut self, limit: u64, most: usize, each: &mut impl FnMut(&[u8]) -> Result<(), F>) -> Result<usize, F> {
        let Self { source, held, holds } = self;
        let mut passed = 0;
        while passed < most {
            if *holds {
                if sent_at(held) > limit {
                    break;
                }
                *holds = false;
                each(held)?;
            } else {
                let taken = source.next(|item| {
                    if sent_at(item) <= limit {
                        return each(item);
                    }
                    held.clear();
                    held.extend_from_slice(item);
                    *holds = true;
                    Ok(())
                });
                let Some(taken) = taken else { break };
                taken?;
                if *holds {
                    break;
                }
            }
            passed += 1;
        }
        Ok(passed)
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

    /// What a program of the kernel side does next, at its own pace: it looks at the clock, then sends.
    #[derive(Clone, Copy, Debug)]
    struct Step {
        socket: usize,
        /// Other programs may look at the clock and send in between.
        looks_only: bool,
    }

    /// A connection's events: one lifecycle event, some exchanges, one lifecycle event. They follow each other.
    #[derive(Clone, Copy, Debug, Default)]
    struct Socket {
        exchanges: usize,
        sent: usize,
        looked_at: Option<u64>,
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
        lifecycles: VecDeque<Vec<u8>>,
        exchanges: VecDeque<Vec<u8>>,
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
            let Socket { exchanges, sent, looked_at } = self.sockets[step.socket];
            let at = looked_at.unwrap_or(self.clock);
            if sent == exchanges + 2 {
                return;
            }
            let socket = &mut self.sockets[step.socket];
            if step.looks_only {
                socket.looked_at = Some(at);
                return;
            }
            (socket.sent, socket.looked_at) = (sent + 1, None);
            let item = [step.socket as u64, at, sent as u64].map(u64::to_ne_bytes).concat();
            let is_lifecycle = sent == 0 || sent == exchanges + 1;
            if is_lifecycle { &mut self.lifecycles } else { &mut self.exchanges }.push_back(item);
        }
    }

    type Shared = Rc<RefCell<World>>;

    struct Ring(Shared, fn(&mut World) -> &mut VecDeque<Vec<u8>>);

    impl Source for Ring {
        fn next<R>(&mut self, take: impl FnOnce(&[u8]) -> R) -> Option<R> {
            self.0.borrow_mut().go_on();
            let item = (self.1)(&mut self.0.borrow_mut()).pop_front()?;
            Some(take(&item))
        }
    }

    fn merge(world: &Shared) -> Merge<Ring, Ring> {
        let lifecycles = Ring(Rc::clone(world), |world| &mut world.lifecycles);
        Merge::new(lifecycles, Some(Ring(Rc::clone(world), |world| &mut world.exchanges)))
    }

    fn world() -> impl Strategy<Value = World> {
        let sockets = prop::collection::vec(0..5usize, 1..8);
        let steps = prop::collection::vec((any::<Index>(), any::<bool>()), 0..200);
        (sockets, steps, prop::collection::vec(0..6usize, 1..20)).prop_map(|(exchanges, steps, paces)| {
            let sockets: Vec<_> =
                exchanges.into_iter().map(|exchanges| Socket { exchanges, ..Socket::default() }).collect();
            let step = |(socket, looks_only): (Index, bool)| Step { socket: socket.index(sockets.len()), looks_only };
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

    proptest! {
        #[test]
        fn whatever_the_timing_nothing_is_lost_and_each_connection_is_in_order(
            world in world(),
            batches in prop::collection::vec(1..9usize, 1..12),
        ) {
            let world = Rc::new(RefCell::new(world));
            let mut merge = merge(&world);
            let mut seen = vec![0; world.borrow().sockets.len()];
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
            read(usize::MAX)?;
            let sent: Vec<_> = world.borrow().sockets.iter().map(|socket| socket.sent as u64).collect();
            prop_assert_eq!(seen, sent);
        }

        #[test]
        fn a_batch_ends(most in 1..50usize, there in 0..100usize) {
            let items: VecDeque<_> = (0..there).map(|_| [[0u8; 8], 1u64.to_ne_bytes()].concat()).collect();
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
