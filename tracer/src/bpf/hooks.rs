//! The hooks as a table: what each serves, the programs of its first choice and of its fallback.

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
    SecondIfPreemptible,
}

/// One hook: what the rest of the program knows it by.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// Name in reports: the kernel function or tracepoint.
    pub name: &'static str,
    /// What can serve it, best first. The programs of one choice go together; the last choice needs no typed pointers.
    pub choices: &'static [&'static [Program]],
    /// Whether it touches socket records: those hooks must all agree on where the records are.
    pub keeps_records: bool,
    /// What is absent from the output without it.
    pub without: &'static str,
}

impl Spec {
    /// The choices that a kernel with typed pointers has.
    pub fn typed(&self) -> &'static [&'static [Program]] {
        &self.choices[..self.choices.len() - 1]
    }

    /// The choice that every kernel has.
    pub fn fallback(&self) -> &'static [&'static [Program]] {
        &self.choices[self.choices.len() - 1..]
    }

    /// Name of the backend that is used where all is well.
    pub fn first_backend(&self) -> &'static str {
        backend_of(self.choices[0])
    }
}

/// A choice's name: that of the program that reports (a kretprobe's kprobe only keeps arguments for it).
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

const fn second_if_preemptible(name: &'static str, attach: Attach) -> Program {
    Program { name, attach, part: Part::SecondIfPreemptible }
}

