//! What is known of a connection's TLS: the times of its handshake, and what its hellos say.

use std::rc::Rc;

use tracer_ebpf::{
    SocketRecord, role,
    tls::handshake::{Handshake, flag, phase},
};

use super::{
    clock::span,
    close::Verdict,
    record::{self, Bound, Closer, Confidence, Hello, Nanos, Parts, TlsFailed, TlsFailure, TlsSource},
    shared,
};

/// Traits that take no look-up.
const RECENT: usize = 16;

/// A connection's TLS. Every open one has it, so what many have in common is shared.
#[derive(Default)]
pub(super) struct Tls {
    /// How long the handshake took; while it is under way, when it began (boot clock); 0 if unknown.
    time: u64,
    cpu: Nanos,
    runqueue: Nanos,
    traits: Option<Rc<Traits>>,
}

/// What many connections have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Traits {
    hello: Rc<Hello>,
    seen: Seen,
    /// Whether a TLS library in the process works on it, and which, if that is known.
    library: Option<Option<Rc<str>>>,
}

/// What the kernel side says of a handshake, but for its times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Seen {
    phase: u8,
    flags: u8,
    alert: u8,
}

/// The traits that connections share.
#[derive(Default)]
pub(super) struct Shared {
    all: shared::Shared<Traits>,
    /// Those asked for last, which take no look-up: most handshakes say what one shortly before them said.
    recent: [Option<Rc<Traits>>; RECENT],
}

impl Shared {
    /// The traits with this hello, and what the kernel side says.
    fn share(&mut self, hello: &Rc<Hello>, seen: Seen, library: Option<&Option<Rc<str>>>) -> Rc<Traits> {
        let place = (Rc::as_ptr(hello).addr() / align_of::<Hello>() + usize::from(seen.phase)) % RECENT;
        if let Some(traits) = &self.recent[place]
            && traits.seen == seen
            && Rc::ptr_eq(&traits.hello, hello)
            && traits.library.as_ref() == library
        {
            return Rc::clone(traits);
        }
        let traits = self.all.share(Traits { hello: Rc::clone(hello), seen, library: library.cloned() });
        self.recent[place] = Some(Rc::clone(&traits));
        traits
    }
}

impl Tls {
    /// Takes in what the kernel side knows, unless it is older than what is known.
    #[inline]
    pub fn see_handshake(&mut self, handshake: &Handshake, shared: &mut Shared) {
        if !matches!(handshake.phase, phase::LOOKING | phase::PLAIN) {
            self.see_tls(handshake, shared);
        }
    }

    fn see_tls(&mut self, handshake: &Handshake, shared: &mut Shared) {
        let Handshake { started_at, ended_at, cpu, runqueue, phase, flags, alert_description: alert, .. } = *handshake;
        let known = self.traits.as_deref();
        if known.is_some_and(|known| known.seen.phase > phase) {
            return;
        }
        // A track once lost is not found again.
        let flags = flags | known.map_or(0, |known| known.seen.flags & flag::LOST_TRACK);
        self.time = if is_over(phase) { span(started_at, ended_at).unwrap_or(0) } else { started_at };
        (self.cpu, self.runqueue) = (cpu, runqueue);
        let seen = Seen { phase, flags, alert };
        if known.is_none_or(|known| known.seen != seen) {
            let hello = known.map(|known| Rc::clone(&known.hello)).unwrap_or_default();
            self.traits = Some(shared.share(&hello, seen, known.and_then(|known| known.library.as_ref())));
        }
    }

    /// A handshake that is under way will not be seen to its end.
    pub fn lose_track(&mut self, shared: &mut Shared) {
        let Some(known) = self.traits.as_deref() else { return };
        if matches!(known.seen.phase, phase::CLIENT_HELLO | phase::SERVER_HELLO) {
            let seen = Seen { flags: known.seen.flags | flag::LOST_TRACK, ..known.seen };
            self.traits = Some(shared.share(&known.hello, seen, known.library.as_ref()));
        }
    }

