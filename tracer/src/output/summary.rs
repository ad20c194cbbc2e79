//! The summary for people: a table by process and destination, then what was lost or missing.

use comfy_table::{Cell, CellAlignment, Table, presets::NOTHING};

use super::{
    escape::plain,
    text::Paint,
    units::{duration, size},
};
use crate::track::record::{Group, Hook, Loss, Role, Summary};

const HEADINGS: [&str; 12] = [
    "process",
    "destination",
    "conns",
    "open",
    "failed",
    "setup total",
    "median",
    "sent",
    "recv",
    "idle at close min",
    "median",
    "max",
];
/// The columns before this are names, the others figures.
const FIRST_FIGURE: usize = 2;

/// Everything the summary has to say.
pub(super) fn text(summary: &Summary, paint: Paint) -> String {
    let traced = summary.stopped_at.0.saturating_sub(summary.began_at.0);
    let heading =
        format!("{} in {}, {} still open", counted(summary.connections, "connection"), duration(traced), summary.open);
    let mut text = format!("\n{}\n", paint.bold(&heading));
    if !summary.groups.is_empty() {
        text.push_str(&table(summary).trim_fmt());
        text.push('\n');
    }
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

fn table(summary: &Summary) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header(HEADINGS.into_iter().chain(["closed by"]));
    for group in summary.groups.iter().chain(&summary.other) {
        table.add_row(row(group).map(Cell::new));
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        if (FIRST_FIGURE..HEADINGS.len()).contains(&index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        column.set_padding((0, 2));
    }
    table
}

fn row(group: &Group) -> [String; 13] {
    let destination = match group.role {
        Some(Role::Client) => format!("-> {}", plain(&group.destination)),
        Some(Role::Server) => format!("<- at :{}", plain(&group.destination)),
        None => plain(&group.destination),
    };
    let time = |time: Option<u64>| time.map_or_else(|| "-".into(), duration);
    let some = |count: u64| {
        if count == 0 { "-".into() } else { count.to_string() }
    };
    let bytes = |bytes: Option<u64>| bytes.map_or_else(|| "-".into(), size);
    let (sent, received) = group.bytes;
    [
        plain(&group.comm),
        destination,
        group.connections.to_string(),
        some(group.open),
        some(group.failed),
        time(Some(group.setup).filter(|_| group.connect_median.is_some())),
        time(group.connect_median),
        bytes(sent),
        bytes(received),
        time(group.idle.map(|(smallest, _, _)| smallest)),
        time(group.idle.map(|(_, median, _)| median)),
        time(group.idle.map(|(_, _, largest)| largest)),
        closers(group.closers),
    ]
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

fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
