//! More happens than the tracer, or the reader of its output, can take in.

use std::{
    collections::HashSet,
    fs::{self, File, OpenOptions},
    io::Read,
    net::TcpStream,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    thread,
    time::Duration,
};

use harness::{
    Ends, Family, Line, Tracer,
    echo::{answer, ask, converse, serve},
    eventually, listen, parse_lines, resident_kib, wall_ns,
};
use nix::{sys::signal::Signal, sys::stat::Mode, unistd::mkfifo};

/// Of 1 MiB, events of 72 bytes with the 8 that the kernel adds.
const EXCHANGES_THAT_FIT: usize = (1 << 20) / 80;

#[test]
fn when_the_exchanges_overflow_every_life_is_told_and_what_was_lost_is_said_within_a_second() {
    // Its exchanges would keep those busy who look into a trace of all.
    Tracer::end_shared();
    const LIVES: usize = 60;
    let listener = listen(Family::V4);
    let to = listener.local_addr().expect("local address");
    let port = to.port().to_string();
    let trace = Tracer::trace(&["--port", &port, "--ring-size", "8", "--exchange-ring-size", "1", "--no-exchanges"]);
    // Nobody empties the buffers meanwhile.
    trace.signal(Signal::SIGSTOP);
    let each = EXCHANGES_THAT_FIT / LIVES;
    let made: HashSet<_> = thread::scope(|scope| {
        scope.spawn(|| answer(&listener, LIVES));
        let half = |_| scope.spawn(move || (0..LIVES / 2).map(|_| converse(to, each)).collect::<Vec<_>>());
        let halves: Vec<_> = (0..2).map(half).collect();
        halves.into_iter().flat_map(|half| half.join().expect("a client")).collect()
    });
    let went_on = wall_ns();
    trace.signal(Signal::SIGCONT);
    let told = trace.loss("exchange_ring_full");
    let trace = trace.stop();

    trace.assert_lost_only(&["exchange_ring_full"]);
    assert_eq!(told.place, "kernel");
    let after = told.at.unix_timestamp_nanos() - i128::from(went_on);
    // A second, and as long again for all that had piled up: the processor is an emulated one.
    assert!(after < 2_000_000_000, "told {after} ns after the tracer went on");
    // Both ends are traced, and what is lost is what did not fit.
    let lost: u64 = trace.summary().losses.iter().map(|loss| loss.count).sum();
    let most = 2 * LIVES * each - EXCHANGES_THAT_FIT * 9 / 10;
    assert!(lost > 0 && lost <= most as u64, "{lost} of {} exchanges", 2 * LIVES * each);
    let ends = |at_client: bool| {
        trace
            .connections
            .iter()
            .map(|c| Ends::new(c.local, c.remote))
            .filter(move |ends| (ends.remote == to) == at_client)
    };
    assert_eq!(ends(true).collect::<HashSet<_>>(), made, "every client's life");
    assert_eq!(ends(false).map(Ends::flipped).collect::<HashSet<_>>(), made, "every server's life");
    // What the kernel counts by itself is right all the same.
    for connection in &trace.connections {
        assert_eq!(connection.exchanges, Some(each as u64), "{connection:#?}");
        assert_eq!(connection.bytes_sent, Some(each as u64), "{connection:#?}");
    }
}

/// Opens a FIFO's other end, and does not read.
fn reader_of(fifo: &Path) -> File {
    mkfifo(fifo, Mode::S_IRWXU).expect("a FIFO");
    OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(fifo).expect("its reading end")
}

