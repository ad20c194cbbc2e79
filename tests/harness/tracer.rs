//! The tracer under test.

use std::{
    io::{BufRead, BufReader, Read},
    iter,
    net::TcpListener,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use jsonschema::Validator;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    client_binary,
    pair::Ends,
    record::{Connection, DetailChange, Exchange, Finding, Hook, Line, Lookup, Loss, Open, Summary},
};

/// What tests send garbage to provoke: it is counted by whatever trace runs.
const BAD_INPUT: [&str; 3] = ["hello_malformed", "dns_malformed", "dns_unasked"];

/// All programs of a hook were at work as it was hit once more.
const SKIPPED: &str = "hook_skipped";

/// What a skipped hook is counted as, and the end that it did not tell.
pub const OF_SKIPPED: &[&str] = &[SKIPPED, "end_unseen"];

/// The skipped hooks among losses.
pub fn skipped(losses: &[Loss]) -> u64 {
    losses.iter().filter(|loss| loss.cause == SKIPPED).map(|loss| loss.count).sum()
}

/// How many hooks a trace of this kernel may skip: docs/kernel-support.md tells how that comes.
pub fn skipped_at_most() -> u64 {
    if preempts_in_hooks() { 40 } else { 0 }
}

/// Whether this kernel preempts a task that is in the kernel; Debian's 7.2 does.
fn preempts_in_hooks() -> bool {
    let modes = std::fs::read_to_string("/sys/kernel/debug/sched/preempt").unwrap_or_default();
    modes.contains("(full)") || modes.contains("(lazy)")
}

/// What the tracer says on stderr once its hooks are attached and open sockets are adopted.
const READY: &str = "conntracer: tracing";

/// Loading makes the kernel verify every program, which takes its time on an emulated processor.
const START: Duration = Duration::from_secs(180);

/// To start, and for a program with many connections to do its work.
const RUN: Duration = Duration::from_secs(240);

/// Lines that are taken apart before anybody sees them.
const AT_ONCE: usize = 256;

/// From an event in the kernel to its line here, behind tens of thousands of others that this process has yet to take apart. More than
/// `tcp_fin_timeout`, for which the kernel now and then keeps a socket that was closed while its peer's side stays open.
const DELIVERY: Duration = Duration::from_secs(90);

/// From a signal to the end of the process; the summary and detaching are in between.
const END: Duration = Duration::from_secs(60);

/// The binary under test: what `CONNTRACER` names, or the release build beside this one.
pub fn tracer_path() -> PathBuf {
    let named = std::env::var_os("CONNTRACER").map(PathBuf::from);
    named.unwrap_or_else(|| client_binary("../release/conntracer"))
}

/// Which kind of hooks the tracer is told to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// The best that the kernel offers.
    Auto,
    /// kprobes and raw tracepoints.
    Kprobe,
}

impl Backend {
    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Auto => &["--backend", "auto"],
            Self::Kprobe => &["--backend", "kprobe"],
        }
    }
}

/// A running `conntracer`; killed when dropped.
pub struct Tracer {
    child: Mutex<Child>,
    output: Arc<Watched<Vec<Result<Line, String>>>>,
    errors: Arc<Watched<String>>,
    readers: Mutex<Vec<JoinHandle<()>>>,
}

/// A value that one thread fills while others wait for something in it.
struct Watched<T> {
    value: Mutex<(T, bool)>,
    changed: Condvar,
}

impl<T: Default> Watched<T> {
    fn new() -> Arc<Self> {
        Arc::new(Self { value: Mutex::new((T::default(), false)), changed: Condvar::new() })
    }

