//! All that is kept of one process name and destination.

use std::{collections::VecDeque, rc::Rc};

use super::{closes::Closes, failures::Connects, handshakes::Handshakes, lookups::Lookups, reuse::Reuse, stale::Stale};
use crate::track::record::{Connection, ConnectionId, Exchange, Hello, LookedUp, Nanos, Role, remote_name};

/// Whose records go together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Process name.
    pub comm: String,
    /// Role.
    pub role: Option<Role>,
    /// As in [`Finding::destination`](crate::findings::finding::Finding::destination).
    pub destination: String,
}

impl Key {
    /// The destination of groups of several, and the process name of the group of all. Other destinations have a colon or a blank.
    pub const OTHER: &str = "other";

    /// What is beyond the groups of one destination.
    pub fn other(comm: String, role: Option<Role>) -> Self {
        Self { comm, role, destination: Self::OTHER.to_owned() }
    }

    /// Whether that is what it is.
    pub fn is_other(&self) -> bool {
        self.destination == Self::OTHER
    }

    /// Whether it is what is beyond the groups of one process name too.
    pub fn is_of_all(&self) -> bool {
        self.is_other() && self.comm == Self::OTHER
    }

    /// The group of a connection.
    pub fn of_connection(connection: &Connection) -> Self {
        let hello = connection.tls.as_ref().map(|tls| &tls.hello);
        let remote = (connection.remote, connection.local.port());
        Self::of(&connection.process.comm, connection.role, remote, hello, connection.looked_up.as_ref())
    }

    /// The group of a connect. One that fails has no name by TLS, so none goes by that.
    pub fn of_connect(connection: &Connection) -> Self {
        let remote = (connection.remote, connection.local.port());
        Self::of(&connection.process.comm, connection.role, remote, None, connection.looked_up.as_ref())
    }

    /// The group of an exchange.
    pub fn of_exchange(exchange: &Exchange) -> Self {
        let remote = (exchange.remote, exchange.local_port);
        Self::of(&exchange.process.comm, exchange.role, remote, exchange.hello.as_ref(), exchange.looked_up.as_ref())
    }

    fn of(
        comm: &str,
        role: Option<Role>,
        (remote, local_port): (std::net::SocketAddr, u16),
        hello: Option<&Rc<Hello>>,
        looked_up: Option<&Rc<LookedUp>>,
    ) -> Self {
        let name = remote_name(role, hello.map(|hello| &**hello), looked_up.map(|looked_up| &**looked_up));
        let destination = match (role, name) {
            (Some(Role::Server), _) => format!(":{local_port}"),
            (_, Some((name, _))) => format!("{name}:{}", remote.port()),
            (_, None) => remote.to_string(),
        };
        Self { comm: comm.to_owned(), role, destination }
    }
}

/// A connection whose first exchange comes so long after it was ready was opened ahead of need: nobody waited for it. It must also be
/// longer than opening it took: where a process is hardly let run, each of its steps takes long, the one from a handshake to the request
/// too.
const AHEAD: Nanos = 1_000_000_000;
/// Connections opened ahead that are not reported yet. Of more, the oldest are taken for ones that somebody waited for.
const MOST_AHEAD: usize = 256;

/// What is kept.
#[derive(Default)]
pub struct Group {
    /// How they were closed.
    pub closes: Closes,
    /// Why exchanges were cold.
    pub reuse: Reuse,
    /// Exchanges on dead connections.
    pub stale: Stale,
    /// TLS handshakes.
    pub handshakes: Handshakes,
    /// Connects.
    pub connects: Connects,
    /// DNS lookups, where the destination is a server of those.
    pub lookups: Lookups,
    ahead: VecDeque<ConnectionId>,
}

impl Group {
    /// Counts a connection.
    pub fn add_connection(&mut self, connection: &Connection) {
        if !connection.established {
            return;
        }
        if !self.was_ahead(connection.id) {
            self.handshakes.add(connection);
        }
        self.closes.add(connection);
        if connection.role == Some(Role::Client) {
            self.stale.add_connection(connection);
            self.reuse.add_connection(connection);
        }
    }

    /// Whether a connection was opened ahead of need; forgets it.
    fn was_ahead(&mut self, id: ConnectionId) -> bool {
        let place = self.ahead.iter().position(|ahead| *ahead == id);
        place.and_then(|place| self.ahead.remove(place)).is_some()
    }

    /// Counts an exchange. Only who asks waits for a connection.
    pub fn add_exchange(&mut self, exchange: &Exchange) {
        if exchange.role != Some(Role::Client) {
            return;
        }
        self.stale.add_exchange(exchange);
        let setup = exchange.setup.as_ref().and_then(|setup| setup.total).unwrap_or(0);
        let is_ahead = exchange.cold == Some(true) && exchange.idle_before.is_some_and(|idle| idle >= AHEAD.max(setup));
        if is_ahead {
            self.ahead.truncate(MOST_AHEAD - 1);
            self.ahead.push_front(exchange.connection);
        }
        if !exchange.stale {
            self.reuse.add_exchange(exchange, is_ahead);
        }
        if exchange.index == 0 {
            self.reuse.add_heads(exchange);
        }
    }
}
