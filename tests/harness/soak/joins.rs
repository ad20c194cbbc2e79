//! Whether the HTTP heads of a trace are told of the connections, and the exchanges, that they passed on. Their Host headers say which
//! those are: `r3.c40000.node.soak.test` is the fourth request on the connection from port 40000.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::AddAssign,
};

use crate::record::{Exchange, Line, Open, Role};

/// Mistakes that are told; where there are more, they look alike.
const TOLD: usize = 10;

/// What one or more traces said of heads.
#[derive(Debug, Default)]
pub struct Joins {
    /// Exchanges of the programs.
    pub exchanges: u64,
    /// Of each process, those with the heads of request and response.
    pub heads: BTreeMap<u32, u64>,
    /// Those with a head of another connection.
    pub wrong: u64,
    /// Those with the head of another exchange of the same connection.
    pub displaced: u64,
    /// Those told before their connection's `open` line, or without one.
    pub early: u64,
    /// What was lost, by cause.
    pub losses: BTreeMap<String, u64>,
    /// The first few that are wrong.
    pub mistakes: Vec<String>,
}

impl Joins {
    /// Of the lines of one trace.
    #[track_caller]
    pub fn of(lines: &[Line]) -> Self {
        let mut joins = Self::default();
        let mut ends: HashMap<&str, Ends> = lines.iter().filter_map(Ends::of).collect();
        let mut opened = HashSet::new();
        for line in lines {
            match line {
                Line::Open(open) => drop(opened.insert(open.id.as_str())),
                Line::Exchange(exchange) => {
                    joins.early += u64::from(!opened.contains(exchange.connection.as_str()));
                    joins.take(exchange, ends.get_mut(exchange.connection.as_str()));
                }
                Line::Loss(loss) => *joins.losses.entry(loss.cause.clone()).or_default() += loss.count,
                Line::Connection(_) | Line::Dns(_) | Line::Finding(_) | Line::Summary(_) | Line::Detail(_) => {}
            }
        }
        joins
    }

    fn take(&mut self, exchange: &Exchange, ends: Option<&mut Ends>) {
        self.exchanges += 1;
        let Some(http) = &exchange.http else { return };
        let Some(ends) = ends else { return self.mistake("no line tells of the connection", exchange) };
        if let Some(host) = http.host.as_deref() {
            let Some((request, port)) = parse_host(host) else {
                return self.mistake("this Host is nobody's", exchange);
            };
            if port != ends.client_port {
                return self.mistake("the head of another connection", exchange);
            }
            let ahead = request - exchange.index as i64;
            self.displaced += u64::from(ahead != *ends.ahead.get_or_insert(ahead));
        }
        if http.host.is_none() || http.status.is_none() {
            return;
        }
        if (http.method.as_deref(), http.status) != (Some("POST"), Some(200)) {
            return self.mistake("no such method or status was sent", exchange);
        }
        *self.heads.entry(exchange.pid).or_default() += 1;
    }

    fn mistake(&mut self, what: &str, exchange: &Exchange) {
        self.wrong += 1;
        if self.mistakes.len() < TOLD {
            self.mistakes.push(format!("{what}: {exchange:?}"));
        }
    }

    /// Exchanges with the heads of both request and response.
    pub fn with_head(&self) -> u64 {
        self.heads.values().sum()
    }
}

impl AddAssign for Joins {
    fn add_assign(&mut self, other: Self) {
        self.exchanges += other.exchanges;
        self.wrong += other.wrong;
        self.displaced += other.displaced;
        self.early += other.early;
        other.heads.into_iter().for_each(|(pid, count)| *self.heads.entry(pid).or_default() += count);
        other.losses.into_iter().for_each(|(cause, count)| *self.losses.entry(cause).or_default() += count);
        let room = TOLD.saturating_sub(self.mistakes.len());
        self.mistakes.extend(other.mistakes.into_iter().take(room));
    }
}

/// What is known of a connection.
struct Ends {
    client_port: u16,
    /// By how much the client's count of requests is ahead of the exchanges, since the first head. It is 0 but for connections older
    /// than the trace.
    ahead: Option<i64>,
}

