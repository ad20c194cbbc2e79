//! The hooks as a table: what each serves, the programs of its first choice and of its fallback.

use std::collections::BTreeSet;

use tracer_ebpf::detail;

use crate::kernel::btf::{Btf, extract::extract, names::Named};

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attach {
    /// Entry of a kernel function, typed arguments.
    Fentry(&'static str),
    /// Return of a kernel function, typed arguments.
    Fexit(&'static str),
    /// Tracepoint, typed arguments.
    TpBtf(&'static str),
    /// Entry of a kernel function by breakpoint.
    Kprobe(&'static str),
    /// Return of a kernel function by breakpoint.
    Kretprobe(&'static str),
    /// Tracepoint, untyped arguments.
    RawTracepoint(&'static str),
}

impl Attach {
    /// Its name in `doctor` and in the summary.
    pub fn backend(self) -> &'static str {
        match self {
            Self::Fentry(_) => "fentry",
            Self::Fexit(_) => "fexit",
            Self::TpBtf(_) => "tp_btf",
            Self::Kprobe(_) => "kprobe",
            Self::Kretprobe(_) => "kretprobe",
            Self::RawTracepoint(_) => "raw_tracepoint",
        }
    }

    /// Whether its programs have typed pointers.
    fn is_typed(self) -> bool {
        self.type_name().is_some()
    }

    /// What the kernel's BTF calls the place, where it takes typed pointers: the id of that type is what such a program is loaded for.
    fn type_name(self) -> Option<(Named, String)> {
        match self {
            Self::Fentry(function) | Self::Fexit(function) => Some((Named::Function, function.to_owned())),
            Self::TpBtf(tracepoint) => Some((Named::Typedef, format!("btf_trace_{tracepoint}"))),
            Self::Kprobe(_) | Self::Kretprobe(_) | Self::RawTracepoint(_) => None,
        }
    }
}

/// A BPF program and where it goes.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// Function in the BPF object.
    pub name: &'static str,
    /// Where.
    pub attach: Attach,
    /// Which of its hook's programs it is.
    pub part: Part,
}

/// A hook's programs overlap with themselves on one processor, and the kernel skips what does; see the kernel side's
/// `overlap`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The one that does the work.
    First,
    /// Serves what the first is skipped for because packets interrupted it.
    Second,
    /// Serves what those before it are skipped for because tasks preempted each other: only on kernels that preempt.
    IfPreemptible,
}

/// One hook: what the rest of the program knows it by.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// Name in reports: the kernel function or tracepoint.
    pub name: &'static str,
    /// What can serve it, best first. The programs of one choice go together. The last choices need no typed pointers: of
    /// kprobes where the kernel has the functions for them, then what will do everywhere, empty where nothing will.
    pub choices: &'static [&'static [Program]],
    /// Whether it touches socket records: those hooks must all agree on where the records are.
    pub keeps_records: bool,
    /// The detail in which it is attached: one of `tracer_ebpf::detail`, or a greater one.
    pub detail: u32,
    /// Whether it only serves the probes on TLS libraries.
    pub for_libraries: bool,
    /// A function that some supported kernels lack, because another serves for it there: then nothing is missing.
    pub superseded: bool,
    /// What is absent from the output without it.
    pub without: &'static str,
}

impl Spec {
    /// The choices without typed pointers.
    pub fn fallback(&self) -> &'static [&'static [Program]] {
        let typed = self.choices.iter().take_while(|choice| choice.iter().any(|program| program.attach.is_typed()));
        &self.choices[typed.count()..]
    }

    /// Whether the programs of another hook do its work where there are no typed pointers.
    pub fn has_no_fallback(&self) -> bool {
        self.choices.last().is_some_and(|choice| choice.is_empty())
    }

    /// Name of the backend that is used where all is well.
    pub fn first_backend(&self) -> &'static str {
        backend_of(self.choices[0])
    }
}

/// Names of the hooks whose function this kernel lacks because another serves for it. A kprobe for what is not there loads, and
/// fails only when it is attached; by then the typed program's failure would have kept records out of socket storage.
pub fn superseded(kernel: &Btf) -> Vec<&'static str> {
    let is_absent = |spec: &&Spec| spec.superseded && kernel.prototype(spec.name).is_none();
    HOOKS.iter().filter(is_absent).map(|spec| spec.name).collect()
}

