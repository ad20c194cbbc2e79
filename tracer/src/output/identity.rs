//! The fields that a connection's `open` and `connection` lines begin with. The two mostly say the same and mostly come
//! close together, so the text is kept for a while; and what belongs to a process is kept longer.

use std::{net::SocketAddr, rc::Rc};

use super::{
    escape::json_string,
    line::{Put, Room},
    ndjson::optional,
    number::{Ends, Times, decimal, hex},
};
use crate::track::record::{Connection, ConnectionId, LookedUp, Process, Role, WallTime};

/// Connections whose text is kept, by the last digits of the socket's number: these count up.
const CONNECTIONS: usize = 64;
/// Processes whose text is kept, by the last digits of the PID.
const PROCESSES: usize = 256;

/// Writes identities.
pub(super) struct Identities {
    lives: Vec<Option<Life>>,
    owners: Vec<Option<Owner>>,
    local: Ends,
    remote: Ends,
    room: Room,
}

impl Default for Identities {
    fn default() -> Self {
        Self {
            lives: (0..CONNECTIONS).map(|_| None).collect(),
            owners: (0..PROCESSES).map(|_| None).collect(),
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
    looked_up: Option<Box<LookedUp>>,
    opened_at: Option<WallTime>,
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
    /// From inside the quotes of `id` to `opened_at`.
    pub fn of(&mut self, connection: &Connection, times: &mut Times) -> &[u8] {
        let Self { lives, owners, local, remote, room } = self;
        let place = connection.id.socket as usize % CONNECTIONS;
        let life = lives[place].get_or_insert_with(|| Life::new(connection));
        if life.text.is_empty() || !life.is_of(connection) {
            let mut text = std::mem::take(&mut life.text);
            text.clear();
            let place = connection.process.pid as usize % PROCESSES;
            let owner = owners[place].get_or_insert_with(|| Owner::of(connection));
            if !owner.is_of(connection) {
                *owner = Owner::of(connection);
            }
            room.line(&mut text, |line| id(connection.id, line));
            text.extend_from_slice(&owner.text);
            room.line(&mut text, |line| {
                local.write(connection.local, line);
                line.literal(br#"","remote":""#);
                remote.write(connection.remote, line);
                line.literal(br#"","remote_name":"#);
            });
            match &connection.looked_up {
                Some(looked_up) => {
                    json_string(&looked_up.name, &mut text);
                    text.literal(br#","remote_name_source":"dns","opened_at":"#);
                }
                None => text.literal(br#"null,"remote_name_source":null,"opened_at":"#),
            }
            room.line(&mut text, |line| {
                optional(connection.opened_at, line, |time, line| line.literal(times.quoted(time)));
            });
            *life = Life { text, ..Life::new(connection) };
        }
        &life.text
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
            looked_up: connection.looked_up.clone(),
            opened_at: connection.opened_at,
            text: Vec::new(),
        }
    }

    fn is_of(&self, connection: &Connection) -> bool {
        self.id == connection.id
            && Rc::ptr_eq(&self.process, &connection.process)
            && self.opened_at == connection.opened_at
            && self.rest == Rest::of(connection)
            && self.ends == (connection.local, connection.remote)
            && self.looked_up == connection.looked_up
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
        out.literal(br#"","pid":"#);
        decimal(process.pid, &mut out);
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

fn id(id: ConnectionId, out: &mut impl Put) {
    hex(id.socket, out);
    if id.life > 0 {
        out.literal(b".");
        decimal(id.life, out);
    }
}