impl Ends {
    /// By the connection's number; a connection older than the trace may be told of only when it ends.
    fn of(line: &Line) -> Option<(&str, Self)> {
        let (id, role, local, remote) = match line {
            Line::Open(Open { id, role, local, remote, .. }) => (id, role, local, remote),
            Line::Connection(connection) => (&connection.id, &connection.role, &connection.local, &connection.remote),
            _ => return None,
        };
        let client = match (*role)? {
            Role::Client => local,
            Role::Server => remote,
        };
        Some((id, Self { client_port: client.port(), ahead: None }))
    }
}

/// Which request of a connection this is the Host of, and the client's port.
fn parse_host(host: &str) -> Option<(i64, u16)> {
    let (request, rest) = host.strip_prefix('r')?.split_once(".c")?;
    let (port, rest) = rest.split_once('.')?;
    matches!(rest, "node.soak.test" | "go.soak.test").then_some((request.parse().ok()?, port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn open(id: &str, preexisting: bool) -> Line {
        let value = json!({
            "type": "open", "id": id, "pid": 7, "tid": null, "comm": "node", "exe": null, "container": null, "netns": null,
            "role": "server", "family": "ipv4", "local": "127.0.0.1:443", "remote": format!("127.0.0.1:{id}"),
            "remote_name": null, "remote_name_source": null, "opened_at": null, "preexisting": preexisting, "dns_ms": null,
            "connect_ms": null, "syn_retransmits": null,
        });
        serde_json::from_value(value).expect("an open line")
    }

    fn exchange(id: &str, index: u64, http: Value) -> Line {
        let value = json!({
            "type": "exchange", "connection": id, "index": index, "pid": 7, "comm": "node", "role": "server",
            "remote": "127.0.0.1:1", "remote_name": null, "cold": null, "greeting": false, "began_at": null,
            "idle_before_ms": null, "first_byte_ms": null, "duration_ms": null, "bytes_out": null, "bytes_in": null,
            "setup": null, "http": http, "stale": false, "open": false, "confidence": [],
        });
        serde_json::from_value(value).expect("an exchange line")
    }

    fn posted(host: &str) -> Value {
        head("POST", host)
    }

    fn head(method: &str, host: &str) -> Value {
        json!({
            "method": method, "status": 200, "version": "1.1", "host": host, "connection_header": [], "close_asked": null,
            "keep_alive": null,
        })
    }

    #[test]
    fn heads_at_their_place_are_right_whether_or_not_the_connection_is_older_than_the_trace() {
        let lines = [
            open("1", false),
            exchange("1", 0, posted("r0.c1.go.soak.test")),
            exchange("1", 2, posted("r2.c1.go.soak.test")),
            exchange("1", 3, Value::Null),
            open("2", true),
            exchange("2", 0, posted("r40.c2.node.soak.test")),
            exchange("2", 1, posted("r41.c2.node.soak.test")),
        ];
        let joins = Joins::of(&lines);
        assert_eq!(
            (joins.exchanges, joins.with_head(), joins.wrong, joins.displaced, joins.early),
            (5, 4, 0, 0, 0),
            "{joins:#?}"
        );
    }

    #[test]
    fn heads_of_another_connection_are_wrong() {
        let lines = [
            open("1", false),
            exchange("1", 0, posted("r0.c2.go.soak.test")),
            exchange("1", 1, posted("elsewhere.test")),
            exchange("1", 2, head("GET", "r2.c1.node.soak.test")),
            exchange("3", 0, posted("r0.c3.go.soak.test")),
        ];
        let joins = Joins::of(&lines);
        assert_eq!((joins.with_head(), joins.wrong, joins.displaced, joins.early), (0, 4, 0, 1), "{joins:#?}");
        assert_eq!(joins.mistakes.len(), 4);
    }

    #[test]
    fn heads_of_another_exchange_are_displaced() {
        let lines = [
            open("2", true),
            exchange("2", 0, posted("r40.c2.node.soak.test")),
            exchange("2", 1, posted("r40.c2.node.soak.test")),
            exchange("2", 2, posted("r42.c2.node.soak.test")),
        ];
        let joins = Joins::of(&lines);
        assert_eq!((joins.with_head(), joins.wrong, joins.displaced), (3, 0, 1), "{joins:#?}");
    }
}
