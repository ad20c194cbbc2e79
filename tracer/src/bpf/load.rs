//! Loads and attaches the hooks. What decides is what loads on this kernel, never its version: typed programs first, the
//! fallback hook by hook where they do not load, and each step down with its reason.

use anyhow::{Context as _, Result, anyhow, bail};
use aya::{
    Btf, Ebpf, EbpfLoader, Endianness,
    maps::SkStorage,
    programs::{BtfTracePoint, FEntry, FExit, KProbe, ProgramError, RawTracePoint},
};
use tracer_ebpf::{Config, MESSAGE_HOOKS, MESSAGE_PROGRAMS, Offsets, SocketRecord, detail, storage};
use zerocopy::IntoBytes as _;

use super::{
    detail::{DetailHooks, Link},
    hooks::{Attach, HOOKS, Part, Program, Spec, backend_of, named_types, probed},
    trial,
};
use crate::{
    kernel::btf,
    rights::{advice, table},
    track::record::Hook,
};

/// The BPF object, built by `build.rs`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("CONNTRACER_BPF_OBJECT_PATH"));

/// A ring buffer must be a multiple of the page size, which is at most this.
const SMALLEST_RING: u32 = 1 << 16;

/// Which programs to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Backend {
    /// Typed programs, with the fallback where they do not load.
    #[default]
    Auto,
    /// Only the fallback: kprobes and raw tracepoints. For tests, and for kernels whose BPF trampolines misbehave.
    Kprobe,
}

/// What to load, and how big.
pub struct Settings {
    /// Filters and the like; `storage` is decided here.
    pub config: Config,
    /// Kernel fields.
    pub offsets: Offsets,
    /// Which programs.
    pub backend: Backend,
    /// Whether this kernel may preempt a task in a hook.
    pub preemptible: bool,
    /// Names of hooks to leave out.
    pub without: Vec<String>,
    /// Functions that are not there to be hooked by kprobe: see [`absent`](super::hooks::absent).
    pub absent: Vec<&'static str>,
    /// Names of hooks that this kernel has no use for: see [`superseded`](super::hooks::superseded).
    pub superseded: Vec<&'static str>,
    /// Size of the ring buffer of lifecycles in bytes, a power of two and a multiple of the page size.
    pub ring_bytes: u32,
    /// The same of that of the exchanges. It is made as small as can be where nothing is sent to it.
    pub exchange_ring_bytes: u32,
    /// Most connections in the LRU hash, and most sockets that can be adopted.
    pub max_connections: u32,
}

/// The object in the kernel. Everything is detached when it is dropped, and by the kernel when the process dies.
pub struct Loaded {
    /// aya's handle on maps and programs.
    pub ebpf: Ebpf,
    /// Whether records are in the LRU hash.
    pub lru: bool,
    /// Which hook got which backend.
    pub hooks: Vec<Hook>,
    /// The hooks that only detail `exchanges` has.
    pub detail_hooks: DetailHooks,
    /// All others are attached as long as these are.
    pub links: Vec<Link>,
    /// What the table says of each of `hooks`.
    specs: Vec<&'static Spec>,
    /// The loaded programs of each hook, to be attached; none where it is missing.
    chosen: Vec<Vec<Program>>,
}

/// Loads every hook that this kernel allows. Nothing is attached yet, so maps can be filled first.
///
/// # Errors
/// If the object cannot be loaded at all (rights, memory), or neither form of a hook on which everything rests.
pub fn load(settings: &Settings, kernel: &btf::Btf) -> Result<Loaded> {
    let btf = kernel_types(kernel)?;
    if settings.backend == Backend::Kprobe {
        let lacking = Lacking::socket_storage("asked for by --backend kprobe");
        return Ok(load_hooks(open(settings, lacking)?, &btf, settings, lacking));
    }
    let mut ebpf = open(settings, Lacking::default())?;
    if let Some(reason) = trial::trampoline_failure(&mut ebpf, &btf) {
        // Hooks on functions keep records too.
        let storage = format!("no socket storage: fentry: {reason}");
        let lacking = Lacking { socket_storage: Some(&storage), trampolines: Some(&reason) };
        return Ok(load_hooks(open(settings, lacking)?, &btf, settings, lacking));
    }
    let mut first = load_hooks(ebpf, &btf, settings, Lacking::default());
    match first.obstacle().or_else(|| storage_failure(&mut first.ebpf)) {
        None => Ok(first),
        Some(reason) => {
            let lacking = Lacking::socket_storage(&reason);
            Ok(load_hooks(open(settings, lacking)?, &btf, settings, lacking))
        }
    }
}

