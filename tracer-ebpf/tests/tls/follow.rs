//! A TLS connection followed as the hooks do it, but for the bounds that the kernel's verifier asks for. Also compiled into a
//! fuzz target.

use tracer_ebpf::tls::{
    handshake::{BODY_LEN, Handshake, Step, flag, phase},
    record::HEADER_LEN,
    walk::Walk,
};

/// Both directions of a connection.
#[derive(Clone)]
pub struct Followed {
    /// What is known of the handshake.
    pub handshake: Handshake,
    /// What the last record meant.
    pub step: Step,
    server: Walk,
    client: Walk,
}

impl Followed {
    /// Of which nothing has passed.
    pub fn new() -> Self {
        let handshake = Handshake {
            started_at: 0,
            ended_at: 0,
            cpu: 0,
            runqueue: 0,
            phase: phase::LOOKING,
            flags: 0,
            alert_level: 0,
            alert_description: 0,
            reserved: 0,
        };
        Self { handshake, step: Step::Goes, server: Walk::default(), client: Walk::default() }
    }

    /// All but the times, which tell when a piece came.
    pub fn state(&self) -> (u8, u8, (u8, u8), Step) {
        let Handshake { phase, flags, alert_level, alert_description, .. } = self.handshake;
        (phase, flags, (alert_level, alert_description), self.step)
    }

    /// Takes in one call to send or receive. What comes after the end of the handshake is left alone.
    pub fn call(&mut self, at: u64, from_client: bool, mut bytes: &[u8]) {
        let is_looking = self.handshake.phase == phase::LOOKING;
        if !(is_looking && from_client || self.handshake.is_under_way()) {
            return;
        }
        while !bytes.is_empty() {
            let Some(rest) = self.go_on(at, from_client, bytes) else { break };
            bytes = rest;
            if self.step != Step::Goes {
                return;
            }
        }
        if !bytes.is_empty() {
            self.lost_track(from_client);
        } else if self.handshake.phase == phase::LOOKING && !self.client.is_at_header() {
            // The body is at hand, and it is no ClientHello.
            self.client.restart();
        }
    }

    /// Takes a record's body, or a header, or a byte of one; `None` if it is no header.
    fn go_on<'b>(&mut self, at: u64, from_client: bool, bytes: &'b [u8]) -> Option<&'b [u8]> {
        let Self { handshake, step, server, client } = self;
        let walk = if from_client { client } else { server };
        if walk.remaining != 0 {
            if walk.at_body != 0
                && let Some(header) = walk.header()
            {
                let known = bytes.len().min(BODY_LEN);
                let mut body = [0; BODY_LEN];
                body[..known].copy_from_slice(&bytes[..known]);
                *step = handshake.record(at, from_client, header, &body, known as u32);
            }
            let passed = walk.body(bytes.len() as u32) as usize;
            assert!(passed > 0, "what has a body takes some");
            return Some(&bytes[passed..]);
        }
        if walk.is_between_records()
            && let Some((header, rest)) = bytes.split_first_chunk::<HEADER_LEN>()
        {
            return walk.whole_header(*header).then_some(rest);
        }
        let (byte, rest) = bytes.split_first()?;
        walk.header_byte(*byte).then_some(rest)
    }

    fn lost_track(&mut self, from_client: bool) {
        if from_client {
            self.client.restart();
            if self.handshake.phase != phase::LOOKING {
                self.handshake.flags |= flag::LOST_TRACK;
            }
        } else {
            self.server.restart();
            if self.handshake.phase == phase::CLIENT_HELLO {
                self.step = self.handshake.foreign();
            }
        }
    }
}
