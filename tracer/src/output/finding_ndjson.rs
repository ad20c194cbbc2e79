//! A finding as a line of NDJSON.

use super::{
    escape::json_string,
    identity::id,
    line::Put as _,
    ndjson::{array, boolean, optional, time},
    number::{Times, decimal, milliseconds},
};
use crate::{
    findings::finding::{Example, Figure, Finding},
    track::record::Role,
};

/// Writes the line. Findings are few: it need not be fast.
pub(super) fn write(finding: &Finding, times: &mut Times, out: &mut Vec<u8>) {
    out.literal(br#"{"type":"finding","rule":"#);
    json_string(finding.rule, out);
    out.literal(br#","severity":"#);
    json_string(finding.severity.as_str(), out);
    out.literal(br#","confidence":"#);
    json_string(finding.confidence.as_str(), out);
    out.literal(br#","found_at":"#);
    time(Some(finding.at), times, out);
    out.literal(br#","comm":"#);
    json_string(&finding.comm, out);
    out.literal(br#","role":"#);
    let role = finding.role.map(|role| if role == Role::Client { "client" } else { "server" });
    optional(role, out, json_string);
    out.literal(br#","destination":"#);
    json_string(&finding.destination, out);
    out.literal(br#","title":"#);
    json_string(&finding.title, out);
    out.literal(br#","cost_ms":"#);
    optional(finding.cost, out, milliseconds);
    out.literal(br#","cost_ms_per_minute":"#);
    optional(finding.cost_per_minute, out, milliseconds);
    out.literal(br#","evidence":{"#);
    for (place, (name, value)) in finding.evidence.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        json_string(name, out);
        out.push(b':');
        figure(*value, out);
    }
    out.literal(br#"},"examples":"#);
    array(&finding.examples, out, |of, out| example(of, times, out));
    out.literal(br#","advice":"#);
    json_string(&finding.advice, out);
    out.literal(br#","hint":"#);
    optional(finding.hint.as_deref(), out, json_string);
    out.literal(br#","would_change":"#);
    json_string(finding.would_change, out);
    out.literal(br#","caveats":"#);
    array(&finding.caveats, out, |caveat, out| json_string(caveat, out));
    out.literal(b"}\n");
}

fn figure(figure: Figure, out: &mut Vec<u8>) {
    match figure {
        Figure::Count(count) => decimal(count, out),
        Figure::Time(time) => optional(time, out, milliseconds),
        Figure::Ratio(ratio) => optional(ratio.filter(|ratio| ratio.is_finite()), out, |ratio, out| {
            out.extend_from_slice(format!("{ratio:.4}").as_bytes());
        }),
        Figure::Flag(flag) => optional(flag, out, boolean),
    }
}

fn example(example: &Example, times: &mut Times, out: &mut Vec<u8>) {
    out.literal(br#"{"connection":""#);
    id(example.connection, out);
    out.literal(br#"","at":"#);
    time(example.at, times, out);
    out.literal(br#","what":"#);
    json_string(&example.what, out);
    out.push(b'}');
}
