//! Probes on libraries: which program goes on which function, and putting them there and taking them off.

use std::{
    collections::{HashMap, HashSet},
    rc::Rc,
    thread,
};

use anyhow::{Context as _, Result, bail};
use aya::{
    Ebpf,
    programs::{
        UProbe,
        uprobe::{UProbeAttachPoint, UProbeLink, UProbeScope},
    },
};
use tracer_ebpf::ssl::FRAME_BITS;

use super::detaching::Detaching;
use crate::target::library::{
    Family, FileId, Function, FunctionName, Kind, Library, Release,
    points::{self, Convention, Entry},
};

/// Where in a function a program goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Where it begins.
    Entry,
    /// On each of its return instructions.
    Returns,
}

/// A program and the function that it goes on.
type Probe = (FunctionName, &'static str, Place);

/// All programs, in the order in which they are put on: what ends a session or begins it anew before what goes on in it, so that none is
/// taken for another at the same address; a read's return before its entry, so that no entry waits for a return that is not seen.
const PROBES: &[Probe] = {
    use FunctionName::*;
    use Place::*;
    &[
        (SslSetFd, "ssl_set_fd", Entry),
        (SslSetWfd, "ssl_set_fd", Entry),
        (SslSetBio, "ssl_renew", Entry),
        (SslSet0Wbio, "ssl_renew", Entry),
        (SslClear, "ssl_renew", Entry),
        (SslFree, "ssl_free", Entry),
        (GnuTlsTransportSetInt2, "gnutls_set_two", Entry),
        (GnuTlsTransportSetPtr2, "gnutls_set_two", Entry),
        (GnuTlsTransportSetPtr, "gnutls_set_one", Entry),
        (GnuTlsDeinit, "gnutls_free", Entry),
        (SslRead, "ssl_has_read", Returns),
        (SslRead, "ssl_read", Entry),
        (SslReadEx, "ssl_has_read_ex", Returns),
        (SslReadEx, "ssl_read_ex", Entry),
        (SslWrite, "ssl_write", Entry),
        (SslWriteEx, "ssl_write_ex", Entry),
        (SslWriteEx2, "ssl_write_ex", Entry),
        (SslWriteEarlyData, "ssl_write_ex", Entry),
        (SslPeek, "ssl_call", Entry),
        (SslPeekEx, "ssl_call", Entry),
        (SslReadEarlyData, "ssl_call", Entry),
        (SslSendfile, "ssl_call", Entry),
        (SslDoHandshake, "ssl_call", Entry),
        (SslConnect, "ssl_call", Entry),
        (SslAccept, "ssl_call", Entry),
        (SslShutdown, "ssl_call", Entry),
        (BioWrite, "bio_write", Entry),
        (BioWriteEx, "bio_write", Entry),
        (GnuTlsRecordRecv, "gnutls_has_received", Returns),
        (GnuTlsRecordRecv, "gnutls_receive", Entry),
        (GnuTlsRecordRecvSeq, "gnutls_has_received", Returns),
        (GnuTlsRecordRecvSeq, "gnutls_receive", Entry),
        (GnuTlsRecordSend, "gnutls_send", Entry),
        (GnuTlsRecordSend2, "gnutls_send", Entry),
        (GnuTlsRecordSendRange, "gnutls_send", Entry),
        (GnuTlsRecordSendEarlyData, "gnutls_send", Entry),
        (GnuTlsRecordSendFile, "gnutls_call", Entry),
        (GnuTlsRecordUncork, "gnutls_call", Entry),
        (GnuTlsRecordRecvPacket, "gnutls_call", Entry),
        (GnuTlsHandshake, "gnutls_call", Entry),
        (GnuTlsBye, "gnutls_call", Entry),
        (GoRead, "go_has_read", Returns),
        (GoRead, "go_read", Entry),
        (GoWrite, "go_write", Entry),
        (GetAddrInfo, "getaddrinfo_done", Returns),
        (GetAddrInfo, "getaddrinfo", Entry),
    ]
};

/// From this release on Go passes arguments in registers.
const REGISTERS_SINCE: Release = Release { major: 1, minor: 17 };

/// How many probes are taken off at the same time. The kernel waits for a grace period or three for each, which all may share: one
/// after the other took 6 s for a Node on 7.2 (emulated).
const AT_ONCE: usize = 16;

/// The probes that are in place, by what they are on. A file may hold more than one library.
pub struct LibraryProbes {
    /// Whether HTTP heads are wanted.
    heads: bool,
    /// Whether the kernel tells programs the number of their place.
    numbers: bool,
    links: HashMap<(FileId, &'static str), Vec<UProbeLink>>,
    /// Those that are not wanted for now.
    going: Detaching,
}

impl LibraryProbes {
    /// Whether there are probes for this processor.
    pub const ARE_THERE: bool = cfg!(target_arch = "x86_64");

    /// Loads the programs. If no HTTP `heads` are wanted, what reads return is not looked at: it costs a third of all. `numbers` says
    /// whether the kernel tells programs the number of their place.
    ///
    /// # Errors
    /// If the kernel refuses one, or on a processor that there are none for.
    pub fn load(ebpf: &mut Ebpf, heads: bool, numbers: bool) -> Result<Self> {
        if !Self::ARE_THERE {
            // Which calls are under way is told by return addresses on the stack, and where a function returns by its code.
            bail!("none on {} yet, on x86-64 only", std::env::consts::ARCH);
        }
        let mut names: Vec<_> = PROBES.iter().map(|(_, program, _)| *program).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            program(ebpf, name)?.load().with_context(|| format!("the kernel refuses {name}"))?;
        }
        Ok(Self { heads, numbers, links: HashMap::new(), going: Detaching::default() })
    }

    /// Puts the probes on a library, unless that was tried before.
    ///
    /// # Errors
    /// If the kernel refuses one; then there are none.
    pub fn put_on(&mut self, ebpf: &mut Ebpf, library: &Rc<Library>) -> Result<()> {
        let key = (library.id, library.kind.name());
        if self.links.contains_key(&key) {
            return Ok(());
        }
        // Two probes at one place would tell everything twice.
        self.going.wait();
        let mut links = Vec::new();
        let outcome = self.put_all_on(ebpf, library, &mut links);
        if outcome.is_err() {
            take_off(std::mem::take(&mut links));
        }
        self.links.insert(key, links);
        outcome
    }

    fn put_all_on(&self, ebpf: &mut Ebpf, library: &Library, links: &mut Vec<UProbeLink>) -> Result<()> {
        let convention = match library.kind {
            Kind::Go { release } if release.is_some_and(|release| release >= REGISTERS_SINCE) => Convention::Go,
            Kind::Go { .. } => {
                bail!("this Go passes arguments on the stack (before 1.17), or does not state its version")
            }
            _ => Convention::C,
        };
        // Functions that jump to the same one return by the same instructions.
        let mut probed = HashSet::new();
        for (name, program_name, place) in PROBES {
            let Some(function) = library.functions.iter().find(|function| function.name == *name) else { continue };
            let points = match place {
                Place::Returns if !self.heads && name.family() != Family::Libc => continue,
                Place::Returns => {
                    let returns = library.returns(function).unwrap_or_default();
                    if returns.is_empty() && name.family() == Family::Libc {
                        bail!("it is not known where {} returns", name.symbol());
                    }
                    returns.into_iter().map(|at| (at, 0)).collect()
                }
                Place::Entry => {
                    let Entry { offset, frame } = self.entry(library, function, convention)?;
                    vec![(function.offset.saturating_add(offset), frame)]
                }
            };
            for (at, frame) in points {
                if !probed.insert((*program_name, at)) {
                    continue;
                }
                // An older kernel would refuse the number.
                let cookie = self.numbers.then_some(library.number << FRAME_BITS | frame);
                let point = UProbeAttachPoint { location: at.into(), cookie };
                let program = program(ebpf, program_name)?;
                let link = program.attach(point, library.probe_path(), UProbeScope::AllProcesses);
                let link = link.with_context(|| format!("cannot put a probe on {}", name.symbol()))?;
                links.push(program.take_link(link)?);
            }
        }
        Ok(())
    }

    fn entry(&self, library: &Library, function: &Function, convention: Convention) -> Result<Entry> {
        if !self.numbers {
            // The program must find the stack as it was at the call.
            return Ok(Entry::default());
        }
        let code = library.code(function).with_context(|| format!("cannot read {}", function.name.symbol()))?;
        Ok(points::entry(&code, convention))
    }

    /// Takes all probes off, beside what goes on; they may be put on again.
    pub fn take_all_off(&mut self) {
        let links = self.links.drain().flat_map(|(_, links)| links).collect();
        self.going.begin(move || take_off(links));
    }

    /// Takes the probes off a library that nobody uses any more.
    pub fn take_off(&mut self, library: &Library) {
        take_off(self.links.remove(&(library.id, library.kind.name())).unwrap_or_default());
    }
}

impl Drop for LibraryProbes {
    fn drop(&mut self) {
        self.take_all_off();
    }
}

/// Takes probes off. Returns when all are.
fn take_off(mut links: Vec<UProbeLink>) {
    let each = links.len().div_ceil(AT_ONCE).max(1);
    thread::scope(|scope| {
        while !links.is_empty() {
            let some = links.split_off(links.len().saturating_sub(each));
            scope.spawn(move || drop(some));
        }
    });
}

fn program<'e>(ebpf: &'e mut Ebpf, name: &str) -> Result<&'e mut UProbe> {
    let program = ebpf.program_mut(name).with_context(|| format!("the BPF object has no program {name}"))?;
    Ok(program.try_into()?)
}
