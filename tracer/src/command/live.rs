//! A live trace: loads and attaches the hooks, adopts what was open before, reads events until something says stop, and
//! ends with the present state of what is still open, the losses and the summary.

use std::{
    collections::HashSet,
    future::{Future, pending},
    net::{IpAddr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use aya::Ebpf;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, sleep_until},
};
use tracer_ebpf::{MISSING, SocketRecord, detail};

use super::{
    Opened, interrupt, limits,
    overload::{self, Watch},
    pace::{Pace, Periodic},
    talk,
    ticker::Ticker,
    tls_libraries::TlsLibraries,
};
use crate::{
    bpf::{
        self, Loaded, Settings,
        detail::{DetailHooks, Link},
        library_probes::LibraryProbes,
        trial,
    },
    cli,
    findings::Findings,
    kernel::{btf::Btf, features, offsets},
    memory::Budget,
    output::recording,
    overhead::governor::Change,
    rights::{
        Held, Right, advice,
        given_up::{self, Later},
        table,
    },
    stage::{
        event::UserEvent,
        outlet::{Outlet, Patience},
        pipeline::Pipeline,
        read::Reader,
        recorder::Recorder,
    },
    target::{adoption, marks, open_sockets, process, selection::Selection},
    track::{Clock, Correlator},
};

/// How often whether any target is left is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often losses are reported while something happens: with a tick and what waits, they are told within a second.
const LOOK_FOR_LOSSES_EVERY: Duration = Duration::from_millis(500);
/// How often losses are reported while nothing happens: the counters take a call each.
const LOOK_WHEN_QUIET_EVERY: Duration = Duration::from_secs(10);
/// How often the kernel is asked for skipped hooks: a file is read for each program.
const LOOK_CLOSELY_EVERY: Duration = Duration::from_secs(30);
/// Events taken before signals are looked at again.
const BATCH: usize = 16_384;
/// Events taken before memory is looked at again.
const STEP: usize = 1_024;
/// The kernel side urges the reader when a ring buffer is full to 1/n.
const WAKE_SHARE: u32 = 8;
/// A reader of the output that takes nothing for so long is not waited for while the open sockets are listed.
const STANDSTILL: Duration = Duration::from_secs(1);
/// Bytes in a MiB.
const MIB: u32 = 1 << 20;

/// A trace under way.
pub struct Session {
    ebpf: Ebpf,
    lru: bool,
    reader: Reader,
    selection: Selection,
    signals: [Signal; 3],
    deadline: Option<Instant>,
    /// A target that was there when they were last looked at.
    targets_left: marks::Left,
    tls_libraries: Option<TlsLibraries>,
    detail_hooks: DetailHooks,
    /// All others stay attached as long as these do.
    links: Vec<Link>,
    overload: Option<Watch>,
    memory: Budget,
    /// That memory is full of what cannot be forgotten has been said.
    told_full: bool,
    /// A signal came.
    end_asked_for: bool,
}

