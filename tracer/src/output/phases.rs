//! Where an exchange's time went, in one line.

use super::{
    http::Http,
    units::{duration, milliseconds, size},
};
use crate::track::record::{Exchange, Nanos, Parts, Setup};

/// Room for what a cold exchange paid before it could ask, so that the first bytes stand below each other.
const SETUP_WIDTH: usize = 55;

/// `cold  dns 7.3  tcp 100.2  tls 214.8 (cpu 12.0 queued 0.0 wait 203)  first byte 92.0  = 414 ms`
pub(super) fn phases(exchange: &Exchange) -> String {
    let kind = match exchange.cold {
        Some(true) => "cold",
        Some(false) => "warm",
        None => "    ",
    };
    let paid = exchange.setup.as_deref().map(setup).unwrap_or_default();
    let answer = match exchange.first_byte {
        Some(first_byte) => format!("first byte {:>6}", milliseconds(first_byte)),
        None if exchange.open => "no answer yet    ".into(),
        None => "no answer        ".into(),
    };
    let mut words = format!("{kind}  {paid:<SETUP_WIDTH$}  {answer}");
    if let Some(total) = total(exchange) {
        words.push_str(&format!("  = {}", duration(total)));
    }
    if let (Some(out), Some(received)) = (exchange.bytes_out, exchange.bytes_in) {
        words.push_str(&format!("  sent {}, recv {}", size(out), size(received)));
    }
    if let Some(http) = Http::of(exchange) {
        words.push_str(&format!("  {}", http.words()));
    }
    for (is_so, remark) in [
        (exchange.greeting, "  greeting".to_owned()),
        (exchange.stale, "  stale: the connection was dead".to_owned()),
        (exchange.open, "  still open".to_owned()),
    ] {
        if is_so {
            words.push_str(&remark);
        }
    }
    if let Some(idle) = exchange.idle_before.filter(|_| exchange.cold != Some(true)) {
        words.push_str(&format!("  (idle before {})", duration(idle)));
    }
    words
}

/// What a cold exchange waited for in all.
fn total(exchange: &Exchange) -> Option<Nanos> {
    Some(exchange.setup.as_deref()?.total?.saturating_add(exchange.first_byte?))
}

/// `dns 7.3  tcp 100.2  tls 214.8 (cpu 12.0 queued 0.0 wait 203)`; a lookup that an earlier connection paid for is left out.
fn setup(setup: &Setup) -> String {
    let phase = |name: &str, time: Option<Nanos>| time.map(|time| format!("{name} {}", milliseconds(time)));
    let tls = phase("tls", setup.handshake).map(|tls| format!("{tls}{}", parts(&setup.parts)));
    [phase("dns", setup.dns.filter(|paid| *paid > 0)), phase("tcp", setup.connect), tls]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join("  ")
}

fn parts(parts: &Parts) -> String {
    match (parts.cpu, parts.runqueue, parts.wait) {
        (Some(cpu), Some(queued), Some(wait)) => {
            let [cpu, queued, wait] = [cpu, queued, wait].map(milliseconds);
            format!(" (cpu {cpu} queued {queued} wait {wait})")
        }
        _ => String::new(),
    }
}