/// Tries socket storage on a socket of our own. A kernel can accept every program and still fail each allocation: from
/// 6.18 on, on processors without cmpxchg16b, among them some CPU models of virtual machines (`kmalloc_nolock`).
fn storage_failure(ebpf: &mut Ebpf) -> Option<String> {
    let mut try_it = || -> Result<()> {
        let socket =
            std::net::TcpListener::bind(("127.0.0.1", 0)).or_else(|_| std::net::TcpListener::bind(("::1", 0)))?;
        let map = ebpf.map_mut("SOCKETS").context("not in the BPF object")?;
        let mut sockets = SkStorage::<_, [u8; size_of::<SocketRecord>()]>::try_from(map)?;
        sockets.insert(&socket, [0; size_of::<SocketRecord>()], 0)?;
        Ok(())
    };
    try_it().err().map(|error| format!("no socket storage: a trial allocation failed: {error:#}"))
}

/// What cannot be used here, each with the reason.
#[derive(Clone, Copy, Default)]
struct Lacking<'a> {
    /// Socket storage; records are in the LRU hash then.
    socket_storage: Option<&'a str>,
    /// What attaches fentry and fexit.
    trampolines: Option<&'a str>,
}

impl<'a> Lacking<'a> {
    fn socket_storage(reason: &'a str) -> Self {
        Self { socket_storage: Some(reason), trampolines: None }
    }

    /// Whether no function is hooked with typed pointers.
    fn hooks_no_function_typed(self, backend: Backend) -> bool {
        backend == Backend::Kprobe || self.trampolines.is_some()
    }

    /// Why a choice of programs cannot be had, if it cannot.
    fn refusal(self, choice: &[Program]) -> Option<String> {
        let is_by_trampoline = |program: &Program| matches!(program.attach, Attach::Fentry(_) | Attach::Fexit(_));
        let reason = self.trampolines.filter(|_| choice.iter().any(is_by_trampoline))?;
        Some(format!("{}: {reason}", backend_of(choice)))
    }
}

impl Loaded {
    /// Why socket storage cannot be used, if it cannot: all hooks that keep records must have typed pointers for it.
    fn obstacle(&self) -> Option<String> {
        self.specs.iter().zip(&self.hooks).filter(|(spec, _)| spec.keeps_records).find_map(|(spec, hook)| {
            // A hook that no form can serve keeps no records, wherever they are.
            hook.backend
                .as_deref()
                .is_some_and(|backend| backend != spec.first_backend())
                .then(|| format!("no socket storage: {}", hook.reason.as_deref().unwrap_or("not loaded")))
        })
    }

    /// Attaches what was loaded, in the order of the table. From here on events come.
    ///
    /// # Errors
    /// If a hook on which everything rests cannot be attached; others are reported as missing.
    pub fn attach(&mut self) -> Result<()> {
        let mut superseded = Vec::new();
        let Self { ebpf, hooks, detail_hooks, links, specs, chosen, .. } = &mut *self;
        for ((spec, hook), programs) in specs.iter().zip(hooks).zip(chosen) {
            let attach = |program: &Program| match spec.detail {
                detail::EXCHANGES => detail_hooks.add(ebpf, *program),
                _ => attach(ebpf, *program).map(|link| links.push(link)),
            };
            if let Err(error) = programs.iter().try_for_each(attach) {
                let advice = advice::if_refused(&error, &table::PROBES);
                *hook = missing(spec, format!("{error:#}{advice}"));
                if spec.superseded {
                    superseded.push(spec.name);
                }
            }
        }
        self.hooks.retain(|hook| !superseded.contains(&hook.name.as_str()));
        self.check_vital()
    }