impl Session {
    /// Begins a trace: on return every hook is in place and the sockets open before are adopted.
    ///
    /// # Errors
    /// If rights or kernel features are missing, or an output cannot be opened; nothing has been traced then.
    pub fn begin(selection: Selection, live: &cli::Live, open: impl FnOnce() -> Result<Opened>) -> Result<Self> {
        check_machine()?;
        let Opened { output, sink, findings } = open()?;
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let [interrupt, terminate, hangup] = kinds.map(signal);
        let signals = [interrupt?, terminate?, hangup?];

        // Only records of exchanges tell what heads say, and a recording may be asked for those later.
        let heads = output.wants_exchanges() || findings.is_some() || live.record.is_some();
        let kernel = Btf::of_running_kernel()?;
        let settings = settings(&kernel, &selection, live, heads);
        if settings.config.ssl != 0 && !selection.begins_with_our_children() {
            // The command of `run` would begin with the limit that this process has.
            let _ = features::lift_file_limit();
        }
        // The verifier takes its time; the trace begins when it is through.
        limits::ensure_open_files()?;
        let explain = |error| advice::advised(limits::explain_refusal(error), &table::MEMORY);
        let mut loaded = bpf::load(&settings, &kernel).map_err(explain)?;
        drop(kernel);
        let clock = clock();
        let recording = live.record.as_deref().map(|path| Recorder::create(path, &header(&settings, clock)));
        let recording = recording.transpose()?;
        attach(&mut loaded, &selection)?;
        let Loaded { mut ebpf, lru, hooks, detail_hooks, links, .. } = loaded;
        let memory = Budget::of_mib(live.max_memory);
        let limits = memory.limits(live.max_connections as usize);
        let findings = findings.map(|when| Findings::new(when, clock.wall(clock.began_at)));
        let findings = findings.map(|findings| findings.with_most_groups(memory.finding_groups()));
        let outlet = Outlet::unstalled(sink, memory.output_bytes())?;
        let pipeline = Pipeline::new(recording, Correlator::new(clock, limits), findings, output, outlet);
        let mut reader = Reader::new(&mut ebpf, settings.config.detail == detail::EXCHANGES, pipeline)?;
        reader.send(UserEvent::Hooks(hooks))?;
        if settings.config.own_pids != 0 {
            reader.name_host_pids(&mut ebpf)?;
            talk(
                "PIDs are those of this PID namespace; a process outside of it goes by the host's (host_pid), without exe and container",
            );
        }
        let tls_libraries = if settings.config.ssl != 0 { tls_libraries(&mut ebpf, &settings) } else { None };
        if let Some(tls_libraries) = &tls_libraries {
            reader.name_libraries(tls_libraries.shared());
        }
        let deadline = live.duration.map(|duration| Instant::now() + duration);
        let mut session = Self {
            ebpf,
            lru,
            reader,
            selection,
            signals,
            deadline,
            targets_left: marks::Left::default(),
            tls_libraries,
            detail_hooks,
            links,
            overload: None,
            memory,
            told_full: false,
            end_asked_for: false,
        };
        session.look_at_targets()?;
        session.adopt()?;
        // What it took to begin is no cost of tracing.
        session.overload = Watch::begin(live, &session.ebpf);
        Ok(session)
    }

    /// Tells the person at the terminal that the trace has begun, and of what.
    pub fn announce(&self) {
        if let Some(waiting) = self.selection.waiting_for(self.selection.present().as_deref()) {
            talk(&waiting);
        }
        talk(&format!("tracing {}; Ctrl-C stops", self.selection));
    }

    /// Gives up the rights that are no longer needed, and traces until a signal, the deadline, the end of all targets, or `done`, whose
    /// result is returned.
    ///
    /// # Errors
    /// If the output or the recording cannot be written, or the kernel does not take back a right.
    pub async fn until<T>(&mut self, done: impl Future<Output = T>) -> Result<Option<T>> {
        self.give_up_rights()?;
        tokio::pin!(done);
        let mut pace = Pace::new()?;
        let mut looks = Periodic::new(LOOK_EVERY);
        let mut loss_looks = Periodic::new(LOOK_FOR_LOSSES_EVERY);
        let mut quiet_looks = Periodic::new(LOOK_WHEN_QUIET_EVERY);
        let mut close_looks = Periodic::new(LOOK_CLOSELY_EVERY);
        loop {
            tokio::select! {
                result = &mut done => return Ok(Some(result)),
                () = any_signal(&mut self.signals) => {
                    self.end_asked_for = true;
                    return Ok(None);
                }
                () = passed(self.deadline) => return Ok(None),
                urged = self.reader.urged() => urged?,
                passed = pace.tick() => {
                    let passed = passed?;
                    if loss_looks.is_due(passed) {
                        if !pace.is_quiet() || quiet_looks.is_due(LOOK_FOR_LOSSES_EVERY) {
                            self.reader.report_losses()?;
                        }
                        self.reader.report_unwritten()?;
                    }
                    if looks.is_due(passed) {
                        self.reader.look()?;
                        self.look_at_cost()?;
                        if !self.is_target_left()? {
                            return Ok(None);
                        }
                    }
                    if close_looks.is_due(passed) {
                        self.reader.report_skipped(&self.ebpf, false)?;
                    }
                }
            }
            let taken = self.take_batch()?;
            self.reader.flush()?;
            self.look_at_mapped()?;
            pace.note(taken > 0)?;
        }
    }

