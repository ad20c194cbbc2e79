//! Which cases run on some kernels only, unless every case is asked for on every kernel.
//!
//! What hooks see depends on the kernel, so the cases of hooks run on all: lives, exchanges, TLS on the wire, HTTP heads, DNS, accuracy, the
//! doctor. What a client's library does, and what user space does with what it is told, is the same everywhere; an emulated processor takes
//! up to four minutes for one such case. Each of those runs on one kernel or two, or a run of all takes more than an hour and a half on two processors.
//! To start a trace takes longest on 7.2, which preempts: the kernel verifies several programs a hook there.

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
    ("sessions::gnutls_with_a_process_a_connection", &["5.10"]),
    ("sessions::gnutls_that_sends_by_functions_of_its_application", &["5.10"]),
    ("sessions::go_at_both_ends", &["6.1"]),
    ("sessions::a_program_that_is_faster_than_the_probes", &["6.12", "5.10"]),
    ("sessions::a_server_with_workers", &["6.12", "7.2"]),
    ("tls::java_", &["6.1"]),
    ("tls::go_", &["6.12"]),
    ("tls::node_", &["5.10"]),
    ("tls::gnutls_", &["6.1"]),
    ("tls_libraries::a_library_that_is_loaded_later", &["6.12"]),
    ("tls_libraries::sessions_that_are_older_than_the_trace", &["6.12", "6.1"]),
    ("tls_libraries::a_library_that_is_replaced_while_in_use", &["6.12"]),
    ("tls_libraries::a_library_that_was_deleted_while_in_use", &["5.10"]),
    ("tls_libraries::a_container_with_another_c_library", &["6.1"]),
    ("tls_libraries::a_program_under_a_seccomp_filter", &["6.12", "7.2"]),
    ("tls_libraries::a_program_that_leaves_the_library_by_longjmp", &["6.12", "6.1"]),
    ("tls_libraries::probes_are_put_on_for_targets", &["6.12", "5.10"]),
    ("getaddrinfo::", &["6.12", "6.1"]),
    ("dns::nodes_own_resolver_", &["6.1"]),
    ("dns::a_lost_answer_", &["6.12", "5.10"]),
    ("dns::an_answer_too_large_for_a_datagram_comes_over_tcp_by_kprobes_too", &["6.12", "5.10"]),
    // What user space does: with its output, its input, its targets, its load.
    ("bad_input::", &["6.12"]),
    ("run::", &["6.12"]),
    ("recording::", &["6.12", "5.10"]),
    ("filters::", &["6.12", "6.1"]),
    ("targets::a_named_target", &["6.12"]),
    ("targets::a_target_that_ends", &["6.12", "5.10"]),
    ("targets::a_traced_process", &["6.12", "5.10"]),
    ("targets::several_processes", &["6.12"]),
    ("targets::the_whole_node", &["6.12", "6.1"]),
    ("overload::an_output_that_nobody_reads", &["6.12"]),
    ("overload::detail_goes_down", &["6.12", "5.10"]),
    ("overload::when_the_exchanges_overflow", &["6.12", "6.1"]),
    ("exchanges::without_their_lines", &["6.12", "6.1"]),
    ("http::no_output_and_no_recording", &["6.12", "6.1"]),
    // The minute of load takes a minute and a half on 6.12, and several where probes are slower to put on and take off
    // (`docs/soak.md`).
    ("soak::", &["6.12"]),
    // Nothing is lost in a burst: where the kernel preempts, which is harder, and where it does not.
    ("burst::", &["6.12", "7.2"]),
    // A network that is far away, and a processor that is rationed.
    ("network_costs::", &["6.12", "5.10"]),
    ("cpu_quota::", &["6.12", "6.1"]),
    // sock_diag tells of open sockets everywhere alike; one case of it runs on all.
    ("preexisting::adopted_connections_are_reported_once", &["6.12", "5.10"]),
    ("preexisting::connections_in_another_network_namespace", &["6.12", "6.1"]),
    ("preexisting::what_is_looked_at_before_it_is_taken", &["6.12", "6.1"]),
    ("preexisting::what_is_open_at_the_end", &["6.12", "5.10"]),
    // What happens to the tracer, its targets and the machine.
    ("detach::nothing_stays_in_the_kernel_after_a_signal", &["6.12", "5.10"]),
    ("faults::crowds::", &["6.12"]),
    ("faults::killed::after_a_sigkill_", &["6.12", "6.1"]),
    ("faults::killed::after_the_kernel_has_run_out", &["6.12"]),
    ("faults::limits::", &["6.12", "5.10"]),
    ("faults::machine::processors_", &["6.12"]),
    ("faults::machine::steps_", &["6.12", "7.2"]),
    ("faults::targets::", &["6.12"]),
    ("faults::stopped::", &["6.12", "6.1"]),
    ("faults::vanished::a_cgroup_", &["6.12", "6.1"]),
    ("faults::vanished::a_network_", &["6.12", "5.10"]),
    // 6.1, 6.12 and 7.2 ask for the same rights; 5.10 for others.
    ("rights::", &["6.12", "5.10"]),
    ("containers::", &["6.12", "6.1"]),
];

/// The incidents, a minute or two each, and the kernel they run on: findings follow from records, which the other cases look at
/// everywhere.
const INCIDENTS: (&[&str], &str) =
    (&["cold_pool::", "stale_reuse::", "handshake_cpu::", "idle_timeout::", "connection_close::", "healthy::"], "6.12");

/// The cases that are left to other kernels than this.
pub fn elsewhere(kernel: Kernel) -> Vec<&'static str> {
    let (incidents, of) = INCIDENTS;
    let spread = SPREAD.iter().filter(|(_, kernels)| !kernels.contains(&kernel.name)).map(|(case, _)| *case);
    spread.chain(incidents.iter().copied().filter(|_| kernel.name != of)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::KERNELS;

    #[test]
    fn every_case_runs_somewhere_and_every_kernel_has_one_of_a_client() {
        for (case, kernels) in SPREAD {
            assert!(!kernels.is_empty(), "{case}");
            assert!(kernels.iter().all(|name| KERNELS.iter().any(|kernel| kernel.name == *name)), "{case}");
        }
        let has_client = |kernel: &&Kernel| {
            SPREAD.iter().any(|(case, kernels)| case.starts_with("sessions::") && kernels.contains(&kernel.name))
        };
        assert!(KERNELS.iter().all(|kernel| has_client(&kernel)));
        assert!(KERNELS.iter().any(|kernel| kernel.name == INCIDENTS.1));
    }

    #[test]
    fn no_case_is_left_out_for_having_part_of_anothers_name() {
        // libtest leaves out whatever has the text in its name.
        for (case, _) in SPREAD {
            assert!(SPREAD.iter().all(|(other, _)| other == case || !other.contains(case)), "{case}");
        }
    }
}
