//! Filters select exactly what they say.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use harness::{Ends, Role, Trace, Tracer};

/// Connects and closes once to each listener, the last one last; returns the clients' ends.
fn visit(listeners: &[&TcpListener]) -> Vec<Ends> {
    let visit = |listener: &&TcpListener| {
        let client = TcpStream::connect(listener.local_addr().expect("local address")).expect("connect");
        drop(listener.accept().expect("accept"));
        Ends::of(&client)
    };
    listeners.iter().map(visit).collect()
}

/// Traces one visit to each listener, with the last one known to pass the filter.
fn traced(args: &[&str], listeners: &[&TcpListener], last: fn(Ends) -> Ends) -> (Vec<Ends>, Trace) {
    let tracer = Tracer::trace(args);
    let ends = visit(listeners);
    tracer.connection(last(*ends.last().expect("a visit")));
    let trace = tracer.stop();
    trace.assert_nothing_lost();
    (ends, trace)
}

fn listener(address: [u8; 4]) -> TcpListener {
    TcpListener::bind((Ipv4Addr::from(address), 0)).expect("a listener on loopback")
}

fn port(listener: &TcpListener) -> u16 {
    listener.local_addr().expect("local address").port()
}

/// All ends in the trace, sorted.
fn seen(trace: &Trace) -> Vec<Ends> {
    sorted(trace.connections.iter().map(|c| Ends::new(c.local, c.remote)).collect())
}

fn sorted(mut ends: Vec<Ends>) -> Vec<Ends> {
    ends.sort_by_key(|ends: &Ends| -> (SocketAddr, SocketAddr) { (ends.local, ends.remote) });
    ends
}

#[test]
fn ports_are_the_services_for_both_roles() {
    let [a, b, c] = [(); 3].map(|()| listener([127, 0, 0, 1]));
    let ports = [port(&b).to_string(), port(&c).to_string()];
    let (ends, trace) = traced(&["--port", &ports[0], "--port", &ports[1]], &[&a, &b, &c], Ends::flipped);
    let expected = vec![ends[1], ends[1].flipped(), ends[2], ends[2].flipped()];
    assert_eq!(seen(&trace), sorted(expected), "neither another service, nor a client's own port");
}

#[test]
fn remote_networks_select_by_address() {
    // 127.0.1.x is told from 127.0.0.x; all of it is loopback.
    let [inside, outside, last] = [[127, 0, 1, 9], [127, 0, 0, 1], [127, 0, 1, 200]].map(listener);
    let args = ["--remote", "127.0.1.0/24", "--role", "client"];
    let (ends, trace) = traced(&args, &[&inside, &outside, &last], |ends| ends);
    assert_eq!(seen(&trace), sorted(vec![ends[0], ends[2]]));
}

#[test]
fn a_remote_network_of_ipv6_does_not_select_ipv4() {
    let v4 = listener([127, 0, 0, 1]);
    let v6 = harness::listen(harness::Family::V6);
    let (ends, trace) = traced(&["--remote", "::1/128"], &[&v4, &v6], Ends::flipped);
    assert_eq!(seen(&trace), sorted(vec![ends[1], ends[1].flipped()]));
}

#[test]
fn a_role_selects_one_end() {
    let listener = listener([127, 0, 0, 1]);
    let port = port(&listener).to_string();
    for (role, name) in [(Role::Client, "client"), (Role::Server, "server")] {
        let pick = if role == Role::Client { |ends: Ends| ends } else { Ends::flipped };
        let (ends, trace) = traced(&["--role", name, "--port", &port], &[&listener], pick);
        assert_eq!(seen(&trace), [pick(ends[0])]);
        assert_eq!(trace.connections[0].role, Some(role));
    }
}