    /// Without the state machine, or without both connect and accept, there is nothing to show.
    fn check_vital(&self) -> Result<()> {
        let missing = |name: &str| self.hooks.iter().find(|hook| hook.name == name && hook.backend.is_none());
        let vital = missing("inet_sock_set_state").or_else(|| missing("inet_csk_accept").and(missing("tcp_connect")));
        match vital {
            None => Ok(()),
            Some(hook) => bail!(
                "cannot hook {}: {}; nothing can be traced without it (`conntracer doctor` shows every hook)",
                hook.name,
                hook.reason.as_deref().unwrap_or("unknown reason")
            ),
        }
    }

    /// Programs with the number of instructions that the verifier looked at, where the kernel tells (5.16 on).
    pub fn verified_instructions(&self) -> Vec<(String, Option<u32>)> {
        let mut counts: Vec<_> = self
            .ebpf
            .programs()
            .filter_map(|(name, program)| Some((name.to_owned(), program.info().ok()?.verified_instruction_count())))
            .collect();
        counts.sort();
        counts
    }
}

fn load_hooks(ebpf: Ebpf, btf: &Btf, settings: &Settings, lacking: Lacking<'_>) -> Loaded {
    let mut loaded = Loaded {
        ebpf,
        lru: lacking.socket_storage.is_some(),
        hooks: Vec::new(),
        detail_hooks: DetailHooks::default(),
        links: Vec::new(),
        specs: Vec::new(),
        chosen: Vec::new(),
    };
    let is_wanted = |spec: &&Spec| {
        spec.detail <= settings.config.detail
            && !settings.superseded.contains(&spec.name)
            && (!spec.for_libraries || settings.config.ssl != 0)
    };
    for spec in HOOKS.iter().filter(is_wanted) {
        let (hook, programs) = if settings.without.iter().any(|name| name == spec.name) {
            (missing(spec, "left out by --without-hook".to_owned()), Vec::new())
        } else {
            load_hook(&mut loaded.ebpf, btf, spec, settings, lacking)
        };
        let by_another = spec.has_no_fallback() && lacking.hooks_no_function_typed(settings.backend);
        if hook.backend.is_none() && (spec.superseded || by_another) {
            continue;
        }
        loaded.hooks.push(hook);
        loaded.specs.push(spec);
        loaded.chosen.push(programs);
    }
    loaded
}

/// What typed programs are loaded by.
///
/// # Errors
/// If the library that loads them does not understand the kernel's BTF.
pub(super) fn kernel_types(kernel: &btf::Btf) -> Result<Btf> {
    Btf::parse(&named_types(kernel), Endianness::default()).context("cannot read the kernel's BTF again")
}

/// Makes the maps and fills in the constants.
fn open(settings: &Settings, lacking: Lacking<'_>) -> Result<Ebpf> {
    let lru = lacking.socket_storage.is_some();
    let detailed = settings.config.detail == detail::EXCHANGES;
    let message_programs = if settings.preemptible { MESSAGE_PROGRAMS } else { 1 };
    let config = Config {
        storage: if lru { storage::LRU_HASH } else { storage::SOCKET },
        preemptible: settings.preemptible.into(),
        ..settings.config
    };
    EbpfLoader::new()
        .override_global("CONFIG", config.as_bytes(), true)
        .override_global("OFFSETS", settings.offsets.as_bytes(), true)
        .map_max_entries("EVENTS", settings.ring_bytes)
        .map_max_entries("EXCHANGES", if detailed { settings.exchange_ring_bytes } else { SMALLEST_RING })
        .map_max_entries("SOCKETS_LRU", if lru && !detailed { settings.max_connections } else { 1 })
        .map_max_entries("SOCKETS_LRU_DETAILED", if lru && detailed { settings.max_connections } else { 1 })
        .map_max_entries("ADOPTED", settings.max_connections)
        .map_max_entries("MESSAGES", (MESSAGE_HOOKS * message_programs) as u32)
        .load(OBJECT)
        .context("cannot load the BPF object")
}