    /// Takes events that wait. Returns how many.
    fn take_batch(&mut self) -> Result<usize> {
        let mut taken = 0;
        while taken < BATCH {
            let some = self.reader.read(STEP, |_| {})?;
            self.keep_within_memory()?;
            taken += some;
            if some < STEP {
                break;
            }
        }
        Ok(taken)
    }

    /// Forgets what takes more memory than is allowed.
    fn keep_within_memory(&mut self) -> Result<()> {
        while self.memory.is_exceeded() {
            if !self.reader.make_room()? {
                if !std::mem::replace(&mut self.told_full, true) {
                    talk("more memory is in use than --max-memory allows, though nothing is left to forget");
                }
                break;
            }
        }
        Ok(())
    }

    /// Lowers or raises detail if tracing costs too much or little enough.
    fn look_at_cost(&mut self) -> Result<()> {
        let Self { overload: Some(watch), ebpf, detail_hooks, tls_libraries, .. } = self else { return Ok(()) };
        let Some(change) = watch.look(ebpf) else { return Ok(()) };
        // What happens while hooks come and go counts as not looked at: an end that is read before that is known would be told as if
        // nothing had passed since.
        match change {
            Change::Lower => {
                self.read_what_is_there()?;
                self.tell(change)?;
                let Self { detail_hooks, tls_libraries, .. } = self;
                overload::lower(detail_hooks, tls_libraries.as_mut());
            }
            Change::Raise => {
                if let Err(error) = overload::raise(ebpf, detail_hooks, tls_libraries.as_mut()) {
                    talk(&format!("exchanges stay out of sight, as a hook cannot be put back: {error:#}"));
                    self.overload = None;
                    return Ok(());
                }
                self.read_what_is_there()?;
                self.tell(change)?;
                self.look_at_targets()?;
            }
        }
        if let Self { overload: Some(watch), ebpf, .. } = self {
            watch.overlook(ebpf);
        }
        Ok(())
    }

    /// Says, in the output too, that detail is lowered or raised.
    fn tell(&mut self, change: Change) -> Result<()> {
        let Self { overload: Some(watch), reader, .. } = self else { return Ok(()) };
        reader.send(watch.tell(change))
    }

    /// Takes the events that wait by now.
    fn read_what_is_there(&mut self) -> Result<()> {
        while self.take_batch()? == BATCH {}
        Ok(())
    }

    /// From here on strangers' bytes are read, and whatever comes of that shall not have more rights than the work takes. The command
    /// of `run` has been started by now, with all that the user has.
    fn give_up_rights(&mut self) -> Result<()> {
        let Self { ebpf, tls_libraries, selection, overload, detail_hooks, .. } = self;
        let maps_are_open = given_up::works_without(Right::Bpf, || marks::can_be_read(ebpf))?;
        let libraries = tls_libraries.is_some();
        let has_admin = Held::now().by(Right::SysAdmin).is_some();
        let probes_take_admin = libraries
            && has_admin
            && !given_up::works_without(Right::SysAdmin, || trial::put_on_and_off(ebpf).is_ok())?;
        let hooks = overload.is_some();
        let hooks_take_admin = hooks
            && has_admin
            && !given_up::works_without(Right::SysAdmin, || detail_hooks.probes_can_be_attached(ebpf))?;
        let namespaces = selection.may_be_elsewhere();
        given_up::give_up(Later {
            maps_are_guarded: !maps_are_open,
            hooks,
            hooks_take_admin,
            libraries,
            probes_take_admin,
            namespaces,
        })
        .context("cannot give up the rights that are no longer needed")
    }

    /// Puts probes on the libraries of the processes that are there.
    fn look_at_targets(&mut self) -> Result<()> {
        let Some(tls_libraries) = &mut self.tls_libraries else { return Ok(()) };
        let mut present = self.selection.present().unwrap_or_else(process::all);
        if self.selection.begins_with_our_children() {
            // The command will most likely have the same C library, and may look a name up as soon as it runs.
            present.push(std::process::id());
        }
        tls_libraries.look_at(&mut self.ebpf, present)
    }