/// Functions that this kernel lacks, or that are named in `without`, of those that a kprobe hooks where another choice is
/// left. A kprobe for what is not there loads, and fails only when it is attached. Where no choice is left, that tells better
/// than BTF, which does not hold every function.
pub fn absent(kernel: &Btf, without: &[String]) -> Vec<&'static str> {
    let choices = HOOKS.iter().flat_map(|spec| spec.choices.split_last().map_or(&[][..], |(_, others)| others));
    let is_absent =
        |function: &&str| without.iter().any(|name| name == function) || kernel.prototype(function).is_none();
    choices.flat_map(|choice| probed(choice)).filter(is_absent).collect()
}

/// BTF that holds what typed programs are loaded for, and of the kernel's other types only that they are there: the library
/// that loads programs reads it quicker, and searches it quicker.
pub fn named_types(kernel: &Btf) -> Vec<u8> {
    let programs = HOOKS.iter().flat_map(|spec| spec.choices.iter().copied().flatten());
    let names: BTreeSet<_> = programs.filter_map(|program| program.attach.type_name()).collect();
    extract(kernel.encoded(), names.iter().filter_map(|(named, name)| kernel.id(*named, name)))
}

/// Functions that the programs of a choice hook by kprobe.
pub fn probed(choice: &[Program]) -> impl Iterator<Item = &'static str> {
    choice.iter().filter_map(|program| match program.attach {
        Attach::Kprobe(function) => Some(function),
        _ => None,
    })
}

/// A choice's name: that of the program that reports, which is the last (others keep arguments for it, or count what it misses).
///
/// The order within a choice is that of attaching, and it matters to second programs: they run after the first. A
/// tracepoint runs its programs in the order in which they came, a trampoline the latest first.
pub fn backend_of(programs: &[Program]) -> &'static str {
    programs.last().map_or("none", |program| program.attach.backend())
}

const fn program(name: &'static str, attach: Attach) -> Program {
    Program { name, attach, part: Part::First }
}

const fn second(name: &'static str, attach: Attach) -> Program {
    Program { name, attach, part: Part::Second }
}

const fn if_preemptible(name: &'static str, attach: Attach) -> Program {
    Program { name, attach, part: Part::IfPreemptible }
}

/// The programs of a hook that fires in processes only: a function's entry or return, the latest attached runs first.
macro_rules! in_processes {
    ($stem:literal, $kind:literal, $attach:expr) => {
        in_processes!($stem, $kind, $attach, "6", "5", "4", "3", "2")
    };
    ($stem:literal, $kind:literal, $attach:expr, $($number:literal),+) => {
        &[
            $(if_preemptible(concat!($stem, "_", $number, "_", $kind), $attach),)+
            program(concat!($stem, "_", $kind), $attach),
        ]
    };
}

/// The programs of a tracepoint that fires rarely, or in processes only: they run in the order in which they were attached.
macro_rules! in_tasks {
    ($stem:literal, $kind:literal, $attach:expr) => {
        &[
            program(concat!($stem, "_", $kind), $attach),
            if_preemptible(concat!($stem, "_2_", $kind), $attach),
            if_preemptible(concat!($stem, "_3_", $kind), $attach),
        ]
    };
}

/// The programs of a tracepoint that packets fire too: they run in the order in which they were attached.
macro_rules! in_interrupts {
    ($stem:literal, $kind:literal, $attach:expr) => {
        &[
            program(concat!($stem, "_", $kind), $attach),
            second(concat!($stem, "_2_", $kind), $attach),
            if_preemptible(concat!($stem, "_3_", $kind), $attach),
            if_preemptible(concat!($stem, "_4_", $kind), $attach),
            if_preemptible(concat!($stem, "_5_", $kind), $attach),
            if_preemptible(concat!($stem, "_6_", $kind), $attach),
        ]
    };
}