    fn lock(&self) -> MutexGuard<'_, (T, bool)> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut T)) {
        change(&mut self.lock().0);
        self.changed.notify_all();
    }

    /// Says that nothing more will come.
    fn finish(&self) {
        self.lock().1 = true;
        self.changed.notify_all();
    }

    /// Waits until `look` finds something; `None` if nothing more can come, or when time is up.
    fn await_within<R>(&self, limit: Duration, mut look: impl FnMut(&T) -> Option<R>) -> Option<R> {
        let deadline = Instant::now() + limit;
        let mut value = self.lock();
        loop {
            let found = look(&value.0);
            let left = deadline.saturating_duration_since(Instant::now());
            if found.is_some() || value.1 || left.is_zero() {
                return found;
            }
            value = self.changed.wait_timeout(value, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Tracer {
    /// `conntracer trace --format ndjson ARGS`, ready to see what comes.
    #[track_caller]
    pub fn trace(args: &[&str]) -> Self {
        let mut command = Command::new(tracer_path());
        command.args(["trace", "--format", "ndjson"]).args(args);
        Self::start(command)
    }

    /// The same with output for people, to a file.
    #[track_caller]
    pub fn trace_as_text(file: &str, args: &[&str]) -> Self {
        let mut command = Command::new(tracer_path());
        command.args(["trace", "--format", "text", "--output", file]).args(args);
        Self::start(command)
    }

    /// The same with one kind of hooks.
    #[track_caller]
    pub fn trace_by(backend: Backend, args: &[&str]) -> Self {
        Self::trace(&[backend.arguments(), args].concat())
    }

    /// Traces only the connections to this listener, both ends.
    #[track_caller]
    pub fn of_port(listener: &TcpListener) -> Self {
        let port = listener.local_addr().expect("local address").port();
        Self::trace(&["--port", &port.to_string()])
    }

    /// Starts any command line of the tracer and waits until it is ready.
    #[track_caller]
    pub fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let (output, errors) = (Watched::new(), Watched::new());
        let stdout = child.stdout.take().expect("stdout is piped");
        let stderr = child.stderr.take().expect("stderr is piped");
        let readers = [
            read_lines(stdout, &output, parse_counted(), Vec::push),
            read_lines(
                stderr,
                &errors,
                |line| line,
                |text: &mut String, line| {
                    text.push_str(&line);
                    text.push('\n');
                },
            ),
        ]
        .into_iter()
        .flatten()
        .collect();
        let tracer = Self { child: Mutex::new(child), output, errors, readers: Mutex::new(readers) };
        let ready = tracer.errors.await_within(START, |text| text.lines().any(|l| l.starts_with(READY)).then_some(()));
        assert!(ready.is_some(), "{command:?} is not ready: {}", tracer.stderr());
        tracer
    }

    /// A trace of the whole node that many tests look into; it goes on until [`Tracer::end_shared`].
    #[track_caller]
    pub fn shared(backend: Backend) -> Arc<Self> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, tracer)) = shared.iter().find(|(of, _)| *of == backend) {
            return Arc::clone(tracer);
        }
        let tracer = Arc::new(start_on_lasting_thread(backend));
        shared.push((backend, Arc::clone(&tracer)));
        tracer
    }

    /// Ends the shared traces. For tests that make more noise than the others should bear.
    pub fn end_shared() {
        let shared = std::mem::take(&mut *SHARED.lock().unwrap_or_else(PoisonError::into_inner));
        let mut causes = BAD_INPUT.to_vec();
        if preempts_in_hooks() {
            // A whole run of the tests has such moments. The burst and the accuracy test, which are over sooner, allow none.
            causes.push(SKIPPED);
        }
        for (_, tracer) in shared {
            tracer.stop_now().assert_lost_only(&causes);
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.lock().unwrap_or_else(PoisonError::into_inner).id()
    }

    /// What it has said on stderr so far.
    pub fn stderr(&self) -> String {
        self.errors.lock().0.clone()
    }

    /// Waits for the `connection` record of these ends.
    #[track_caller]
    pub fn connection(&self, ends: Ends) -> Connection {
        self.connection_where(&format!("{ends:?}"), |c| Ends::new(c.local, c.remote) == ends)
    }

    /// Waits for the first `connection` record that `wanted` wants.
    #[track_caller]
    pub fn connection_where(&self, what: &str, wanted: impl Fn(&Connection) -> bool) -> Connection {
        self.await_line(&format!("the connection record of {what}"), |line| match line {
            Line::Connection(connection) if wanted(connection) => Some((**connection).clone()),
            _ => None,
        })
    }

    /// Waits for all exchanges of a connection that was reported; in their order.
    #[track_caller]
    pub fn exchanges_of(&self, connection: &Connection) -> Vec<Exchange> {
        let count = connection.exchanges.unwrap_or_else(|| panic!("exchanges are counted: {connection:#?}"));
        let is_its = |line: &Result<Line, String>| match line {
            Ok(Line::Exchange(exchange)) if exchange.connection == connection.id => Some((**exchange).clone()),
            _ => None,
        };
        let (mut seen, mut found) = (0, Vec::new());
        self.output.await_within(DELIVERY, |lines| {
            found.extend(lines[std::mem::replace(&mut seen, lines.len())..].iter().filter_map(is_its));
            (found.len() as u64 >= count).then_some(())
        });
        in_order(connection, found)
    }

    /// Waits for the `open` record of these ends.
    #[track_caller]
    pub fn open(&self, ends: Ends) -> Open {
        self.await_line(&format!("the open record of {ends:?}"), |line| match line {
            Line::Open(open) if Ends::new(open.local, open.remote) == ends => Some(open.clone()),
            _ => None,
        })
    }

    /// Waits for the `dns` record of a process's lookup of this name and type.
    #[track_caller]
    pub fn lookup(&self, pid: u32, name: &str, record_type: &str) -> Lookup {
        self.lookup_where(name, |l| l.pid == pid && l.name == name && l.record_type.as_deref() == Some(record_type))
    }

    /// Waits for the first `dns` record that `wanted` wants.
    #[track_caller]
    pub fn lookup_where(&self, what: &str, wanted: impl Fn(&Lookup) -> bool) -> Lookup {
        self.await_line(&format!("the dns record of {what}"), |line| match line {
            Line::Dns(lookup) if wanted(lookup) => Some(Lookup::clone(lookup)),
            _ => None,
        })
    }

    /// Waits for the first loss of this cause.
    #[track_caller]
    pub fn loss(&self, cause: &str) -> Loss {
        self.await_line(&format!("the loss {cause}"), |line| match line {
            Line::Loss(loss) if loss.cause == cause => Some(loss.clone()),
            _ => None,
        })
    }

    /// Waits until detail has been changed so many times; returns the last change.
    #[track_caller]
    pub fn detail_change(&self, count: usize) -> DetailChange {
        let mut seen = 0;
        self.await_line(&format!("change {count} of detail"), |line| match line {
            Line::Detail(change) => {
                seen += 1;
                (seen == count).then(|| change.clone())
            }
            _ => None,
        })
    }

    #[track_caller]
    fn await_line<R>(&self, what: &str, mut look: impl FnMut(&Line) -> Option<R>) -> R {
        // Lines are only added: each is looked at once, or a thousand lines would take as long as the wait may.
        let mut seen = 0;
        let found = self.output.await_within(DELIVERY, |lines| {
            let new = &lines[std::mem::replace(&mut seen, lines.len())..];
            new.iter().find_map(|line| look(line.as_ref().unwrap_or_else(|error| panic!("{error}"))))
        });
        found.unwrap_or_else(|| {
            let lines = self.output.lock();
            let last: Vec<_> = lines.0.iter().rev().take(6).collect();
            let state = if lines.1 { "the tracer has ended" } else { "the tracer goes on" };
            panic!("no {what}, and {state}; {} lines, the last: {last:#?}; stderr: {}", lines.0.len(), self.stderr())
        })
    }

    /// Asks it to end, and returns all that it put out.
    #[track_caller]
    pub fn stop(self) -> Trace {
        self.stop_now()
    }

    /// Waits for it to end by itself.
    #[track_caller]
    pub fn await_end(self) -> Trace {
        self.collect()
    }

    /// Waits a while for it to end by itself; returns whether it has.
    pub fn ends_within(&self, limit: Duration) -> bool {
        await_exit(&mut self.child.lock().unwrap_or_else(PoisonError::into_inner), limit).is_some()
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        child.try_wait().expect("wait for the tracer").is_some()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid().cast_signed()), signal).expect("the tracer runs");
    }

    #[track_caller]
    fn stop_now(&self) -> Trace {
        self.signal(Signal::SIGTERM);
        self.collect()
    }

    #[track_caller]
    fn collect(&self) -> Trace {
        let status = await_exit(&mut self.child.lock().unwrap_or_else(PoisonError::into_inner), END)
            .unwrap_or_else(|| panic!("the tracer does not end: {}", self.stderr()));
        for reader in self.readers.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            reader.join().expect("a reader of the tracer's output");
        }
        let lines = std::mem::take(&mut self.output.lock().0);
        Trace::new(status, lines, self.stderr())
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Ok(None) = child.try_wait() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