    /// The same for those that have begun or loaded a library since.
    fn look_at_mapped(&mut self) -> Result<()> {
        let Some(tls_libraries) = &mut self.tls_libraries else { return Ok(()) };
        let (mapped, ended) = self.reader.take_mapped();
        if !mapped.is_empty() {
            tls_libraries.look_at(&mut self.ebpf, mapped)?;
        }
        tls_libraries.forget(&mut self.ebpf, ended)
    }

    /// Whether there is anything left to trace; says so if not.
    fn is_target_left(&mut self) -> Result<bool> {
        if self.selection.ends_with_its_processes() && !self.targets_left.is_any(&self.ebpf)? {
            talk("all traced processes have ended");
            return Ok(false);
        }
        Ok(true)
    }

    /// Waits a moment for the ends of connections whose process has ended: their last packets are on the way.
    ///
    /// # Errors
    /// As [`Session::until`].
    pub async fn linger(&mut self, longest: Duration) -> Result<()> {
        let give_up = Instant::now() + longest;
        let ticker = Ticker::new(longest / 20)?;
        while Instant::now() < give_up {
            self.reader.read_all(|_| {})?;
            if self.reader.live() == 0 {
                break;
            }
            ticker.tick().await?;
        }
        Ok(())
    }

    /// Detaches everything, and reports what is still open, the losses and the summary. Returns how many findings there are.
    ///
    /// # Errors
    /// As [`Session::until`].
    pub fn end(self) -> Result<usize> {
        let Self { ebpf, lru, mut reader, tls_libraries, detail_hooks, links, end_asked_for, .. } = self;
        // Detaching takes its time too.
        let stopped_at = features::boot_clock_now();
        interrupt::ends_once_told_again(end_asked_for)?;
        reader.read_all(|_| {})?;
        // All of the node: what its process has let go of belongs to nobody and may still be open. While the hooks are in
        // place, so that whatever is gone by now must have been seen to end.
        let present = (reader.live() > 0).then(|| open_sockets::snapshot(None));
        let evicted = if lru { reader.evicted(&ebpf)? } else { 0 };
        reader.report_losses()?;
        reader.look()?;
        reader.report_skipped(&ebpf, true)?;
        drop(tls_libraries);
        drop((detail_hooks, links));
        drop(ebpf);
        // Nothing is attached any more; what came until then is still in the ring buffer. Nobody is kept waiting by a slow reader now.
        reader.set_patience(Patience::Unlimited);
        reader.read_rest()?;
        reader.lost("kernel", "evicted", evicted)?;
        if let Some(present) = present {
            for socket in present.sockets {
                reader.send(UserEvent::Present(socket))?;
            }
            reader.send(UserEvent::Surveyed { netns: present.surveyed })?;
        }
        reader.stop(stopped_at)
    }

    /// Takes over the sockets that were open before. Those that the hooks have seen already are known by their ends.
    fn adopt(&mut self) -> Result<()> {
        let adoption = adoption::adopt(&mut self.ebpf, &self.selection)?;
        self.reader.set_patience(Patience::WhileItMoves(STANDSTILL));
        let mut seen = HashSet::new();
        self.reader.read_all(|record| {
            seen.insert(ends(record));
        })?;
        for socket in adoption.sockets {
            if !seen.contains(&(socket.netns, socket.local, socket.remote)) {
                self.reader.adopt(socket)?;
            }
        }
        self.reader.lost("kernel", "adopted_full", adoption.left_out)?;
        for limitation in adoption.limitations {
            talk(&limitation);
        }
        self.reader.flush()?;
        self.reader.set_patience(Patience::None);
        Ok(())
    }
}

/// Attaches the hooks. Targets are marked before, so that nothing of theirs is missed, and again after, for children
/// that were born between the first look and the fork hook. One that has ended meanwhile may have done so unseen.
fn attach(loaded: &mut Loaded, selection: &Selection) -> Result<()> {
    marks::mark(&mut loaded.ebpf, selection)?;
    loaded.attach()?;
    marks::mark(&mut loaded.ebpf, selection)?;
    marks::forget_ended(&mut loaded.ebpf, selection)
}

