//! One item of the ring buffers all the way: decodes it, names its process, reads its TLS hellos, DNS messages and HTTP heads, and
//! sends what there is down the pipeline.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use anyhow::Result;
use aya::maps::{HashMap, MapData};
use tracer_ebpf::{
    SocketRecord,
    dns::DnsRecord,
    getaddrinfo::GetAddrInfoRecord,
    kind,
    ssl::{JoinedRecord, evidence},
};

use super::{
    decode::{Head, Item, Piece, Taker, lend_to},
    dns::Messages,
    enrich::Enricher,
    event::{EventRef, OpenSocket, UserEvent},
    getaddrinfo::resolved,
    hello::Hellos,
    http::Heads,
    pipeline::Pipeline,
    sessions::{Seen, Sessions},
};
use crate::target::library::Libraries;

/// HTTP heads that were seen in a TLS library and whose connection did not become known.
const UNJOINED: &str = "http_unjoined";

/// Most processes that wait to be looked at because they have mapped code. Each is looked at whole, so once is enough.
const MAX_MAPPED: usize = 4_096;

/// Takes one item through an [`Intake`].
struct Through<'i, F> {
    intake: &'i mut Intake,
    each: F,
}

impl<F: FnOnce(&SocketRecord)> Taker<Result<()>> for Through<'_, F> {
    #[inline(always)]
    fn take(self, item: Item) -> Result<()> {
        let Self { intake, each } = self;
        match item {
            Item::Event(event) => {
                intake.prepare(event, each)?;
                intake.pipeline.event(event)
            }
            Item::Hello(piece) => intake.hello(piece),
            Item::Dns(record) => intake.lookups(record),
            Item::GetAddrInfo(record) => intake.resolved(record),
            Item::Head(head) => intake.head(head),
            Item::Joined(record) => intake.joined(record),
            Item::Mapped(record) => {
                intake.mapped(record.tgid);
                Ok(())
            }
        }
    }
}

/// What items go through, from the kernel's bytes on.
pub struct Intake {
    enricher: Enricher,
    hellos: Hellos,
    messages: Messages,
    heads: Heads,
    sessions: Sessions,
    libraries: Option<Rc<RefCell<Libraries>>>,
    mapped: BTreeSet<u32>,
    ended: Vec<u32>,
    undecodable: BTreeMap<&'static str, u64>,
    /// The stages behind.
    pub pipeline: Pipeline,
}

impl Intake {
    /// Knows nothing yet.
    pub fn new(pipeline: Pipeline) -> Self {
        Self {
            enricher: Enricher::remembering(pipeline.max_processes()),
            hellos: Hellos::default(),
            messages: Messages::default(),
            heads: Heads::default(),
            sessions: Sessions::default(),
            libraries: None,
            mapped: BTreeSet::new(),
            ended: Vec::new(),
            undecodable: BTreeMap::new(),
            pipeline,
        }
    }

    /// Tells the host's numbers of processes from now on.
    pub fn name_host_pids(&mut self, host_pids: HashMap<MapData, u32, u32>) {
        self.enricher.name_host_pids(host_pids);
    }

    /// Forgets part of what is remembered. Returns whether there was anything to forget.
    ///
    /// # Errors
    /// If the output cannot be written.
    pub fn make_room(&mut self) -> Result<bool> {
        self.enricher.forget_all();
        self.pipeline.make_room()
    }

    /// Names the TLS libraries of connections from now on.
    pub fn name_libraries(&mut self, libraries: Rc<RefCell<Libraries>>) {
        self.libraries = Some(libraries);
    }

    /// Processes that have mapped code since the last call, and those that have ended.
    pub fn take_mapped(&mut self) -> (BTreeSet<u32>, Vec<u32>) {
        (std::mem::take(&mut self.mapped), std::mem::take(&mut self.ended))
    }

    /// Takes an item; `each` sees it if it is of a connection's life. What cannot be decoded is counted.
    ///
    /// # Errors
    /// If the output or the recording cannot be written.
    #[inline(always)]
    pub fn take(&mut self, item: &[u8], each: impl FnOnce(&SocketRecord)) -> Result<()> {
        lend_to(item, Through { intake: self, each }).unwrap_or_else(|error| {
            self.count(error.cause());
            Ok(())
        })
    }

    /// Reads a piece of a hello, and sends on what is news by it.
    #[inline(never)]
    fn hello(&mut self, piece: Piece) -> Result<()> {
        match self.hellos.take(piece) {
            Ok(Some(news)) => self.send(news),
            Ok(None) => Ok(()),
            Err(_) => {
                self.count("hello_malformed");
                Ok(())
            }
        }
    }

    /// Sends an event of our own down the pipeline.
    ///
    /// # Errors
    /// As [`Intake::take`].
    #[inline(never)]
    pub fn send(&mut self, event: UserEvent) -> Result<()> {
        self.pipeline.event(EventRef::User(&event))
    }

