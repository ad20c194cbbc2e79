//! The summary for people: a table by process and destination, then what was lost or missing.

use comfy_table::{Cell, CellAlignment, Table, presets::NOTHING};

use super::{
    escape::plain,
    text::Paint,
    units::{counted, duration, size},
};
use crate::track::record::{Group, GroupExchanges, Hook, Loss, Nanos, Role, Summary};

/// A column: its heading, whether it holds figures, and its text for a group.
type Column = (&'static str, bool, fn(&Group) -> String);

/// The columns of every trace, before and after those of detail `exchanges`.
const FIRST: &[Column] = &[
    ("process", false, |group| plain(&group.comm)),
    ("destination", false, destination),
    ("conns", true, |group| group.connections.to_string()),
    ("open", true, |group| some(group.open)),
    ("failed", true, |group| some(group.failed)),
    ("setup total", true, |group| time(group.connect_median.map(|_| setup(group)))),
    ("median", true, |group| time(group.connect_median)),
];
const EXCHANGES: &[Column] = &[
    ("exchanges", true, |group| exchanges(group, |exchanges| Some(exchanges.count.to_string()))),
    ("per conn", true, |group| exchanges(group, |exchanges| per_connection(exchanges.count, group.connections))),
    ("cold", true, |group| exchanges(group, |exchanges| exchanges.cold_median.map(duration))),
    ("warm", true, |group| exchanges(group, |exchanges| exchanges.warm_median.map(duration))),
    ("stale", true, |group| exchanges(group, |exchanges| Some(some(exchanges.stale)))),
];
const LAST: &[Column] = &[
    ("sent", true, |group| bytes(group.bytes.0)),
    ("recv", true, |group| bytes(group.bytes.1)),
    ("idle at close min", true, |group| time(group.idle.map(|(smallest, _, _)| smallest))),
    ("median", true, |group| time(group.idle.map(|(_, median, _)| median))),
    ("max", true, |group| time(group.idle.map(|(_, _, largest)| largest))),
    ("closed by", false, |group| closers(group.closers)),
];

/// Everything the summary has to say.
pub(super) fn text(summary: &Summary, paint: Paint) -> String {
    let traced = summary.stopped_at.0.saturating_sub(summary.began_at.0);
    let heading =
        format!("{} in {}, {} still open", counted(summary.connections, "connection"), duration(traced), summary.open);
    let mut text = format!("\n{}\n", paint.bold(&heading));
    if !summary.groups.is_empty() {
        text.push_str(&table(summary).trim_fmt());
        text.push('\n');
        text.push_str(&paid(summary).unwrap_or_default());
    }
    text.push_str(&reservations(summary, paint));
    text
}

/// What was missing, lost, or cut short.
pub(super) fn reservations(summary: &Summary, paint: Paint) -> String {
    let mut text = String::new();
    for hook in summary.hooks.iter().filter(|hook| hook.backend.is_none()) {
        text.push_str(&format!("{}\n", paint.yellow(&missing(hook))));
    }
    for loss in &summary.losses {
        text.push_str(&format!("{}\n", paint.red(&lost(loss))));
    }
    for remark in &summary.remarks {
        text.push_str(&format!("{}\n", paint.yellow(&format!("note: {}", plain(remark)))));
    }
    text
}

/// `setup paid: dns 1.20 s, tcp 12.3 s, tls 4.50 s`
fn paid(summary: &Summary) -> Option<String> {
    let groups = || summary.groups.iter().chain(&summary.other);
    let sum = |of: fn(&Group) -> Nanos| groups().map(of).fold(0, Nanos::saturating_add);
    let handshakes = sum(handshake);
    let lookups = sum(dns);
    let parts = [("dns", lookups), ("tcp", sum(|group| group.setup)), ("tls", handshakes)];
    let parts = parts.into_iter().filter(|(name, paid)| *name == "tcp" || *paid > 0);
    let parts: Vec<_> = parts.map(|(name, paid)| format!("{name} {}", duration(paid))).collect();
    (lookups > 0 || handshakes > 0).then(|| format!("setup paid: {}\n", parts.join(", ")))
}

fn table(summary: &Summary) -> Table {
    let groups = || summary.groups.iter().chain(&summary.other);
    let detail = if groups().any(|group| group.exchanges.is_some()) { EXCHANGES } else { &[] };
    let columns = || FIRST.iter().chain(detail).chain(LAST);
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header(columns().map(|(heading, ..)| *heading));
    for group in groups() {
        table.add_row(columns().map(|(_, _, text)| Cell::new(text(group))));
    }
    for ((_, is_figure, _), column) in columns().zip(table.column_iter_mut()) {
        if *is_figure {
            column.set_cell_alignment(CellAlignment::Right);
        }
        column.set_padding((0, 2));
    }
    table
}

fn destination(group: &Group) -> String {
    match group.role {
        Some(Role::Client) => format!("-> {}", plain(&group.destination)),
        Some(Role::Server) => format!("<- at :{}", plain(&group.destination)),
        None => plain(&group.destination),
    }
}

/// Lookups, connects and handshakes.
fn setup(group: &Group) -> Nanos {
    group.setup.saturating_add(dns(group)).saturating_add(handshake(group))
}

fn dns(group: &Group) -> Nanos {
    group.exchanges.as_ref().map_or(0, |exchanges| exchanges.dns)
}

fn handshake(group: &Group) -> Nanos {
    group.exchanges.as_ref().map_or(0, |exchanges| exchanges.handshake)
}

fn exchanges(group: &Group, text: impl FnOnce(&GroupExchanges) -> Option<String>) -> String {
    group.exchanges.as_ref().and_then(text).unwrap_or_else(|| "-".into())
}

/// `12.5`
fn per_connection(count: u64, connections: u64) -> Option<String> {
    (connections > 0).then(|| format!("{:.1}", count as f64 / connections as f64))
}

fn time(time: Option<Nanos>) -> String {
    time.map_or_else(|| "-".into(), duration)
}

fn some(count: u64) -> String {
    if count == 0 { "-".into() } else { count.to_string() }
}

fn bytes(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "-".into(), size)
}

/// `local 3, peer 1`
fn closers((local, peer, nobody): (u64, u64, u64)) -> String {
    let named = [(local, "local"), (peer, "peer"), (nobody, "nobody")];
    let named = named.into_iter().filter(|(count, _)| *count > 0);
    let words: Vec<_> = named.map(|(count, who)| format!("{who} {count}")).collect();
    if words.is_empty() { "-".into() } else { words.join(", ") }
}

fn missing(hook: &Hook) -> String {
    let because = hook.reason.as_deref().map(|reason| format!(" ({})", plain(reason)));
    let without = hook.without.as_deref().map(|without| format!("; without it: {}", plain(without)));
    format!("not hooked: {}{}{}", plain(&hook.name), because.unwrap_or_default(), without.unwrap_or_default())
}

fn lost(loss: &Loss) -> String {
    format!("LOST in all: {} in the {}, cause {}", loss.count, plain(&loss.place), plain(&loss.cause))
}
