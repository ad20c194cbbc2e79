//! Which cases run on some kernels only, and which only if asked for.
//!
//! What hooks see depends on the kernel, so the cases of hooks run on all: lives, exchanges, TLS on the wire, HTTP heads, DNS, accuracy, the
//! doctor. What a client's library does, and what user space does with what it is told, is the same everywhere; an emulated processor takes
//! up to four minutes for one such case. Each of those runs on one kernel or two, and the longest only if asked for: a usual run has to end
//! within an hour on two processors, also on a machine that takes half as long again.
//! To start a trace takes longest on 7.2, which preempts: the kernel verifies several programs a hook there.
//! Two kernels run at a time, 6.12 and 7.2 first: who adds cases sees to it that 6.12 with 5.10 takes as long as 7.2 with 6.1.

use crate::kernels::Kernel;

/// Cases by their names, and the kernels they run on.
const SPREAD: &[(&str, &[&str])] = &[
    // What clients and their libraries do.
    ("sessions::openssl_on_sockets_with_a_thread_a_connection", &["6.12"]),
    ("sessions::openssl_on_sockets_with_all_connections_in_one_thread", &["6.1"]),
    ("sessions::openssl_on_memory", &["6.1"]),
    ("sessions::openssl_within_node", &["5.10"]),
    ("sessions::postgresql", &["6.1"]),
    ("sessions::redis", &["5.10"]),
    ("sessions::gnutls_with_a_process_a_connection", &["6.1"]),
    ("sessions::gnutls_that_sends_by_functions_of_its_application", &["5.10"]),
    ("sessions::go_at_both_ends", &["6.1"]),
    ("sessions::a_program_that_is_faster_than_the_probes", &["6.12"]),
    ("sessions::a_server_with_workers", &["7.2"]),
    ("tls::java_", &["6.1"]),
    ("tls::go_", &["6.12"]),
    ("tls::node_", &["5.10"]),
    ("tls::gnutls_", &["6.1"]),
    ("tls::curl_", &["5.10"]),
    ("tls::rustls_", &["6.1"]),
    ("tls::python_", &["6.12"]),
    ("tls::a_client_with_a_certificate", &["5.10"]),
    ("tls::a_server_that_is_not_trusted", &["6.1", "7.2"]),
    ("tls::a_server_that_resets", &["6.12", "5.10"]),
    ("tls::a_server_that_says_nothing", &["6.12", "5.10"]),
    ("tls::a_server_that_wants_another_group", &["6.1"]),
    ("tls::a_version_that_the_server_refuses", &["6.1"]),
    ("tls_libraries::a_library_that_is_loaded_later", &["6.12"]),
    ("tls_libraries::sessions_that_are_older_than_the_trace", &["6.1"]),
    ("tls_libraries::a_library_that_is_replaced_while_in_use", &["6.12"]),
    ("tls_libraries::a_library_that_was_deleted_while_in_use", &["5.10"]),
    ("tls_libraries::a_container_with_another_c_library", &["6.1"]),
    ("tls_libraries::a_program_under_a_seccomp_filter", &["6.12"]),
    ("tls_libraries::a_program_that_leaves_the_library_by_longjmp", &["6.1"]),
    ("tls_libraries::probes_are_put_on_for_targets", &["6.12"]),
    ("tls_libraries::a_stripped_program", &["6.1"]),
    ("getaddrinfo::", &["6.1"]),
    ("dns::nodes_own_resolver_", &["6.1"]),
    ("dns::a_lost_answer_", &["6.12"]),
    ("dns::a_name_that_does_not_exist", &["6.12"]),
    ("dns::garbage_", &["5.10"]),
    ("dns::an_answer_too_large_for_a_datagram_comes_over_tcp_by_kprobes_too", &["5.10"]),
    // That kprobes load and see a connection is the doctor's case on all.
    ("dns::kprobe::", &["5.10"]),
    ("connects::kprobe::", &["5.10", "7.2"]),
    ("accuracy::random_connections_are_reported_as_they_were_by_kprobes_too", &["6.1"]),
    // Each of these starts a trace of its own, for what does not depend on the kernel.
    ("exchanges::detail_connections_hooks_neither", &["6.12"]),
    ("http::a_connection_older_than_the_trace", &["6.1"]),
    ("exchanges::what_is_under_way_when_the_trace_stops", &["5.10"]),
    ("detach::a_trace_ends_by_itself", &["6.12"]),
    ("detach::what_happens_after_the_end", &["6.1"]),
    ("doctor::what_is_not_told_as_it_was", &["6.12"]),
    // Return probes are the last resort, which none of these kernels needs.
    ("waiting::an_accept_that_a_return_probe_does_not_follow", &["5.10"]),
    ("waiting::an_answer_that_a_return_probe_does_not_follow", &["6.12"]),
    // What user space does: with its output, its input, its targets, its load.
    ("bad_input::", &["6.1"]),
    ("run::", &["6.12"]),
    ("recording::", &["5.10"]),
    ("filters::", &["6.1"]),
    ("targets::a_named_target", &["6.12"]),
    ("targets::a_target_in_a_pid_namespace", &["6.1"]),
    ("targets::a_target_that_becomes", &["7.2"]),
    ("targets::a_target_that_ends", &["5.10"]),
    ("targets::a_traced_process", &["6.12"]),
    ("targets::several_processes", &["6.12"]),
    ("targets::the_whole_node", &["6.1"]),
    ("overload::an_output_that_nobody_reads", &["6.12"]),
    ("overload::detail_goes_down", &["5.10"]),
    ("overload::when_the_exchanges_overflow", &["6.1"]),
    ("exchanges::without_their_lines", &["6.1"]),
    ("http::no_output_and_no_recording", &["6.1"]),
    // A minute of load takes a minute and a half on 6.12, and several where probes are slower to put on and take off (`docs/soak.md`).
    ("soak::", &["6.12"]),
    ("exchanges::a_busy_connection", &["5.10", "7.2"]),
    // Nothing is lost in a burst: where the kernel preempts, which is harder, and where it does not.
    ("burst::of_10_000_connections", &["6.12", "7.2"]),
    ("burst::by_kprobes_too", &["6.1"]),
    // A network that is far away, and a processor that is rationed.
    ("network_costs::", &["5.10"]),
    ("cpu_quota::", &["6.1"]),
    // sock_diag tells of open sockets everywhere alike; one case of it runs on all.
    ("preexisting::adopted_connections_are_reported_once", &["5.10"]),
    ("preexisting::connections_in_another_network_namespace", &["6.12"]),
    ("preexisting::what_is_looked_at_before_it_is_taken", &["6.1"]),
    ("preexisting::what_is_open_at_the_end", &["5.10"]),
    // What happens to the tracer, its targets and the machine.
    ("detach::nothing_stays_in_the_kernel_after_a_signal", &["6.12"]),
    ("faults::crowds::", &["6.12"]),
    ("faults::killed::after_a_sigkill_", &["6.1"]),
    ("faults::killed::after_the_kernel_has_run_out", &["6.12"]),
    ("faults::limits::", &["5.10"]),
    ("faults::machine::processors_", &["6.12"]),
    ("faults::machine::steps_", &["7.2"]),
    ("faults::targets::", &["6.12"]),
    ("faults::stopped::", &["6.1"]),
    ("faults::vanished::a_cgroup_", &["6.1"]),
    ("faults::vanished::a_network_", &["5.10"]),
    // 6.1, 6.12 and 7.2 ask for the same rights; 5.10 for others, and for a library it takes the same.
    ("rights::a_filter_of_system_calls", &["6.1"]),
    ("rights::a_library_that_was_deleted", &["6.1"]),
    ("rights::a_program_with_file_capabilities", &["6.1"]),
    ("rights::memory_beyond_the_limit", &["6.1", "5.10"]),
    ("rights::owners_of_older_sockets", &["6.1"]),
    ("rights::probes_on_libraries", &["6.1"]),
    ("rights::root_gives_up", &["5.10"]),
    ("rights::sockets_in_another_network_namespace", &["6.1"]),
    ("rights::the_command_of_run", &["5.10"]),
    ("rights::tracing_takes_two_rights", &["6.1", "5.10"]),
    ("containers::", &["6.12"]),
    // Findings follow from records, which the other cases look at everywhere.
    ("cold_pool::", &["6.1"]),
    ("stale_reuse::", &["6.12"]),
    ("handshake_cpu::", &["6.12"]),
    ("idle_timeout::", &["6.1"]),
    ("connection_close::", &["6.1"]),
    ("healthy::", &["6.12"]),
];