    /// Takes in what the hellos say.
    pub fn see_hello(&mut self, hello: &Rc<Hello>, shared: &mut Shared) {
        let known = self.traits.as_deref();
        let is_news = match known {
            // Equality of what is counted by reference looks at the place first.
            Some(known) => known.hello != *hello,
            None => **hello != Hello::default(),
        };
        if is_news {
            let seen = known.map(|known| known.seen).unwrap_or_default();
            self.traits = Some(shared.share(hello, seen, known.and_then(|known| known.library.as_ref())));
        }
    }

    /// Takes in that a TLS library works on it, and which, if that is known.
    pub fn see_library(&mut self, library: Option<&Rc<str>>, shared: &mut Shared) {
        let known = self.traits.as_deref().cloned().unwrap_or_default();
        self.traits = Some(shared.share(&known.hello, known.seen, Some(&library.cloned())));
    }

    /// What the hellos say, if anything is known of TLS at all.
    pub fn hello(&self) -> Option<&Rc<Hello>> {
        self.traits.as_deref().map(|traits| &traits.hello)
    }

    /// Whether a handshake was seen that came before all data.
    pub fn is_part_of_setup(&self) -> bool {
        self.traits.as_deref().is_some_and(|traits| traits.seen.flags & flag::MID_STREAM == 0)
    }

    /// How long the handshake took, if it succeeded.
    pub fn took(&self) -> Option<Nanos> {
        let traits = self.traits.as_deref()?;
        (traits.seen.phase == phase::DONE && traits.seen.flags & flag::LOST_TRACK == 0 && self.time != 0)
            .then_some(self.time)
    }

    /// Where the handshake's time went.
    pub fn parts(&self) -> Parts {
        let known = self.traits.as_deref().is_some_and(|traits| traits.seen.flags & flag::CPU_UNKNOWN == 0);
        match self.took() {
            Some(took) if known => {
                // The clock that counts what a thread ran leaves interrupts out, and so differs from processor to processor:
                // of a thread that moves it may count a little too much.
                let runqueue = self.runqueue.min(took);
                let cpu = self.cpu.min(took - runqueue);
                Parts { cpu: Some(cpu), runqueue: Some(runqueue), wait: Some(took - runqueue - cpu) }
            }
            _ => Parts::default(),
        }
    }

    /// As the output shows it, of a connection that ended so, if it did.
    pub fn report(&self, socket: &SocketRecord, verdict: Option<Verdict>) -> Option<record::Tls> {
        let traits = self.traits.as_deref()?;
        let has_times = traits.seen.phase != phase::LOOKING;
        let flagged = |bit| has_times.then_some(traits.seen.flags & bit != 0);
        Some(record::Tls {
            hello: Rc::clone(&traits.hello),
            handshake: self.took(),
            parts: self.parts(),
            retried: flagged(flag::RETRIED),
            mid_stream: flagged(flag::MID_STREAM),
            library: traits.library.clone().flatten(),
            source: match (&traits.library, has_times || *traits.hello != Hello::default()) {
                (None, _) => TlsSource::Wire,
                (Some(_), true) => TlsSource::Both,
                (Some(_), false) => TlsSource::Uprobe,
            },
            failed: self.failure(traits, socket, verdict),
        })
    }

