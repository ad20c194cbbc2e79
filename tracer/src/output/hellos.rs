//! The fields of a `tls` object that the hello messages tell. Many handshakes say the same, so the text is kept for a while.

use std::rc::Rc;

use tracer_ebpf::tls::names::{CipherSuite, Version};

use super::{
    escape::json_string,
    line::Put,
    ndjson::{array, boolean, optional, quoted},
};
use crate::track::record::Hello;

/// Hellos whose text is kept, by the last digits of their place in memory.
const HELLOS: usize = 16;

/// Writes what hellos say.
#[derive(Default)]
pub(super) struct Hellos {
    known: [Option<Text>; HELLOS],
}

struct Text {
    /// Holding it keeps its place its own.
    hello: Rc<Hello>,
    text: Vec<u8>,
}

impl Hellos {
    /// From the key `version` to the value of `resumed`.
    #[inline]
    pub fn of(&mut self, hello: &Rc<Hello>) -> &[u8] {
        let known = &mut self.known[Rc::as_ptr(hello).addr() / align_of::<Hello>() % HELLOS];
        if !known.as_ref().is_some_and(|known| Rc::ptr_eq(&known.hello, hello)) {
            *known = None;
        }
        &known.get_or_insert_with(|| Text { hello: Rc::clone(hello), text: written(hello) }).text
    }
}

#[inline(never)]
fn written(hello: &Hello) -> Vec<u8> {
    let Hello { version: chosen, cipher, sni, alpn_offered, alpn, versions_offered, resumed } = hello;
    let mut out = Vec::new();
    out.literal(br#","version":"#);
    optional(*chosen, &mut out, version);
    out.literal(br#","sni":"#);
    optional(sni.as_deref(), &mut out, json_string);
    out.literal(br#","alpn_offered":"#);
    optional(alpn_offered.as_deref(), &mut out, |names, out| {
        array(names, out, |name, out| json_string(name, out));
    });
    out.literal(br#","alpn":"#);
    optional(alpn.as_deref(), &mut out, json_string);
    out.literal(br#","versions_offered":"#);
    optional(versions_offered.as_deref(), &mut out, |versions, out| {
        array(versions, out, |number, out| version(*number, out));
    });
    out.literal(br#","cipher":"#);
    optional(*cipher, &mut out, |number, out| quoted(CipherSuite(number).name(), CipherSuite(number), out));
    out.literal(br#","resumed":"#);
    optional(*resumed, &mut out, boolean);
    out
}

fn version(number: u16, out: &mut Vec<u8>) {
    quoted(Version(number).name(), Version(number), out);
}