/// Cases that take a minute and more, and of which a shorter one of the same kind runs always: they run on their kernels if asked for.
const LONG: &[&str] = &[
    "sessions::openssl_on_sockets_with_all_connections_in_one_thread",
    "sessions::openssl_on_memory",
    "sessions::openssl_within_node",
    "sessions::a_program_that_is_faster_than_the_probes",
    "sessions::postgresql",
    "sessions::gnutls_that_sends_by_functions_of_its_application",
    "sessions::go_at_both_ends",
    "healthy::",
    "soak::",
];

/// Which cases a run is of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// Those of hooks on all kernels, the others on their own, but for the long ones.
    Usual,
    /// The long ones too.
    Long,
    /// Every case on every kernel.
    All,
}

/// The cases that a run of this extent leaves out on a kernel.
pub fn left_out(kernel: Kernel, extent: Extent) -> Vec<&'static str> {
    let is_left_out = |case: &str, kernels: &[&str]| match extent {
        Extent::Usual => LONG.contains(&case) || !kernels.contains(&kernel.name),
        Extent::Long => !kernels.contains(&kernel.name),
        Extent::All => false,
    };
    SPREAD.iter().filter(|(case, kernels)| is_left_out(case, kernels)).map(|(case, _)| *case).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::KERNELS;

    #[test]
    fn every_case_runs_somewhere_and_every_kernel_usually_has_one_of_a_client() {
        for (case, kernels) in SPREAD {
            assert!(!kernels.is_empty(), "{case}");
            assert!(kernels.iter().all(|name| KERNELS.iter().any(|kernel| kernel.name == *name)), "{case}");
        }
        for kernel in KERNELS {
            let left_out = left_out(kernel, Extent::Usual);
            let mut of_clients = SPREAD.iter().filter(|(case, _)| case.starts_with("sessions::"));
            assert!(of_clients.any(|(case, _)| !left_out.contains(case)), "{}", kernel.name);
        }
    }

    #[test]
    fn long_cases_run_on_their_kernels_if_asked_for_and_all_run_everywhere_if_asked_for() {
        for case in LONG {
            let (_, kernels) = SPREAD.iter().find(|(spread, _)| spread == case).expect("a long case has its kernels");
            for kernel in KERNELS {
                assert!(left_out(kernel, Extent::Usual).contains(case), "{case}");
                assert_eq!(left_out(kernel, Extent::Long).contains(case), !kernels.contains(&kernel.name), "{case}");
                assert!(left_out(kernel, Extent::All).is_empty());
            }
        }
    }

    #[test]
    fn no_case_is_left_out_for_having_part_of_anothers_name() {
        // libtest leaves out whatever has the text in its name.
        for (case, _) in SPREAD {
            assert!(SPREAD.iter().all(|(other, _)| other == case || !other.contains(case)), "{case}");
        }
    }
}