    /// By an alert, or by the connection's end before the handshake's.
    fn failure(&self, traits: &Traits, socket: &SocketRecord, verdict: Option<Verdict>) -> Option<TlsFailure> {
        match traits.seen.phase {
            phase::FAILED => {
                let from_client = traits.seen.flags & flag::ALERT_FROM_CLIENT != 0;
                let by = match (socket.role, from_client) {
                    (role::CLIENT, true) | (role::SERVER, false) => Closer::Local,
                    (role::CLIENT, false) | (role::SERVER, true) => Closer::Peer,
                    _ => Closer::None,
                };
                let after = (self.time != 0).then_some(self.time);
                Some(TlsFailure { how: TlsFailed::Alert(traits.seen.alert), by, after })
            }
            phase::CLIENT_HELLO | phase::SERVER_HELLO if traits.seen.flags & flag::LOST_TRACK == 0 => {
                let Verdict { closer, how, .. } = verdict?;
                let until = [socket.end_sign_at, socket.ended_at].into_iter().find(|at| *at != 0).unwrap_or(0);
                Some(TlsFailure { how: TlsFailed::Closed(how), by: closer, after: span(self.time, until) })
            }
            _ => None,
        }
    }

    /// Where its values are bounds or missing.
    pub fn confidence(&self) -> impl Iterator<Item = Confidence> {
        let flags = self.traits.as_deref().map_or(0, |traits| traits.seen.flags);
        // As nearly always.
        let is_plain = flags & (flag::LOST_TRACK | flag::CPU_UNKNOWN | flag::THREADS_CHANGED) == 0;
        let note = |bit, field, bound, why| (flags & bit != 0).then_some(Confidence { field, bound, why });
        let threads = "other threads worked on the handshake between its sends and receives";
        let notes = || {
            [
                note(
                    flag::LOST_TRACK,
                    "tls.handshake_ms",
                    Bound::Unknown,
                    "its records could not be followed to its end",
                ),
                note(
                    flag::CPU_UNKNOWN,
                    "tls.cpu_ms",
                    Bound::Unknown,
                    "the kernel does not tell a thread's processor time",
                ),
                note(flag::THREADS_CHANGED, "tls.cpu_ms", Bound::Lower, threads),
                note(flag::THREADS_CHANGED, "tls.runqueue_ms", Bound::Lower, threads),
                note(flag::THREADS_CHANGED, "tls.wait_ms", Bound::Upper, threads),
            ]
        };
        (!is_plain).then(notes).into_iter().flatten().flatten()
    }
}

/// Whether a handshake in this phase has ended.
const fn is_over(phase: u8) -> bool {
    matches!(phase, phase::DONE | phase::FAILED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_connections_have_in_common_is_kept_once_and_bounded() {
        let mut shared = Shared::default();
        let hello = |sni: &str| Hello { sni: Some(sni.to_owned()), ..Hello::default() };
        let of = |sni: &str, shared: &mut Shared| {
            let mut tls = Tls::default();
            tls.see_hello(&Rc::new(hello(sni)), shared);
            tls.traits.expect("seen")
        };
        let first = of("a", &mut shared);
        for number in 0..5 * shared::GENERATION {
            of(&number.to_string(), &mut shared);
            assert!(Rc::ptr_eq(&first, &of("a", &mut shared)), "used often, never forgotten");
        }
        assert!(shared.all.len() <= 2 * shared::GENERATION);
    }

    #[test]
    fn a_hello_that_says_nothing_is_no_sign_of_tls() {
        let mut tls = Tls::default();
        tls.see_hello(&Rc::default(), &mut Shared::default());
        assert!(tls.hello().is_none());
    }

    #[test]
    fn an_older_word_on_a_handshake_changes_nothing() {
        let mut shared = Shared::default();
        let mut tls = Tls::default();
        let handshake = |phase, ended_at| Handshake {
            started_at: 10,
            ended_at,
            cpu: 3,
            runqueue: 4,
            phase,
            flags: 0,
            alert_level: 0,
            alert_description: 0,
            reserved: 0,
        };
        for (phase, ended_at) in [(phase::SERVER_HELLO, 0), (phase::DONE, 30), (phase::CLIENT_HELLO, 0)] {
            tls.see_handshake(&handshake(phase, ended_at), &mut shared);
        }
        assert_eq!(tls.took(), Some(20));
        assert_eq!(tls.parts(), Parts { cpu: Some(3), runqueue: Some(4), wait: Some(13) });
    }
}