/// All that comes until the writer closes it.
fn read_to_end(mut fifo: File) -> String {
    let mut text = Vec::new();
    let mut piece = [0; 1 << 16];
    loop {
        match fifo.read(&mut piece) {
            Ok(0) => break,
            Ok(length) => text.extend_from_slice(&piece[..length]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => thread::sleep(Duration::from_millis(2)),
            Err(error) => panic!("{error}"),
        }
    }
    String::from_utf8(text).expect("UTF-8")
}

#[test]
fn an_output_that_nobody_reads_stalls_nothing_and_keeps_no_memory_and_what_was_dropped_is_counted() {
    // Its exchanges would keep those busy who look into a trace of all.
    Tracer::end_shared();
    // More output than the tracer may keep.
    const LIVES: usize = 3_000;
    let dir = tempfile::tempdir().expect("a folder");
    let fifo = dir.path().join("out");
    let reader = reader_of(&fifo);
    let listener = listen(Family::V4);
    let to = listener.local_addr().expect("local address");
    let port = to.port().to_string();
    let path = fifo.to_str().expect("UTF-8");
    let trace =
        Tracer::trace(&["--port", &port, "--no-findings", "--max-memory", "32", "--ring-size", "1", "--output", path]);
    let before = resident_kib(trace.pid());
    thread::scope(|scope| {
        scope.spawn(|| {
            // Several seconds, in which the buffers of the kernel side would overflow if the tracer waited for its reader.
            for _ in 0..5 {
                answer(&listener, LIVES / 5);
            }
        });
        for _ in 0..LIVES {
            converse(to, 1);
        }
    });
    let grown = resident_kib(trace.pid()).saturating_sub(before);
    println!("the tracer has grown by {grown} KiB while nobody read");
    assert!(grown < 8 * 1024, "grown by {grown} KiB");

    // The summary waits for its reader, as everything does after the stop.
    let text = thread::scope(|scope| {
        let text = scope.spawn(|| read_to_end(reader));
        eventually("the loss to be told", || fs::metadata(&fifo).ok());
        let end = trace.stop();
        assert!(end.status.success(), "{}", end.stderr);
        text.join().expect("a reader")
    });
    let lines = parse_lines(&text);
    let Some(Line::Summary(summary)) = lines.last() else { panic!("the summary is last: {:?}", lines.last()) };
    assert_eq!(summary.connections, 2 * LIVES as u64, "nothing was lost before the output");
    let told =
        lines.iter().filter(|line| matches!(line, Line::Open(_) | Line::Connection(_) | Line::Exchange(_))).count();
    let [loss] = summary.losses.as_slice() else { panic!("{:#?}", summary.losses) };
    assert_eq!((loss.place.as_str(), loss.cause.as_str()), ("output", "output_full"));
    // Both ends of each: its opening, its exchange, its whole life.
    assert_eq!(loss.count + told as u64, 6 * LIVES as u64, "each record is told or counted");
    let losses: u64 = lines.iter().map(|line| if let Line::Loss(loss) = line { loss.count } else { 0 }).sum();
    assert_eq!(losses, loss.count, "what was dropped is told as soon as there is a reader");
}

#[test]
fn detail_goes_down_while_tracing_costs_too_much_and_up_again_when_it_does_not() {
    // Its exchanges would keep those busy who look into a trace of all.
    Tracer::end_shared();
    const TALKS: usize = 3;
    const RETRIES: usize = 20;
    let listener = listen(Family::V4);
    let to = listener.local_addr().expect("local address");
    let port = to.port().to_string();
    // On an emulated processor what a tracer does once a second takes a percent or two of it, and these conversations ten and more.
    // Until detail is lowered there are more lines than a busy test reads at once: the room to keep them is four times the usual.
    let overhead = ["--max-overhead", "6", "--overhead-patience", "1"];
    let trace = Tracer::trace(&[&["--port", &port, "--max-memory", "1024"], overhead.as_slice()].concat());
    let whole = |exchanges| {
        thread::scope(|scope| {
            scope.spawn(|| answer(&listener, 1));
            converse(to, exchanges)
        })
    };
    // One goes on all the time.
    let (mut lasting, its_server) = (TcpStream::connect(to).expect("connect"), listener.accept().expect("accept").0);
    let its_ends = Ends::of(&lasting);
    let serving = thread::spawn(move || serve(its_server));
    ask(&mut lasting, 3);
    let before = whole(3);
    // Once it is noticed, and as long as that takes. It is said at once, while thousands of lines wait to be taken apart here.
    let is_lowered = || trace.stderr().contains("only connections are looked at");
    let until = std::time::Instant::now() + Duration::from_secs(60);
    let talk = || {
        let mut client = TcpStream::connect(to).expect("connect");
        let ends = Ends::of(&client);
        while !is_lowered() && std::time::Instant::now() < until {
            ask(&mut client, 100);
        }
        ends
    };
    let through = thread::scope(|scope| {
        scope.spawn(|| answer(&listener, TALKS));
        // Both processors are busy with them.
        let others: Vec<_> = (1..TALKS).map(|_| scope.spawn(talk)).collect();
        let ends = talk();
        for other in others {
            other.join().expect("a conversation");
        }
        ends
    });
    let meanwhile = whole(3);
    ask(&mut lasting, 500);
    let lowered = trace.detail_change(1);
    assert_eq!((lowered.detail.as_str(), lowered.limit_percent), ("connections", 6.0));
    assert!(lowered.overhead_percent > 6.0 && lowered.programs_counted, "{lowered:#?}");
    let raised = trace.detail_change(2);
    assert_eq!(raised.detail, "exchanges");
    assert!(raised.overhead_percent < 3.0 && raised.at > lowered.at, "{raised:#?}");
    // On a busy machine little costs much, and detail may have gone down and up once more.
    let after = (0..RETRIES).find_map(|_| {
        ask(&mut lasting, 3);
        let ends = whole(3);
        let was_raised =
            trace.connection(ends).exchanges.is_some() && trace.connection(ends.flipped()).exchanges.is_some();
        thread::sleep(Duration::from_secs(u64::from(!was_raised)));
        was_raised.then_some(ends)
    });
    let after = after.expect("exchanges are looked at again");
    drop(lasting);
    serving.join().expect("a server");
    trace.connection(its_ends.flipped());
    let trace = trace.stop();

    // While hooks are taken off, there may be more of them than anybody reads: the tracer, or this test on a slower machine yet.
    trace.assert_lost_only(&["detail_lowered", "exchange_ring_full", "output_full"]);
    for word in ["only connections are looked at", "exchanges are looked at again", "--max-overhead"] {
        assert!(trace.stderr.contains(word), "nothing is said of `{word}`: {}", trace.stderr);
    }
    // What passed unseen is not told with what was seen after it.
    for ends in [its_ends, its_ends.flipped()] {
        let connection = trace.connection(ends);
        let its = trace.exchanges.iter().filter(|exchange| exchange.connection == connection.id);
        let (early, late): (Vec<_>, Vec<_>) = its.partition(|exchange| exchange.index < 3);
        assert!(early.len() >= 2 && late.len() >= 2, "before and after: {early:#?} {late:#?}");
        for exchange in early {
            assert_eq!((exchange.bytes_out, exchange.bytes_in), (Some(1), Some(1)), "{exchange:#?}");
            assert_eq!(exchange.cold, Some(exchange.index == 0), "{exchange:#?}");
        }
        for exchange in late {
            assert_eq!(
                (exchange.bytes_out, exchange.bytes_in, exchange.cold),
                (None, None, Some(false)),
                "{exchange:#?}"
            );
        }
    }
    for (ends, count) in [(before, Some(3)), (through, None), (meanwhile, None), (after, Some(3)), (its_ends, None)] {
        for ends in [ends, ends.flipped()] {
            let connection = trace.connection(ends);
            assert_eq!(connection.exchanges, count, "{connection:#?}");
            let is_remarked = connection.confidence.iter().any(|remark| remark.field == "exchanges");
            assert_eq!(is_remarked, count.is_none(), "{connection:#?}");
            assert!(connection.idle_before_close_ms.is_some() && connection.bytes_sent.is_some(), "{connection:#?}");
            if count.is_some() {
                trace.exchanges_of(connection);
            }
        }
    }
}