/// All hooks, in the order in which they are attached: ends before beginnings, so that a connection whose beginning was
/// seen never lacks its end.
pub const HOOKS: &[Spec] = &[
    Spec {
        name: "sched_process_exit",
        choices: &[
            in_tasks!("exit", "tp_btf", Attach::TpBtf("sched_process_exit")),
            in_tasks!("exit", "raw_tp", Attach::RawTracepoint("sched_process_exit")),
        ],
        keeps_records: false,
        detail: detail::CONNECTIONS,
        for_libraries: false,
        superseded: false,
        without: "a target's number that is used again by a stranger is traced",
    },
    Spec {
        name: "sched_process_exec",
        choices: &[
            in_tasks!("exec", "tp_btf", Attach::TpBtf("sched_process_exec")),
            in_tasks!("exec", "raw_tp", Attach::RawTracepoint("sched_process_exec")),
        ],
        keeps_records: false,
        detail: detail::CONNECTIONS,
        for_libraries: false,
        superseded: false,
        without: "the executable of processes that live only for an instant, and --comm for names taken on by exec",
    },
    Spec {
        name: "sched_process_fork",
        choices: &[
            in_tasks!("fork", "tp_btf", Attach::TpBtf("sched_process_fork")),
            in_tasks!("fork", "raw_tp", Attach::RawTracepoint("sched_process_fork")),
        ],
        keeps_records: false,
        detail: detail::CONNECTIONS,
        for_libraries: false,
        superseded: false,
        without: "the connections of a target's children",
    },
    Spec {
        name: "udp_sendmsg",
        choices: &[
            in_processes!("udp_send", "fentry", Attach::Fentry("udp_sendmsg"), "3", "2"),
            &[program("udp_send_kprobe", Attach::Kprobe("udp_sendmsg"))],
        ],
        keeps_records: false,
        detail: detail::EXCHANGES,
        for_libraries: false,
        superseded: false,
        without: "DNS lookups by servers with IPv4 addresses, and what they cost",
    },
    Spec {
        name: "udpv6_sendmsg",
        choices: &[
            in_processes!("udpv6_send", "fentry", Attach::Fentry("udpv6_sendmsg"), "3", "2"),
            &[program("udpv6_send_kprobe", Attach::Kprobe("udpv6_sendmsg"))],
        ],
        keeps_records: false,
        detail: detail::EXCHANGES,
        for_libraries: false,
        superseded: false,
        without: "DNS lookups by servers with IPv6 addresses, and what they cost",
    },
    Spec {
        name: "udp_recvmsg",
        choices: &[
            in_processes!("udp_receive_6", "fexit", Attach::Fexit("udp_recvmsg"), "3", "2"),
            in_processes!("udp_receive_5", "fexit", Attach::Fexit("udp_recvmsg"), "3", "2"),
            in_processes!("udp_receive_4", "fexit", Attach::Fexit("udp_recvmsg"), "3", "2"),
            &[
                program("udp_receive_kprobe", Attach::Kprobe("udp_recvmsg")),
                program("udp_consumed_kprobe", Attach::Kprobe("skb_consume_udp")),
            ],
            &[
                program("udp_ends_raw_tp", Attach::RawTracepoint("sched_process_exit")),
                program("udp_enters_kprobe", Attach::Kprobe("udp_recvmsg")),
                program("udp_receive_kretprobe", Attach::Kretprobe("udp_recvmsg")),
            ],
        ],
        keeps_records: false,
        detail: detail::EXCHANGES,
        for_libraries: false,
        superseded: false,
        without: "answers to DNS lookups over sockets of IPv4: names, and what lookups cost",
    },
    Spec {
        name: "udpv6_recvmsg",
        choices: &[
            in_processes!("udpv6_receive_6", "fexit", Attach::Fexit("udpv6_recvmsg"), "3", "2"),
            in_processes!("udpv6_receive_5", "fexit", Attach::Fexit("udpv6_recvmsg"), "3", "2"),
            in_processes!("udpv6_receive_4", "fexit", Attach::Fexit("udpv6_recvmsg"), "3", "2"),
            &[
                program("udpv6_receive_kprobe", Attach::Kprobe("udpv6_recvmsg")),
                program("udpv6_consumed_kprobe", Attach::Kprobe("skb_consume_udp")),
            ],
            &[
                program("udpv6_ends_raw_tp", Attach::RawTracepoint("sched_process_exit")),
                program("udpv6_enters_kprobe", Attach::Kprobe("udpv6_recvmsg")),
                program("udpv6_receive_kretprobe", Attach::Kretprobe("udpv6_recvmsg")),
            ],
        ],
        keeps_records: false,
        detail: detail::EXCHANGES,
        for_libraries: false,
        superseded: false,
        without: "answers to DNS lookups over sockets of IPv6: names, and what lookups cost",
    },
    Spec {
        name: "tcp_close",
        choices: &[
            in_processes!("close", "fentry", Attach::Fentry("tcp_close")),
            &[program("close_kprobe", Attach::Kprobe("tcp_close"))],
        ],
        keeps_records: true,
        detail: detail::CONNECTIONS,
        for_libraries: false,
        superseded: false,
        without: "released_at, unnoticed_ms, process_exited; connections are reported when TCP ends them",
    },
    Spec {
        name: "sk_error_report",
        choices: &[
            in_processes!("error", "fentry", Attach::Fentry("sk_error_report"), "3", "2"),
            in_processes!("error_default", "fentry", Attach::Fentry("sock_def_error_report"), "3", "2"),
            &[program("error_kprobe", Attach::Kprobe("sock_def_error_report"))],
        ],
        keeps_records: true,
        detail: detail::CONNECTIONS,
        for_libraries: false,
        superseded: false,
        without: "now and then the error of a connection that failed, where the application was quicker to take it",
    },
    Spec {
        name: "tcp_receive_reset",
        choices: &[
            in_tasks!("receive_reset", "tp_btf", Attach::TpBtf("tcp_receive_reset")),
            &[program("receive_reset_raw_tp", Attach::RawTracepoint("tcp_receive_reset"))],
        ],
        keeps_records: true,
        detail: detail::CONNECTIONS,
        for_libraries: false,
        superseded: false,
        without: "the proof that an RST arrived; it is inferred from the socket's error",
    },
    Spec {
        name: "tcp_send_reset",
        choices: &[
            in_tasks!("send_reset", "tp_btf", Attach::TpBtf("tcp_send_reset")),
            &[program("send_reset_raw_tp", Attach::RawTracepoint("tcp_send_reset"))],
        ],
        keeps_records: true,
        detail: detail::CONNECTIONS,
        for_libraries: false,
        superseded: false,
        without: "the proof that an RST was sent; it is inferred from the state machine",
    },
    Spec {
        name: "tcp_retransmit_skb",
        choices: &[
            in_tasks!("retransmit", "tp_btf", Attach::TpBtf("tcp_retransmit_skb")),
            &[program("retransmit_raw_tp", Attach::RawTracepoint("tcp_retransmit_skb"))],
        ],
        keeps_records: true,
        detail: detail::CONNECTIONS,
        for_libraries: false,
        superseded: false,
        without: "connects that hang are known only when they end",
    },
    Spec {
        name: "inet_sock_set_state",
        choices: &[
            in_interrupts!("state", "tp_btf", Attach::TpBtf("inet_sock_set_state")),
            in_interrupts!("state", "raw_tp", Attach::RawTracepoint("inet_sock_set_state")),
        ],
        keeps_records: true,
        detail: detail::CONNECTIONS,
        for_libraries: false,
        superseded: false,
        without: "connect times, closers and ends: next to everything",
    },
    Spec {
        name: "tcp_connect",
        choices: &[
            in_processes!("connect", "fentry", Attach::Fentry("tcp_connect")),
            &[program("connect_kprobe", Attach::Kprobe("tcp_connect"))],
        ],
        keeps_records: true,
        detail: detail::CONNECTIONS,
        for_libraries: false,
        superseded: false,
        without: "all client connections",
    },
    Spec {
        name: "tcp_v4_connect",
        choices: &[
            in_processes!("v4_connect", "fexit", Attach::Fexit("tcp_v4_connect")),
            &[
                program("v4_connect_kprobe", Attach::Kprobe("tcp_v4_connect")),
                program("v4_connect_kretprobe", Attach::Kretprobe("tcp_v4_connect")),
            ],
        ],
        keeps_records: true,
        detail: detail::CONNECTIONS,
        for_libraries: false,
        superseded: false,
        without: "IPv4 connects that fail before a SYN is sent (no route, no free port)",
    },
    Spec {
        name: "tcp_v6_connect",
        choices: &[
            in_processes!("v6_connect", "fexit", Attach::Fexit("tcp_v6_connect")),
            &[
                program("v6_connect_kprobe", Attach::Kprobe("tcp_v6_connect")),
                program("v6_connect_kretprobe", Attach::Kretprobe("tcp_v6_connect")),
            ],
        ],
        keeps_records: true,
        detail: detail::CONNECTIONS,
        for_libraries: false,
        superseded: false,
        without: "IPv6 connects that fail before a SYN is sent",
    },
    Spec {
        name: "inet_csk_accept",
        choices: &[
            in_processes!("accept_2", "fexit", Attach::Fexit("inet_csk_accept")),
            in_processes!("accept_4", "fexit", Attach::Fexit("inet_csk_accept")),
            &[program("accept_kprobe", Attach::Kprobe("security_sock_graft"))],
            &[
                program("accept_ends_raw_tp", Attach::RawTracepoint("sched_process_exit")),
                program("accept_enters_kprobe", Attach::Kprobe("inet_csk_accept")),
                program("accept_kretprobe", Attach::Kretprobe("inet_csk_accept")),
            ],
        ],
        keeps_records: true,
        detail: detail::CONNECTIONS,
        for_libraries: false,
        superseded: false,
        without: "all server connections",
    },
    Spec {
        name: "security_sock_graft",
        // Without typed pointers the hook of accepts goes there itself.
        choices: &[in_processes!("graft", "fentry", Attach::Fentry("security_sock_graft"), "3", "2"), &[]],
        keeps_records: true,
        detail: detail::CONNECTIONS,
        for_libraries: false,
        superseded: false,
        without: "a server's connection for which a thread has waited in accept since before the trace",
    },
    Spec {
        name: "tcp_sendmsg_locked",
        choices: &[
            in_processes!("send", "fentry", Attach::Fentry("tcp_sendmsg_locked"), "4", "3", "2"),
            &[program("send_kprobe", Attach::Kprobe("tcp_sendmsg_locked"))],
        ],
        keeps_records: true,
        detail: detail::EXCHANGES,
        for_libraries: false,
        superseded: false,
        without: "all exchanges, TLS, and DNS lookups over TCP",
    },
    Spec {
        name: "tcp_sendpage",
        choices: &[
            &[program("send_page_fentry", Attach::Fentry("tcp_sendpage"))],
            &[program("send_page_kprobe", Attach::Kprobe("tcp_sendpage"))],
        ],
        keeps_records: true,
        detail: detail::EXCHANGES,
        for_libraries: false,
        superseded: true,
        without: "when sendfile sent data",
    },
    Spec {
        name: "sk_stream_wait_memory",
        choices: &[
            in_processes!("send_goes_on", "fexit", Attach::Fexit("sk_stream_wait_memory"), "3", "2"),
            &[program("send_waits_kprobe", Attach::Kprobe("sk_stream_wait_memory"))],
        ],
        keeps_records: true,
        detail: detail::EXCHANGES,
        for_libraries: false,
        superseded: false,
        without: "the time of the last byte of what one call sends for long",
    },
    Spec {
        name: "tcp_recvmsg",
        choices: &[
            in_processes!("receive_6", "fexit", Attach::Fexit("tcp_recvmsg"), "4", "3", "2"),
            in_processes!("receive_5", "fexit", Attach::Fexit("tcp_recvmsg"), "4", "3", "2"),
            in_processes!("receive_4", "fexit", Attach::Fexit("tcp_recvmsg"), "4", "3", "2"),
            // At its end alone, nothing would tell where the bytes are.
            &[
                program("receives_kprobe", Attach::Kprobe("tcp_recvmsg")),
                program("received_kprobe", Attach::Kprobe("tcp_cleanup_rbuf")),
            ],
        ],
        keeps_records: true,
        detail: detail::EXCHANGES,
        for_libraries: false,
        superseded: false,
        without: "all exchanges, TLS, and DNS lookups over TCP",
    },
    Spec {
        name: "tcp_splice_read",
        // As kprobes, what serves tcp_recvmsg serves this too.
        choices: &[in_processes!("splice_read", "fexit", Attach::Fexit("tcp_splice_read"), "3", "2"), &[]],
        keeps_records: true,
        detail: detail::EXCHANGES,
        for_libraries: false,
        superseded: true,
        without: "when splice took data",
    },
    Spec {
        name: "uprobe_mmap",
        choices: &[
            in_processes!("mapped", "fentry", Attach::Fentry("uprobe_mmap"), "3", "2"),
            &[program("mapped_kprobe", Attach::Kprobe("uprobe_mmap"))],
        ],
        keeps_records: false,
        detail: detail::EXCHANGES,
        for_libraries: true,
        superseded: false,
        without: "TLS libraries that are loaded while the trace is under way",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    fn is_typed(choice: &[Program]) -> bool {
        choice.iter().any(|program| program.attach.is_typed())
    }

    #[test]
    fn every_hook_has_choices_with_typed_pointers_first_and_then_some_without() {
        for spec in HOOKS {
            let fallback = spec.fallback();
            let typed = &spec.choices[..spec.choices.len() - fallback.len()];
            assert!(!typed.is_empty() && typed.iter().all(|choice| is_typed(choice)), "{}", spec.name);
            assert!(!fallback.is_empty() && !fallback.iter().any(|choice| is_typed(choice)), "{}", spec.name);
        }
    }

    #[test]
    fn what_waits_is_left_to_return_probes_only_where_nothing_else_will_do() {
        for name in ["inet_csk_accept", "udp_recvmsg", "udpv6_recvmsg"] {
            let spec = HOOKS.iter().find(|spec| spec.name == name).expect("a hook of that name");
            let backends: Vec<_> = spec.fallback().iter().map(|choice| backend_of(choice)).collect();
            assert_eq!(backends, ["kprobe", "kretprobe"], "{name}");
        }
    }
}
