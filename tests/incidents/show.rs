//! Plays one of the incidents under the tracer: `incident NUMBER [faulty|cured] [WORD...]`. The words are the tracer's command
//! line, `diagnose` if there are none. Runs as root in a throw-away VM.

mod cold_pool;
mod connection_close;
mod handshake_cpu;
mod idle_timeout;
mod stale_reuse;

use std::{
    process::{Command, ExitCode},
    time::Duration,
};

use harness::{Tracer, incidents::Scene};
use nix::sys::signal::Signal;

/// For the tracer to put out what it knows.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (number, variant, tracer) = match words.as_slice() {
        [number] => (*number, "faulty", &["diagnose"][..]),
        [number, variant] => (*number, *variant, &["diagnose"][..]),
        [number, variant, tracer @ ..] => (*number, *variant, tracer),
        [] => return usage(),
    };
    macro_rules! play {
        ($incident:ident) => {
            $incident::stage(|scene| {
                show(scene, tracer, || match variant {
                    "cured" => drop($incident::cured(scene)),
                    _ => drop($incident::faulty(scene)),
                })
            })
        };
    }
    match number {
        "1" => play!(cold_pool),
        "2" => play!(stale_reuse),
        "3" => play!(handshake_cpu),
        "4" => play!(idle_timeout),
        "5" => play!(connection_close),
        _ => return usage(),
    }
    ExitCode::SUCCESS
}

fn usage() -> ExitCode {
    eprintln!("usage: incident 1..5 [faulty|cured] [WORD OF THE TRACER...]");
    ExitCode::from(2)
}

/// Traces the scene's programs while they play, and shows what the tracer has said.
fn show(scene: &Scene, words: &[&str], play: impl FnOnce()) {
    let output = tempfile::NamedTempFile::new().expect("a file");
    let mut command = Command::new(harness::tracer_path());
    command.args(words).arg("--cgroup").arg(scene.crowd.group.path()).arg("--output").arg(output.path());
    let tracer = Tracer::start(command);
    play();
    tracer.signal(Signal::SIGTERM);
    assert!(tracer.ends_within(PATIENCE), "the tracer does not end: {}", tracer.stderr());
    print!("{}", std::fs::read_to_string(output.path()).expect("what the tracer says"));
}