/// All hooks, in the order in which they are attached: ends before beginnings, so that a connection whose beginning was
/// seen never lacks its end.
pub const HOOKS: &[Spec] = &[
    Spec {
        name: "sched_process_exit",
        choices: &[
            &[program("exit_tp_btf", Attach::TpBtf("sched_process_exit"))],
            &[program("exit_raw_tp", Attach::RawTracepoint("sched_process_exit"))],
        ],
        keeps_records: false,
        without: "a target's number that is used again by a stranger is traced",
    },
    Spec {
        name: "sched_process_exec",
        choices: &[
            &[program("exec_tp_btf", Attach::TpBtf("sched_process_exec"))],
            &[program("exec_raw_tp", Attach::RawTracepoint("sched_process_exec"))],
        ],
        keeps_records: false,
        without: "the executable of processes that live only for an instant, and --comm for names taken on by exec",
    },
    Spec {
        name: "sched_process_fork",
        choices: &[
            &[program("fork_tp_btf", Attach::TpBtf("sched_process_fork"))],
            &[program("fork_raw_tp", Attach::RawTracepoint("sched_process_fork"))],
        ],
        keeps_records: false,
        without: "the connections of a target's children",
    },
    Spec {
        name: "udp_sendmsg",
        choices: &[
            &[program("udp_send_fentry", Attach::Fentry("udp_sendmsg"))],
            &[program("udp_send_kprobe", Attach::Kprobe("udp_sendmsg"))],
        ],
        keeps_records: false,
        without: "DNS lookups by servers with IPv4 addresses, and what they cost",
    },
    Spec {
        name: "udpv6_sendmsg",
        choices: &[
            &[program("udpv6_send_fentry", Attach::Fentry("udpv6_sendmsg"))],
            &[program("udpv6_send_kprobe", Attach::Kprobe("udpv6_sendmsg"))],
        ],
        keeps_records: false,
        without: "DNS lookups by servers with IPv6 addresses, and what they cost",
    },
    Spec {
        name: "udp_recvmsg",
        choices: &[
            &[program("udp_receive_6_fexit", Attach::Fexit("udp_recvmsg"))],
            &[program("udp_receive_5_fexit", Attach::Fexit("udp_recvmsg"))],
            &[program("udp_receive_4_fexit", Attach::Fexit("udp_recvmsg"))],
            &[
                program("udp_receive_kprobe", Attach::Kprobe("udp_recvmsg")),
                program("udp_receive_kretprobe", Attach::Kretprobe("udp_recvmsg")),
            ],
        ],
        keeps_records: false,
        without: "answers to DNS lookups over sockets of IPv4: names, and what lookups cost",
    },
    Spec {
        name: "udpv6_recvmsg",
        choices: &[
            &[program("udpv6_receive_6_fexit", Attach::Fexit("udpv6_recvmsg"))],
            &[program("udpv6_receive_5_fexit", Attach::Fexit("udpv6_recvmsg"))],
            &[program("udpv6_receive_4_fexit", Attach::Fexit("udpv6_recvmsg"))],
            &[
                program("udpv6_receive_kprobe", Attach::Kprobe("udpv6_recvmsg")),
                program("udpv6_receive_kretprobe", Attach::Kretprobe("udpv6_recvmsg")),
            ],
        ],
        keeps_records: false,
        without: "answers to DNS lookups over sockets of IPv6: names, and what lookups cost",
    },
    Spec {
        name: "tcp_sendmsg",
        choices: &[
            &[program("dns_tcp_send_fentry", Attach::Fentry("tcp_sendmsg"))],
            &[program("dns_tcp_send_kprobe", Attach::Kprobe("tcp_sendmsg"))],
        ],
        keeps_records: false,
        without: "DNS lookups over TCP",
    },
    Spec {
        name: "tcp_recvmsg",
        choices: &[
            &[program("dns_tcp_receive_6_fexit", Attach::Fexit("tcp_recvmsg"))],
            &[program("dns_tcp_receive_5_fexit", Attach::Fexit("tcp_recvmsg"))],
            &[program("dns_tcp_receive_4_fexit", Attach::Fexit("tcp_recvmsg"))],
            &[
                program("dns_tcp_receive_kprobe", Attach::Kprobe("tcp_recvmsg")),
                program("dns_tcp_receive_kretprobe", Attach::Kretprobe("tcp_recvmsg")),
            ],
        ],
        keeps_records: false,
        without: "answers to DNS lookups over TCP",
    },
    Spec {
        name: "tcp_close",
        choices: &[
            &[
                second_if_preemptible("close_fourth_fentry", Attach::Fentry("tcp_close")),
                second_if_preemptible("close_third_fentry", Attach::Fentry("tcp_close")),
                second_if_preemptible("close_again_fentry", Attach::Fentry("tcp_close")),
                program("close_fentry", Attach::Fentry("tcp_close")),
            ],
            &[program("close_kprobe", Attach::Kprobe("tcp_close"))],
        ],
        keeps_records: true,
        without: "released_at, unnoticed_ms, process_exited; connections are reported when TCP ends them",
    },
    Spec {
        name: "tcp_receive_reset",
        choices: &[
            &[program("receive_reset_tp_btf", Attach::TpBtf("tcp_receive_reset"))],
            &[program("receive_reset_raw_tp", Attach::RawTracepoint("tcp_receive_reset"))],
        ],
        keeps_records: true,
        without: "the proof that an RST arrived; it is inferred from the socket's error",
    },
    Spec {
        name: "tcp_send_reset",
        choices: &[
            &[program("send_reset_tp_btf", Attach::TpBtf("tcp_send_reset"))],
            &[program("send_reset_raw_tp", Attach::RawTracepoint("tcp_send_reset"))],
        ],
        keeps_records: true,
        without: "the proof that an RST was sent; it is inferred from the state machine",
    },
    Spec {
        name: "tcp_retransmit_skb",
        choices: &[
            &[program("retransmit_tp_btf", Attach::TpBtf("tcp_retransmit_skb"))],
            &[program("retransmit_raw_tp", Attach::RawTracepoint("tcp_retransmit_skb"))],
        ],
        keeps_records: true,
        without: "connects that hang are known only when they end",
    },
    Spec {
        name: "inet_sock_set_state",
        choices: &[
            &[
                program("state_tp_btf", Attach::TpBtf("inet_sock_set_state")),
                second("state_again_tp_btf", Attach::TpBtf("inet_sock_set_state")),
                second_if_preemptible("state_third_tp_btf", Attach::TpBtf("inet_sock_set_state")),
                second_if_preemptible("state_fourth_tp_btf", Attach::TpBtf("inet_sock_set_state")),
            ],
            &[
                program("state_raw_tp", Attach::RawTracepoint("inet_sock_set_state")),
                second("state_again_raw_tp", Attach::RawTracepoint("inet_sock_set_state")),
            ],
        ],
        keeps_records: true,
        without: "connect times, closers and ends: next to everything",
    },
    Spec {
        name: "tcp_connect",
        choices: &[
            &[
                second_if_preemptible("connect_fourth_fentry", Attach::Fentry("tcp_connect")),
                second_if_preemptible("connect_third_fentry", Attach::Fentry("tcp_connect")),
                second_if_preemptible("connect_again_fentry", Attach::Fentry("tcp_connect")),
                program("connect_fentry", Attach::Fentry("tcp_connect")),
            ],
            &[program("connect_kprobe", Attach::Kprobe("tcp_connect"))],
        ],
        keeps_records: true,
        without: "all client connections",
    },
    Spec {
        name: "tcp_v4_connect",
        choices: &[
            &[
                second_if_preemptible("v4_connect_again_fexit", Attach::Fexit("tcp_v4_connect")),
                program("v4_connect_fexit", Attach::Fexit("tcp_v4_connect")),
            ],
            &[
                program("v4_connect_kprobe", Attach::Kprobe("tcp_v4_connect")),
                program("v4_connect_kretprobe", Attach::Kretprobe("tcp_v4_connect")),
            ],
        ],
        keeps_records: true,
        without: "IPv4 connects that fail before a SYN is sent (no route, no free port)",
    },
    Spec {
        name: "tcp_v6_connect",
        choices: &[
            &[
                second_if_preemptible("v6_connect_again_fexit", Attach::Fexit("tcp_v6_connect")),
                program("v6_connect_fexit", Attach::Fexit("tcp_v6_connect")),
            ],
            &[
                program("v6_connect_kprobe", Attach::Kprobe("tcp_v6_connect")),
                program("v6_connect_kretprobe", Attach::Kretprobe("tcp_v6_connect")),
            ],
        ],
        keeps_records: true,
        without: "IPv6 connects that fail before a SYN is sent",
    },
    Spec {
        name: "inet_csk_accept",
        choices: &[
            &[
                second_if_preemptible("accept_2_fourth_fexit", Attach::Fexit("inet_csk_accept")),
                second_if_preemptible("accept_2_third_fexit", Attach::Fexit("inet_csk_accept")),
                second_if_preemptible("accept_2_again_fexit", Attach::Fexit("inet_csk_accept")),
                program("accept_2_fexit", Attach::Fexit("inet_csk_accept")),
            ],
            &[
                second_if_preemptible("accept_4_fourth_fexit", Attach::Fexit("inet_csk_accept")),
                second_if_preemptible("accept_4_third_fexit", Attach::Fexit("inet_csk_accept")),
                second_if_preemptible("accept_4_again_fexit", Attach::Fexit("inet_csk_accept")),
                program("accept_4_fexit", Attach::Fexit("inet_csk_accept")),
            ],
            &[program("accept_kretprobe", Attach::Kretprobe("inet_csk_accept"))],
        ],
        keeps_records: true,
        without: "all server connections",
    },
];
