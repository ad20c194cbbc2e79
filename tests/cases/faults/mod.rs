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

/// Fails unless both ends of each were told once, and ended.
#[track_caller]
fn assert_all_told(trace: &Trace, made: &[Ends]) {
    for ends in made {
        for ends in [*ends, ends.flipped()] {
            let connection = trace.connection(ends);
            assert!(!connection.open, "{connection:#?}");
        }
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
