//! The fields that a connection's `open`, `connection` and `exchange` lines begin with. They mostly say the same and mostly
//! come close together, so the text is kept for a while; and what belongs to a process is kept longer.

use std::{net::SocketAddr, rc::Rc};

use super::{
    escape::json_string,
    line::{Put, Room},
    ndjson::optional,
    number::{Ends, Times, decimal, hex},
    numbers::numbers,
};
use crate::track::record::{
    Connection, ConnectionId, Exchange, Hello, LookedUp, NameSource, Process, Role, WallTime, remote_name,
};

/// Connections whose text is kept, by the last digits of the socket's number: these count up.
const CONNECTIONS: usize = 64;
/// Processes whose text is kept, by the last digits of the PID.
const PROCESSES: usize = 256;

/// Writes identities.
pub(super) struct Identities {
    lives: Vec<Option<Life>>,
    owners: Vec<Option<Owner>>,
    turns: Vec<Option<Turns>>,
    askers: Vec<Option<Asker>>,
    local: Ends,
    remote: Ends,
    room: Room,
}

impl Default for Identities {
    fn default() -> Self {
        Self {
            lives: (0..CONNECTIONS).map(|_| None).collect(),
            owners: (0..PROCESSES).map(|_| None).collect(),
            turns: (0..CONNECTIONS).map(|_| None).collect(),
            askers: (0..PROCESSES).map(|_| None).collect(),
            local: Ends::default(),
            remote: Ends::default(),
            room: Room::default(),
        }
    }
}

/// One connection's text.
struct Life {
    id: ConnectionId,
    /// Holding it keeps its address its own.
    process: Rc<Process>,
    rest: Rest,
    ends: (SocketAddr, SocketAddr),
    opened_at: Option<WallTime>,
    /// As of a connection whose remote end has no name.
    text: Vec<u8>,
    /// Where in the text the remote end is over.
    ends_at: usize,
}

/// What a connection's `exchange` lines have in common.
struct Turns {
    id: ConnectionId,
    process: Rc<Process>,
    role: Option<Role>,
    hello: Option<Rc<Hello>>,
    looked_up: Option<Rc<LookedUp>>,
    text: Vec<u8>,
}

/// The text of a process's exchanges in one role.
struct Asker {
    process: Rc<Process>,
    role: Option<Role>,
    text: Vec<u8>,
}

/// The text of a process's connections.
struct Owner {
    process: Rc<Process>,
    rest: Rest,
    text: Vec<u8>,
}

/// What an owner's text holds besides the process.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Rest {
    tid: Option<u32>,
    netns: Option<u32>,
    role: Option<Role>,
    is_ipv4: bool,
}

impl Identities {
    /// Writes from inside the quotes of `id` to `opened_at`.
    #[inline]
    pub fn write(&mut self, connection: &Connection, times: &mut Times, out: &mut Vec<u8>) {
        let place = connection.id.socket as usize % CONNECTIONS;
        if !self.lives[place].as_ref().is_some_and(|life| life.is_of(connection)) {
            self.begin(connection, times);
        }
        let Some(life) = &self.lives[place] else { return };
        if connection.tls.is_none() && connection.looked_up.is_none() {
            out.extend_from_slice(&life.text);
        } else {
            out.extend_from_slice(&life.text[..life.ends_at]);
            named(connection, times, out);
        }
    }