/// The probes on TLS libraries. Without them TLS is still seen on the wire.
fn tls_libraries(ebpf: &mut Ebpf, settings: &Settings) -> Option<TlsLibraries> {
    let loaded = TlsLibraries::load(ebpf, settings.config.heads != 0, settings.offsets.get_attach_cookie != MISSING);
    loaded
        .inspect_err(|error| talk(&format!("no probes on TLS libraries: {error:#}; TLS is seen on the wire only")))
        .ok()
}

/// Refuses early, with the way out, what would fail later with a number.
fn check_machine() -> Result<()> {
    if let Some(obstacle) = advice::obstacle(Held::at_start(), &advice::own_path()) {
        bail!(obstacle);
    }
    if let Some(obstacle) = features::lockdown().obstacle() {
        bail!(obstacle);
    }
    // Only kernels before 5.11 count BPF memory against this limit; where raising it fails, loading will say so.
    let _ = features::lift_memlock_limit();
    Ok(())
}

fn settings(kernel: &Btf, selection: &Selection, live: &cli::Live, heads: bool) -> Settings {
    let resolved = offsets::resolve(kernel);
    for (field, reason) in &resolved.missing {
        talk(&format!("this kernel has no {field} ({reason}); values that need it will be null"));
    }
    let ring_bytes = live.ring_size * MIB;
    let exchange_ring_bytes = live.exchange_ring_size.unwrap_or(live.ring_size) * MIB;
    let config = tracer_ebpf::Config {
        // One bound for both: to have two would cost each event a comparison.
        wake_bytes: ring_bytes.min(exchange_ring_bytes) / WAKE_SHARE,
        detail: live.detail.number(),
        ssl: wants_ssl(selection, live).into(),
        heads: u32::from(heads),
        ..selection.config()
    };
    Settings {
        config,
        offsets: resolved.offsets,
        backend: live.backend,
        preemptible: features::may_skip_hooks(kernel),
        without: live.without_hook.clone(),
        absent: bpf::hooks::absent(kernel, &live.without_hook),
        superseded: bpf::hooks::superseded(kernel),
        ring_bytes,
        exchange_ring_bytes,
        max_connections: live.max_connections,
    }
}

/// Whether TLS libraries are to be probed. Only the hooks of detail `exchanges` know which connection a session belongs to; who asks
/// for kprobes alone wants no other kind of hook.
fn wants_ssl(selection: &Selection, live: &cli::Live) -> bool {
    let by_default = !selection.is_whole_node() && LibraryProbes::ARE_THERE;
    live.detail == cli::Detail::Exchanges
        && live.backend == bpf::Backend::Auto
        && match live.ssl {
            cli::Ssl::Auto => by_default,
            cli::Ssl::On => true,
            cli::Ssl::Off => false,
        }
}

fn clock() -> Clock {
    Clock {
        boot_to_wall_ns: features::boot_to_wall(),
        tick_ns: features::tick_length(),
        began_at: features::boot_clock_now(),
    }
}

fn header(settings: &Settings, clock: Clock) -> recording::Header {
    recording::Header {
        tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        created_at: jiff::Timestamp::now().to_string(),
        began_at: clock.began_at,
        kernel: features::release(),
        host: features::host(),
        boot_to_wall_ns: clock.boot_to_wall_ns,
        tick_ns: clock.tick_ns,
        offsets: recording::named_offsets(&settings.offsets),
        byte_order: recording::BYTE_ORDER.to_owned(),
    }
}

/// A connection's ends as sock_diag names them.
fn ends(record: &SocketRecord) -> (u32, SocketAddr, SocketAddr) {
    let end = |address, port| SocketAddr::new(IpAddr::V6(Ipv6Addr::from_octets(address)).to_canonical(), port);
    (record.netns, end(record.local_address, record.local_port), end(record.remote_address, record.remote_port))
}

async fn any_signal([interrupt, terminate, hangup]: &mut [Signal; 3]) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
}

async fn passed(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}