/// Loads a hook's first choice, else its fallback, else reports it missing.
fn load_hook(
    ebpf: &mut Ebpf,
    btf: &Btf,
    spec: &'static Spec,
    settings: &Settings,
    lacking: Lacking<'_>,
) -> (Hook, Vec<Program>) {
    let choices = if settings.backend == Backend::Kprobe { spec.fallback() } else { spec.choices };
    let mut refusals = Vec::new();
    for choice in choices.iter().filter(|choice| !choice.is_empty()) {
        if let Some(function) = probed(choice).find(|function| settings.absent.contains(function)) {
            refusals.push(format!("kprobe: no function {function}"));
            continue;
        }
        let needed = |program: &&Program| settings.preemptible || program.part != Part::IfPreemptible;
        let programs: Vec<_> = choice.iter().filter(needed).copied().collect();
        match lacking.refusal(choice).map_or_else(|| load_all(ebpf, btf, &programs), Err) {
            Ok(()) => {
                let reason = why_not_first(spec, &programs, &refusals, lacking);
                let backend = Some(backend_of(&programs).to_owned());
                return (Hook { name: spec.name.to_owned(), backend, reason, without: None }, programs);
            }
            // A hook may have several choices of a kind.
            Err(error) if refusals.last() == Some(&error) => {}
            Err(error) => refusals.push(error),
        }
    }
    if refusals.is_empty() {
        refusals.push("no hook of this kind serves it".to_owned());
    }
    (missing(spec, refusals.join("; ")), Vec::new())
}

/// Why a hook did not get all it could: the refusals, or what keeps its records out of socket storage.
fn why_not_first(spec: &Spec, chosen: &[Program], refusals: &[String], lacking: Lacking<'_>) -> Option<String> {
    let stepped_down = backend_of(chosen) != spec.first_backend();
    if stepped_down && !refusals.is_empty() {
        return Some(refusals.join("; "));
    }
    lacking.socket_storage.filter(|_| stepped_down || spec.keeps_records).map(str::to_owned)
}

/// A hook that is not to be had.
fn missing(spec: &Spec, reason: String) -> Hook {
    Hook { name: spec.name.to_owned(), backend: None, reason: Some(reason), without: Some(spec.without.to_owned()) }
}

fn load_all(ebpf: &mut Ebpf, btf: &Btf, programs: &[Program]) -> Result<(), String> {
    programs.iter().try_for_each(|program| {
        load_one(ebpf, btf, *program).map_err(|error| format!("{}: {error}", program.attach.backend()))
    })
}

fn load_one(ebpf: &mut Ebpf, btf: &Btf, program: Program) -> Result<(), String> {
    let loaded = ebpf.program_mut(program.name).ok_or("not in the BPF object")?;
    let result: Result<(), ProgramError> = match program.attach {
        Attach::Fentry(function) => typed::<&mut FEntry>(loaded)?.load(function, btf),
        Attach::Fexit(function) => typed::<&mut FExit>(loaded)?.load(function, btf),
        Attach::TpBtf(tracepoint) => typed::<&mut BtfTracePoint>(loaded)?.load(tracepoint, btf),
        Attach::Kprobe(_) | Attach::Kretprobe(_) => typed::<&mut KProbe>(loaded)?.load(),
        Attach::RawTracepoint(_) => typed::<&mut RawTracePoint>(loaded)?.load(),
    };
    result.map_err(|error| refusal(&error))
}