    /// Takes up a connection; its text takes the place of an older one's.
    #[inline(never)]
    fn begin(&mut self, connection: &Connection, times: &mut Times) {
        let Self { lives, owners, local, remote, room, .. } = self;
        let life = &mut lives[connection.id.socket as usize % CONNECTIONS];
        let mut text = life.take().map(|life| life.text).unwrap_or_default();
        text.clear();
        let owner = &mut owners[connection.process.pid as usize % PROCESSES];
        if !owner.as_ref().is_some_and(|owner| owner.is_of(connection)) {
            *owner = None;
        }
        let owner = owner.get_or_insert_with(|| Owner::of(connection));
        room.line(&mut text, |line| id(connection.id, line));
        text.extend_from_slice(&owner.text);
        room.line(&mut text, |line| {
            local.write(connection.local, line);
            line.literal(br#"","remote":""#);
            remote.write(connection.remote, line);
        });
        let ends_at = text.len();
        room.line(&mut text, |line| {
            line.literal(br#"","remote_name":null,"remote_name_source":null,"opened_at":"#);
            optional(connection.opened_at, line, |time, line| line.literal(times.quoted(time)));
        });
        *life = Some(Life { text, ends_at, ..Life::new(connection) });
    }

    /// From inside the quotes of `connection` to the value of `index`.
    #[inline]
    pub fn of_exchange(&mut self, exchange: &Exchange) -> &[u8] {
        let place = exchange.connection.socket as usize % CONNECTIONS;
        if !self.turns[place].as_ref().is_some_and(|turns| turns.is_of(exchange)) {
            self.begin_turns(exchange);
        }
        self.turns[place].as_ref().map_or(&[], |turns| &turns.text)
    }

    /// Takes up a connection's exchanges; their text takes the place of an older one's.
    #[inline(never)]
    fn begin_turns(&mut self, exchange: &Exchange) {
        let Self { turns, askers, remote, room, .. } = self;
        let Exchange { connection, process, role, hello, looked_up, .. } = exchange;
        let turns = &mut turns[connection.socket as usize % CONNECTIONS];
        let mut text = turns.take().map(|turns| turns.text).unwrap_or_default();
        text.clear();
        let asker = &mut askers[process.pid as usize % PROCESSES];
        if !asker.as_ref().is_some_and(|asker| asker.is_of(exchange)) {
            *asker = None;
        }
        let asker = asker.get_or_insert_with(|| Asker::of(exchange));
        room.line(&mut text, |line| id(*connection, line));
        text.extend_from_slice(&asker.text);
        room.line(&mut text, |line| {
            remote.write(exchange.remote, line);
            line.literal(br#"","remote_name":"#);
        });
        let name = remote_name(*role, hello.as_deref(), looked_up.as_deref());
        optional(name.map(|(name, _)| name), &mut text, json_string);
        text.literal(br#","index":"#);
        *turns = Some(Turns {
            id: *connection,
            process: Rc::clone(process),
            role: *role,
            hello: hello.clone(),
            looked_up: looked_up.clone(),
            text,
        });
    }
}

impl Life {
    /// Without a text.
    fn new(connection: &Connection) -> Self {
        Self {
            id: connection.id,
            process: Rc::clone(&connection.process),
            rest: Rest::of(connection),
            ends: (connection.local, connection.remote),
            opened_at: connection.opened_at,
            text: Vec::new(),
            ends_at: 0,
        }
    }

    fn is_of(&self, connection: &Connection) -> bool {
        self.id == connection.id
            && Rc::ptr_eq(&self.process, &connection.process)
            && self.opened_at == connection.opened_at
            && self.rest == Rest::of(connection)
            && self.ends == (connection.local, connection.remote)
    }
}

impl Turns {
    #[inline]
    fn is_of(&self, exchange: &Exchange) -> bool {
        self.id == exchange.connection
            && Rc::ptr_eq(&self.process, &exchange.process)
            && self.role == exchange.role
            && is_same(&self.hello, exchange.hello.as_ref())
            && is_same(&self.looked_up, exchange.looked_up.as_ref())
    }
}

impl Asker {
    fn is_of(&self, exchange: &Exchange) -> bool {
        Rc::ptr_eq(&self.process, &exchange.process) && self.role == exchange.role
    }

    /// From the end of `connection` to the quote that begins `remote`.
    fn of(exchange: &Exchange) -> Self {
        let Exchange { process, role, .. } = exchange;
        let mut text = Vec::new();
        text.literal(br#"","#);
        numbers(process, &mut text);
        text.literal(br#","comm":"#);
        json_string(&process.comm, &mut text);
        match role {
            Some(Role::Client) => text.literal(br#","role":"client","remote":""#),
            Some(Role::Server) => text.literal(br#","role":"server","remote":""#),
            None => text.literal(br#","role":null,"remote":""#),
        }
        Self { process: Rc::clone(process), role: *role, text }
    }
}

/// From the end of `remote` to `opened_at`, where TLS or a lookup may name the remote end.
#[inline(never)]
fn named(connection: &Connection, times: &mut Times, out: &mut Vec<u8>) {
    let name =
        remote_name(connection.role, connection.tls.as_deref().map(|tls| &*tls.hello), connection.looked_up.as_deref());
    out.extend_from_slice(br#"","remote_name":"#);
    optional(name.map(|(name, _)| name), out, json_string);
    out.extend_from_slice(match name {
        Some((_, NameSource::Sni)) => br#","remote_name_source":"sni","opened_at":"#.as_slice(),
        Some((_, NameSource::Dns)) => br#","remote_name_source":"dns","opened_at":"#,
        None => br#","remote_name_source":null,"opened_at":"#,
    });
    optional(connection.opened_at, out, |time, out| out.literal(times.quoted(time)));
}

/// Holding it keeps its address its own.
#[inline]
fn is_same<T>(kept: &Option<Rc<T>>, present: Option<&Rc<T>>) -> bool {
    match (kept, present) {
        (None, None) => true,
        (Some(kept), Some(present)) => Rc::ptr_eq(kept, present),
        _ => false,
    }
}

impl Owner {
    fn is_of(&self, connection: &Connection) -> bool {
        Rc::ptr_eq(&self.process, &connection.process) && self.rest == Rest::of(connection)
    }

    /// From the end of `id` to the quote that begins `local`.
    fn of(connection: &Connection) -> Self {
        let process = Rc::clone(&connection.process);
        let rest = Rest::of(connection);
        let mut out = Vec::new();
        out.literal(br#"","#);
        numbers(&process, &mut out);
        out.literal(br#","tid":"#);
        optional(rest.tid, &mut out, decimal);
        out.literal(br#","comm":"#);
        json_string(&process.comm, &mut out);
        out.literal(br#","exe":"#);
        optional(process.exe.as_deref(), &mut out, json_string);
        out.literal(br#","container":"#);
        optional(process.container.as_deref(), &mut out, json_string);
        out.literal(br#","netns":"#);
        optional(rest.netns, &mut out, decimal);
        out.extend_from_slice(match rest.role {
            Some(Role::Client) => br#","role":"client","family":"#.as_slice(),
            Some(Role::Server) => br#","role":"server","family":"#,
            None => br#","role":null,"family":"#,
        });
        out.extend_from_slice(match rest.is_ipv4 {
            true => br#""ipv4","local":""#,
            false => br#""ipv6","local":""#,
        });
        Self { process, rest, text: out }
    }
}

impl Rest {
    #[inline]
    fn of(connection: &Connection) -> Self {
        let Connection { tid, netns, role, .. } = *connection;
        Self { tid, netns, role, is_ipv4: connection.remote.is_ipv4() }
    }
}

#[inline(always)]
pub(super) fn id(id: ConnectionId, out: &mut impl Put) {
    hex(id.socket, out);
    if id.life > 0 {
        out.literal(b".");
        decimal(id.life, out);
    }
}