static SHARED: Mutex<Vec<(Backend, Arc<Tracer>)>> = Mutex::new(Vec::new());

/// The kernel ends the tracer with the thread that started it, so that none is left behind; a test's thread would end
/// it too early.
fn start_on_lasting_thread(backend: Backend) -> Tracer {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let tracer = std::panic::catch_unwind(|| {
            let mut command = Command::new(tracer_path());
            command.args(["trace", "--format", "ndjson"]).args(backend.arguments());
            // SAFETY: prctl may be called between fork and exec.
            unsafe { command.pre_exec(|| Ok(nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?)) };
            Tracer::start(command)
        });
        let _ = sender.send(tracer);
        loop {
            thread::park();
        }
    });
    match receiver.recv().expect("the thread that starts the tracer") {
        Ok(tracer) => tracer,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Reads lines as fast as they come, so that nobody has to drop any for a slow reader, and takes them apart at leisure: all that have come
/// meanwhile are put in place together.
fn read_lines<L: Send + 'static, T: Default + Send + 'static>(
    stream: impl Read + Send + 'static,
    into: &Arc<Watched<T>>,
    parse: impl Fn(String) -> L + Send + 'static,
    take: impl Fn(&mut T, L) + Send + 'static,
) -> [JoinHandle<()>; 2] {
    let (lines, come) = mpsc::channel();
    let reader = thread::spawn(move || {
        for line in BufReader::new(stream).lines() {
            let is_last = line.is_err();
            // What is no text is no JSON either: whoever looks is told.
            let line = line.unwrap_or_else(|error| format!("<a line that cannot be read: {error}>"));
            if lines.send(line).is_err() || is_last {
                break;
            }
        }
    });
    let into = Arc::clone(into);
    let parser = thread::spawn(move || {
        while let Ok(first) = come.recv() {
            let parsed: Vec<L> = iter::once(first).chain(come.try_iter().take(AT_ONCE)).map(&parse).collect();
            into.change(|value| parsed.into_iter().for_each(|line| take(value, line)));
        }
        into.finish();
    });
    [reader, parser]
}

fn await_exit(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().expect("wait for a child") {
            return Some(status);
        }
        if Instant::now() > deadline {
            return None;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// All that one trace put out.
#[derive(Debug)]
pub struct Trace {
    pub status: ExitStatus,
    pub opens: Vec<Open>,
    pub connections: Vec<Connection>,
    pub exchanges: Vec<Exchange>,
    pub lookups: Vec<Lookup>,
    pub findings: Vec<Finding>,
    pub losses: Vec<Loss>,
    pub details: Vec<DetailChange>,
    pub summary: Option<Summary>,
    pub stderr: String,
}

impl Trace {
    #[track_caller]
    fn new(status: ExitStatus, lines: Vec<Result<Line, String>>, stderr: String) -> Self {
        let (opens, connections, exchanges, lookups, findings, losses, details) = Default::default();
        let mut trace =
            Self { status, opens, connections, exchanges, lookups, findings, losses, details, summary: None, stderr };
        for line in lines {
            assert!(trace.summary.is_none(), "the summary is the last line, but there is {line:?}");
            match line.unwrap_or_else(|error| panic!("{error}")) {
                Line::Open(open) => trace.opens.push(open),
                Line::Connection(connection) => trace.connections.push(*connection),
                Line::Exchange(exchange) => trace.exchanges.push(*exchange),
                Line::Dns(lookup) => trace.lookups.push(*lookup),
                Line::Finding(finding) => trace.findings.push(*finding),
                Line::Loss(loss) => trace.losses.push(loss),
                Line::Detail(change) => trace.details.push(change),
                Line::Summary(summary) => trace.summary = Some(summary),
            }
        }
        trace
    }

    /// Of lines that are already there, such as a file's.
    #[track_caller]
    pub fn of_text(status: ExitStatus, text: &str, stderr: String) -> Self {
        Self::new(status, text.lines().map(parse_line).collect(), stderr)
    }

    /// The summary; fails if there was none.
    #[track_caller]
    pub fn summary(&self) -> &Summary {
        self.summary.as_ref().unwrap_or_else(|| panic!("there is no summary; {}; stderr: {}", self.status, self.stderr))
    }

    /// The hooks that were in place.
    #[track_caller]
    pub fn hooks(&self) -> &[Hook] {
        &self.summary().hooks
    }

    /// The one connection with these ends; fails if there is none, or more than one.
    #[track_caller]
    pub fn connection(&self, ends: Ends) -> &Connection {
        match self.connections_of(ends).as_slice() {
            [one] => one,
            others => panic!("{} records of {ends:?}: {others:#?}", others.len()),
        }
    }

    /// All exchanges of a connection of this trace, in their order.
    #[track_caller]
    pub fn exchanges_of(&self, connection: &Connection) -> Vec<Exchange> {
        let its = self.exchanges.iter().filter(|exchange| exchange.connection == connection.id);
        in_order(connection, its.cloned().collect())
    }

    /// All connections with these ends.
    pub fn connections_of(&self, ends: Ends) -> Vec<&Connection> {
        self.connections.iter().filter(|c| Ends::new(c.local, c.remote) == ends).collect()
    }

    /// How many skipped hooks were counted.
    pub fn skipped(&self) -> u64 {
        skipped(&self.summary().losses)
    }

    /// Fails if the tracer failed, says that it lost something, or reported a connection twice.
    #[track_caller]
    pub fn assert_nothing_lost(&self) -> &Self {
        self.assert_lost_only(&[])
    }

    /// The same, but for losses of these causes. On a kernel that preempts a few skipped hooks are never excluded: there are moments in
    /// which as many tasks are preempted in one hook as it has programs. They are counted, and what is missing for them is for the
    /// test to see.
    #[track_caller]
    pub fn assert_lost_only(&self, causes: &[&str]) -> &Self {
        let mut ids: Vec<_> = self.connections.iter().map(|connection| &connection.id).collect();
        ids.sort();
        let twice = ids.windows(2).find(|ids| ids[0] == ids[1]);
        assert_eq!(twice, None, "each connection is reported once");
        assert_eq!(self.summary().connections, self.connections.len() as u64, "the summary counts all");
        assert!(self.status.success(), "{}: {}", self.status, self.stderr);
        let few_skipped = (1..=skipped_at_most()).contains(&self.skipped());
        for losses in [&self.losses, &self.summary().losses] {
            let is_allowed =
                |loss: &Loss| causes.contains(&&*loss.cause) || (few_skipped && OF_SKIPPED.contains(&&*loss.cause));
            let others: Vec<_> = losses.iter().filter(|loss| !is_allowed(loss)).collect();
            assert!(others.is_empty(), "nothing else may be lost: {others:#?}");
        }
        self
    }
}

/// Fails unless these are all exchanges of a connection, each once and of the same process and peer.
#[track_caller]
fn in_order(connection: &Connection, exchanges: Vec<Exchange>) -> Vec<Exchange> {
    let indexes: Vec<u64> = exchanges.iter().map(|exchange| exchange.index).collect();
    let expected: Vec<u64> = (0..connection.exchanges.unwrap_or(0)).collect();
    assert_eq!(indexes, expected, "each exchange once, in order: {connection:#?} {exchanges:#?}");
    for exchange in &exchanges {
        assert_eq!((exchange.role, exchange.remote), (connection.role, connection.remote), "{exchange:#?}");
    }
    exchanges
}

/// Takes lines apart, and holds each against the schema: of a flood the first thousands, and then one now and then, as that takes an emulated
/// processor a millisecond.
fn parse_counted() -> impl Fn(String) -> Result<Line, String> {
    const ALL_UP_TO: usize = 5_000;
    const THEN_EACH: usize = 50;
    let count = AtomicUsize::new(0);
    move |line| {
        let before = count.fetch_add(1, Ordering::Relaxed);
        if before < ALL_UP_TO || before.is_multiple_of(THEN_EACH) {
            return parse_line(line);
        }
        serde_json::from_str(&line).map_err(|error| format!("{error} in {line}"))
    }
}

/// Takes a line apart, and holds it against the published schema.
fn parse_line(line: impl AsRef<str>) -> Result<Line, String> {
    static SCHEMA: LazyLock<Validator> = LazyLock::new(|| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/ndjson.schema.json");
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let schema = serde_json::from_str(&text).expect("the schema is JSON");
        jsonschema::validator_for(&schema).expect("the schema is a schema")
    });
    let line = line.as_ref();
    let value: serde_json::Value = serde_json::from_str(line).map_err(|error| format!("{error} in {line}"))?;
    SCHEMA.validate(&value).map_err(|error| format!("not as the schema says: {error} in {line}"))?;
    serde_json::from_value(value).map_err(|error| format!("{error} in {line}"))
}

/// Takes many lines apart without holding each against the schema, which takes its time.
#[track_caller]
pub fn parse_lines(text: &str) -> Vec<Line> {
    let parse = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"));
    text.lines().map(parse).collect()
}

/// What came of a command line of the tracer that ends by itself.
#[derive(Debug)]
pub struct Exit {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Exit {
    /// Fails unless it ended with this code, saying each of these on stderr.
    #[track_caller]
    pub fn assert_fails(&self, code: i32, says: &[&str]) {
        assert_eq!(self.status.code(), Some(code), "{self:#?}");
        for word in says {
            assert!(self.stderr.contains(word), "nothing is said of `{word}`: {self:#?}");
        }
        assert!(!self.stderr.contains("panicked"), "{self:#?}");
    }
}

/// `conntracer run` of these words, to its end; returns that, and what it wrote.
#[track_caller]
pub fn traced_run(options: &[&str], words: &[impl AsRef<str>]) -> (Exit, Trace) {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("out.ndjson");
    let output = ["run", "--format", "ndjson", "--output", file.to_str().expect("UTF-8")];
    let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
    let exit = conntracer_within(RUN, &[], &[&output, options, &["--"], &words].concat());
    let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{error}: {exit:#?}"));
    let trace = Trace::of_text(exit.status, &text, exit.stderr.clone());
    (exit, trace)
}

/// Runs `conntracer ARGS` to its end; `wrap` are the words of a program that starts it, or none.
#[track_caller]
pub fn conntracer(wrap: &[&str], args: &[&str]) -> Exit {
    conntracer_within(START, wrap, args)
}

#[track_caller]
fn conntracer_within(limit: Duration, wrap: &[&str], args: &[&str]) -> Exit {
    let binary = tracer_path();
    let binary = binary.to_str().expect("a path in UTF-8");
    let words: Vec<&str> = wrap.iter().chain(&[binary]).chain(args).copied().collect();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {words:?}: {error}"));
    let mut stdout = child.stdout.take().expect("stdout is piped");
    let mut stderr = child.stderr.take().expect("stderr is piped");
    let read = |stream: &mut dyn Read| {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("the output of a child");
        String::from_utf8_lossy(&bytes).into_owned()
    };
    thread::scope(|scope| {
        let out = scope.spawn(move || read(&mut stdout));
        let err = scope.spawn(move || read(&mut stderr));
        let status = await_exit(&mut child, limit);
        if status.is_none() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let (stdout, stderr) = (out.join().expect("a reader"), err.join().expect("a reader"));
        let status = status.unwrap_or_else(|| panic!("{words:?} does not end: {stdout}{stderr}"));
        Exit { status, stdout, stderr }
    })
}
