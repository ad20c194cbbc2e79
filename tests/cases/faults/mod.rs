//! What goes wrong around a tracer, and what is lost by it. One kind of fault a file.
//!
//! Each case prints what it measured, in lines that begin with `measured:`. The long forms are ignored here; `cargo xtask faults` runs
//! them, and docs/overload.md has their figures.

mod crowds;
mod killed;
mod limits;
mod machine;
mod stopped;
mod targets;
mod vanished;

use std::{
    collections::HashMap,
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
};

use harness::{Ends, Trace};

/// Tells a figure.
fn measured(text: &str) {
    println!("measured: {text}");
}

/// A connection that its client closes first, from its beginning to its end.
fn live_and_let_die(listener: &TcpListener, to: SocketAddr) -> Ends {
    let client = TcpStream::connect(to).expect("connect");
    let ends = Ends::of(&client);
    let (mut server, _) = listener.accept().expect("accept");
    drop(client);
    std::io::copy(&mut server, &mut std::io::sink()).expect("the end");
    ends
}

/// Fails unless both ends of each were told, as often as there was one with these ends, and ended. Ports come up again in a minute.
#[track_caller]
fn assert_all_told(trace: &Trace, made: &[Ends]) {
    let mut times = HashMap::new();
    for ends in made.iter().flat_map(|ends| [*ends, ends.flipped()]) {
        *times.entry(ends).or_insert(0) += 1;
    }
    for (ends, times) in times {
        let told = trace.connections_of(ends);
        assert_eq!(told.len(), times, "{ends:?}: {told:#?}");
        assert!(told.iter().all(|connection| !connection.open), "{told:#?}");
    }
}

/// Does something on a thread while something else goes on here.
fn meanwhile<T: Send, R>(there: impl FnOnce() -> T + Send, here: impl FnOnce() -> R) -> (T, R) {
    thread::scope(|scope| {
        let there = scope.spawn(there);
        let here = here();
        (there.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), here)
    })
}
