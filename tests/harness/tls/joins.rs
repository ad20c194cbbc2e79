//! What a trace says of the connections of a [`Numbered`](super::Numbered) client, held against the truth.

use std::{collections::BTreeMap, fmt, net::SocketAddr};

use super::Asked;
use crate::{Trace, record::Connection};

/// The connections of one end of it, by whether they were joined to the sessions of their TLS library.
#[derive(Clone, Debug, Default)]
pub struct Joins {
    /// Those that there were.
    pub connections: usize,
    /// Those with the heads of all their exchanges.
    pub joined: usize,
    /// The others, as the trace has them.
    pub missed: Vec<String>,
    /// What was told of a connection that was of another.
    pub wrong: Vec<String>,
}

impl Joins {
    /// Those of a trace of clients of this server.
    #[track_caller]
    pub fn of_clients(trace: &Trace, server: SocketAddr, asked: &Asked) -> Self {
        let its = trace.connections.iter().filter(|c| c.remote == server);
        Self::of(trace, its.map(|c| (c.local.port(), c)), asked)
    }

    /// Those of a trace of the server.
    #[track_caller]
    pub fn of_server(trace: &Trace, server: SocketAddr, asked: &Asked) -> Self {
        let its = trace.connections.iter().filter(|c| c.local == server);
        Self::of(trace, its.map(|c| (c.remote.port(), c)), asked)
    }

    #[track_caller]
    fn of<'t>(trace: &Trace, its: impl Iterator<Item = (u16, &'t Connection)>, asked: &Asked) -> Self {
        let mut joins = Self { connections: asked.len(), ..Self::default() };
        // Over loopback a port may come up again after a second. What the server was asked from a port is then of both connections.
        let mut connections = BTreeMap::<u16, Vec<&Connection>>::new();
        its.for_each(|(port, connection)| connections.entry(port).or_default().push(connection));
        for (port, of_port) in &mut connections {
            of_port.sort_by_key(|connection| connection.opened_at);
            let exchanges: Vec<_> = of_port.iter().flat_map(|connection| trace.exchanges_of(connection)).collect();
            let heads: Vec<_> = exchanges.iter().filter_map(|exchange| exchange.http.as_ref()).collect();
            let hosts: Vec<_> = heads.iter().filter_map(|http| http.host.clone()).collect();
            let truth = asked.get(port).map(Vec::as_slice).unwrap_or_default();
            let is_right = is_subsequence(&hosts, truth);
            let tls: Vec<_> = of_port.iter().map(|connection| connection.tls.as_ref()).collect();
            let is_whole = hosts.len() == truth.len() && heads.iter().all(|http| http.status == Some(200));
            let is_named = tls.iter().all(|tls| tls.is_some_and(|tls| tls.library.is_some() && tls.source != "wire"));
            let what = || format!("port {port}: asked {truth:?}, told {heads:?}, {tls:?}");
            if !is_right {
                joins.wrong.push(what());
            } else if truth.is_empty() {
                // The harness looks whether the server listens.
            } else if is_whole && is_named {
                joins.joined += 1;
            } else {
                joins.missed.push(what());
            }
        }
        let unseen: Vec<_> = asked.keys().filter(|port| !connections.contains_key(port)).collect();
        assert!(unseen.is_empty(), "every connection is traced, but not those of {unseen:?}: {trace:#?}");
        joins
    }

    /// How many of a hundred.
    pub fn percent(&self) -> f64 {
        100.0 * self.joined as f64 / self.connections as f64
    }

    /// Fails if anything was told of the wrong connection, or if fewer were joined than this.
    #[track_caller]
    pub fn assert_joined(&self, at_least_percent: f64) {
        assert!(self.wrong.is_empty(), "told of the wrong connection: {self:#?}");
        assert!(self.connections > 0 && self.percent() >= at_least_percent, "{self:#?}");
    }
}

/// As `50 of 50 (100.0 %)`.
impl fmt::Display for Joins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} ({:.1} %), {} wrong", self.joined, self.connections, self.percent(), self.wrong.len())
    }
}

/// Whether `part` is what is left of `whole` when some of it is left out.
fn is_subsequence(part: &[String], whole: &[String]) -> bool {
    let mut whole = whole.iter();
    part.iter().all(|item| whole.any(|other| other == item))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_of_another_connection_is_wrong_and_a_missing_one_is_not() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let whole = names(&["a", "b", "b"]);
        for right in [&[][..], &["a"], &["b", "b"], &["a", "b", "b"]] {
            assert!(is_subsequence(&names(right), &whole), "{right:?}");
        }
        for wrong in [&["c"][..], &["b", "a"], &["a", "a"], &["a", "b", "b", "b"]] {
            assert!(!is_subsequence(&names(wrong), &whole), "{wrong:?}");
        }
    }
}
