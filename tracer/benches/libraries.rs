//! What it costs to find the TLS libraries of processes.

use std::{
    hint::black_box,
    io::Read,
    process::{Child, Command, Stdio},
};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use tracer::target::{library::Libraries, process};

/// As many processes share one libssl.
const SHARING: usize = 200;

/// Processes that end when they are dropped.
struct Processes(Vec<Child>);

impl Processes {
    /// Each has loaded OpenSSL when this returns.
    fn start() -> Self {
        // Children of one process, forked: to start Python 200 times would take a minute.
        let script = format!(
            "import os, ssl, sys\n\
             for _ in range({SHARING} - 1):\n  if os.fork() == 0: break\n\
             else: print(end='x', flush=True)\n\
             sys.stdin.read()"
        );
        let mut python = Command::new("/usr/bin/python3");
        python.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut first = python.spawn().expect("python3 starts");
        first.stdout.as_mut().expect("piped").read_exact(&mut [0]).expect("all are there");
        Self(vec![first])
    }

    fn pids(&self) -> Vec<u32> {
        let first = self.0[0].id();
        [first].into_iter().chain(process::descendants(first)).collect()
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // All of them wait for the end of one input.
            drop(child.stdin.take());
            let _ = child.wait();
        }
    }
}

fn examine_all(libraries: &mut Libraries, pids: &[u32]) {
    for pid in pids {
        black_box(libraries.examine(*pid));
    }
}

fn benchmarks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("libraries");
    group.sample_size(10);
    let all = process::all();
    let mut found = Libraries::default();
    examine_all(&mut found, &all);
    let libraries: Vec<_> = found.in_use().map(|library| &library.name).collect();
    eprintln!("{} processes use {} libraries: {libraries:?}", all.len(), libraries.len());
    group.bench_function(format!("all {} processes of this machine", all.len()), |bencher| {
        bencher.iter_batched_ref(Libraries::default, |found| examine_all(found, &all), BatchSize::PerIteration);
    });
    let sharing = Processes::start();
    let pids = sharing.pids();
    assert_eq!(pids.len(), SHARING);
    group.bench_function(format!("{SHARING} processes that share OpenSSL"), |bencher| {
        bencher.iter_batched_ref(Libraries::default, |found| examine_all(found, &pids), BatchSize::PerIteration);
    });
    group.bench_function(format!("{SHARING} known processes again"), |bencher| {
        let mut found = Libraries::default();
        bencher.iter(|| examine_all(&mut found, &pids));
    });
    group.finish();
}

criterion_group!(benches, benchmarks);
criterion_main!(benches);