    /// Takes over a socket that was open before the trace, and names its process: no event of the kernel side has yet.
    ///
    /// # Errors
    /// As [`Intake::take`].
    pub fn adopt(&mut self, socket: OpenSocket) -> Result<()> {
        self.identify((socket.pid, socket.process_started_at))?;
        self.send(UserEvent::Adopted(socket))
    }

    /// Tells by how much cgroups with a quota were throttled, if that is news.
    ///
    /// # Errors
    /// As [`Intake::take`].
    pub fn report_throttling(&mut self, at: u64) -> Result<()> {
        for event in self.enricher.throttled(at) {
            self.send(event)?;
        }
        Ok(())
    }

    /// Causes and counts of what could not be decoded or joined since the last call.
    pub fn take_undecodable(&mut self) -> BTreeMap<&'static str, u64> {
        match self.sessions.take_lost() {
            0 => {}
            lost => *self.undecodable.entry(UNJOINED).or_default() += lost,
        }
        std::mem::take(&mut self.undecodable)
    }

    /// What waits for its session's connection waits in vain.
    pub fn give_up_sessions(&mut self) {
        self.sessions.give_up_all();
    }

    /// What an event calls for before it goes down the pipeline.
    #[inline(always)]
    fn prepare(&mut self, event: EventRef<'_>, each: impl FnOnce(&SocketRecord)) -> Result<()> {
        if let Some(record) = event.socket() {
            each(record);
            if let Some(identity) = self.enricher.identify(record) {
                self.pipeline.event(&identity)?;
            }
        }
        match event {
            EventRef::Process(record) => {
                self.enricher.forget(record);
                if self.libraries.is_some() && record.kind == kind::EXIT && self.ended.len() < MAX_MAPPED {
                    self.ended.push(record.tgid);
                }
            }
            EventRef::Tls(record) => self.hellos.forget(record.id),
            EventRef::Detailed(record) if record.socket.kind == kind::ENDED => self.hellos.forget(record.socket.id),
            _ => {}
        }
        Ok(())
    }

    /// Sends down the pipeline what DNS messages say, and who asked.
    #[inline(never)]
    fn lookups(&mut self, record: &DnsRecord) -> Result<()> {
        for message in self.messages.take(record) {
            match message {
                Ok(message) => {
                    self.identify((message.pid, message.process_started_at))?;
                    self.send(UserEvent::Dns(message))?;
                }
                Err(error) => self.count(error.cause()),
            }
        }
        Ok(())
    }

    /// Sends down the pipeline what a call of `getaddrinfo` looked up, and who called.
    #[inline(never)]
    fn resolved(&mut self, record: &GetAddrInfoRecord) -> Result<()> {
        let Some(call) = resolved(record) else { return Ok(()) };
        self.identify((call.pid, call.process_started_at))?;
        self.send(UserEvent::Resolved(call))
    }

    /// Sends down the pipeline who a process is, before what is told of it.
    fn identify(&mut self, process: (u32, u64)) -> Result<()> {
        match self.enricher.identify_process(process) {
            Some(identity) => self.pipeline.event(&identity),
            None => Ok(()),
        }
    }

    /// Sends down the pipeline what an HTTP head says. What is none, though it began like one, is another protocol's.
    #[inline(never)]
    fn head(&mut self, head: Head) -> Result<()> {
        let Head { at, id, index, session, sent, bytes } = head;
        match (self.heads.read(bytes), session) {
            (Some(head), Some(session)) if id == 0 => {
                self.sessions.wait(session, Seen { at, sent, head });
                Ok(())
            }
            (Some(head), _) => self.send(UserEvent::Http { at, id, index, sent, head }),
            (None, _) => Ok(()),
        }
    }

    /// Sends down the pipeline which library works on a connection, and what was seen in it before that was known.
    #[inline(never)]
    fn joined(&mut self, record: &JoinedRecord) -> Result<()> {
        let &JoinedRecord { at, id, tgid, session, family, library, .. } = record;
        if record.evidence == evidence::NONE {
            self.sessions.give_up((tgid, session));
            return Ok(());
        }
        let libraries = self.libraries.as_ref();
        let library = libraries.and_then(|libraries| libraries.borrow_mut().name(tgid, family, library));
        self.send(UserEvent::Library { at, id, library })?;
        for Seen { at, sent, head } in self.sessions.join((tgid, session)) {
            self.send(UserEvent::Http { at, id, index: None, sent, head })?;
        }
        Ok(())
    }

    fn mapped(&mut self, pid: u32) {
        if self.mapped.len() < MAX_MAPPED {
            self.mapped.insert(pid);
        }
    }

    fn count(&mut self, cause: &'static str) {
        *self.undecodable.entry(cause).or_default() += 1;
    }
}