/// Loads a program again that was loaded before.
///
/// # Errors
/// If the kernel refuses.
pub(super) fn reload(ebpf: &mut Ebpf, btf: &Btf, program: Program) -> Result<()> {
    let loaded = ebpf.program_mut(program.name).context("not in the BPF object")?;
    match program.attach {
        Attach::Fentry(_) => <&mut FEntry>::try_from(loaded)?.unload()?,
        Attach::Fexit(_) => <&mut FExit>::try_from(loaded)?.unload()?,
        Attach::TpBtf(_) => <&mut BtfTracePoint>::try_from(loaded)?.unload()?,
        Attach::Kprobe(_) | Attach::Kretprobe(_) => <&mut KProbe>::try_from(loaded)?.unload()?,
        Attach::RawTracepoint(_) => <&mut RawTracePoint>::try_from(loaded)?.unload()?,
    }
    load_one(ebpf, btf, program).map_err(|reason| anyhow!("the kernel does not take {} again: {reason}", program.name))
}

/// The object's sections and the table of hooks are written in two places; this catches a slip.
fn typed<'a, T: TryFrom<&'a mut aya::programs::Program, Error = ProgramError>>(
    program: &'a mut aya::programs::Program,
) -> Result<T, String> {
    T::try_from(program).map_err(|error| error.to_string())
}

/// A kernel's refusal in one line: the verifier's log ends with the reason, before its statistics.
pub(super) fn refusal(error: &ProgramError) -> String {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            let reason = log.lines().rev().map(str::trim).find(|line| {
                !line.is_empty()
                    && !line.starts_with("processed ")
                    && !line.starts_with("verification time")
                    && !line.starts_with("stack depth")
            });
            match reason {
                Some(reason) => format!("{reason} ({io_error})"),
                None => io_error.to_string(),
            }
        }
        other => other.to_string(),
    }
}

/// Attaches a program, and hands out its link.
pub(super) fn attach(ebpf: &mut Ebpf, program: Program) -> Result<Link> {
    /// Every kind of program has its own kind of link.
    macro_rules! attached {
        ($kind:ty $(, $argument:expr)*) => {{
            let loaded = <&mut $kind>::try_from(ebpf.program_mut(program.name).context("not in the BPF object")?)?;
            let link = loaded.attach($($argument),*)?;
            Ok(Box::new(loaded.take_link(link)?))
        }};
    }
    match program.attach {
        Attach::Fentry(_) => attached!(FEntry),
        Attach::Fexit(_) => attached!(FExit),
        Attach::TpBtf(_) => attached!(BtfTracePoint),
        Attach::Kprobe(function) | Attach::Kretprobe(function) => attached!(KProbe, function, 0),
        Attach::RawTracepoint(tracepoint) => attached!(RawTracePoint, tracepoint),
    }
}

#[cfg(test)]
mod tests {
    use object::{Object as _, ObjectSection as _};

    use super::*;

    #[test]
    fn the_object_holds_nothing_for_debuggers_and_no_line_numbers() {
        /// Where `.BTF.ext` says how long its line numbers are.
        const LINES_LEN: usize = 20;
        let object = object::File::parse(OBJECT).expect("an ELF file");
        let names: Vec<_> = object.sections().filter_map(|section| section.name().ok().map(str::to_owned)).collect();
        assert!(
            names.iter().any(|name| name == ".BTF") && !names.iter().any(|name| name.contains("debug")),
            "{names:?}"
        );
        let about_functions = object.section_by_name(".BTF.ext").expect("it names functions");
        let data = about_functions.data().expect("data");
        assert_eq!(data.get(LINES_LEN..LINES_LEN + 4), Some(&[0; 4][..]), "built without CONNTRACER_BPF_LINES");
    }

    #[test]
    fn without_trampolines_no_choice_on_functions_is_typed_and_tracepoints_are() {
        let lacking = Lacking { trampolines: Some("error 524"), ..Lacking::default() };
        for spec in HOOKS {
            let refused: Vec<_> = spec.choices.iter().filter_map(|choice| lacking.refusal(choice)).collect();
            let on_functions = spec.choices.iter().filter(|choice| ["fentry", "fexit"].contains(&backend_of(choice)));
            assert_eq!(refused.len(), on_functions.count(), "{}: {refused:?}", spec.name);
            assert!(refused.iter().all(|reason| reason.ends_with(": error 524")), "{refused:?}");
            assert!(spec.choices.iter().all(|choice| Lacking::default().refusal(choice).is_none()));
        }
    }
}
