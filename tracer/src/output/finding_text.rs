//! A finding for people.

use super::{
    escape::plain,
    text::{Paint, time_of_day},
    units::duration,
};
use crate::{
    findings::finding::{Figure, Finding, Severity},
    track::record::Role,
};

/// Columns that the lines may take, and how far those after the first are moved in.
const WIDTH: usize = 110;
const INDENT: &str = "        ";

/// A heading and what there is to say, each on lines of its own.
pub(super) fn text(finding: &Finding, paint: Paint) -> String {
    let mut text = format!("{}\n", heading(finding, paint));
    let mut say = |label: &str, words: &str| text.push_str(&wrapped(label, &plain(words)));
    say("", &finding.title);
    say("do: ", &finding.advice);
    if let Some(hint) = &finding.hint {
        say("hint: ", hint);
    }
    say("evidence: ", &evidence(finding));
    for example in &finding.examples {
        say("e.g. ", &format!("{} {}", time_of_day(example.at).trim(), example.what));
    }
    for caveat in &finding.caveats {
        say("but: ", caveat);
    }
    say("not so with: ", finding.would_change);
    text
}

/// `HIGH  no-reuse  node -> dynamo.test:8000  costs 12.3 s, 2.10 s a minute  (confidence high)`
fn heading(finding: &Finding, paint: Paint) -> String {
    let severity = format!("{:<6}", finding.severity.as_str().to_uppercase());
    let severity = match finding.severity {
        Severity::High => paint.red(&severity),
        Severity::Medium => paint.yellow(&severity),
        Severity::Low => severity,
    };
    let direction = match finding.role {
        Some(Role::Server) => "at",
        _ => "->",
    };
    let who = format!("{} {direction} {}", plain(&finding.comm), plain(&finding.destination));
    let cost = match (finding.cost, finding.cost_per_minute) {
        (Some(cost), Some(per_minute)) => format!("  cost {}, {} a minute", duration(cost), duration(per_minute)),
        _ => String::new(),
    };
    let confidence = paint.dim(&format!("(confidence {})", finding.confidence.as_str()));
    format!("{severity}  {}  {}{cost}  {confidence}", paint.bold(finding.rule), paint.bold(&who))
}

/// `idle timeout 5.00 s, closes 12, ...`: what is known.
fn evidence(finding: &Finding) -> String {
    let figures = finding.evidence.iter().filter_map(|(name, figure)| {
        let value = match figure {
            Figure::Count(count) => count.to_string(),
            Figure::Time(time) => duration((*time)?),
            Figure::Ratio(ratio) => format!("{:.2}", (*ratio)?),
            Figure::Flag(flag) => if (*flag)? { "on" } else { "off" }.into(),
        };
        Some(format!("{} {value}", name.replace("_ms", "").replace('_', " ")))
    });
    figures.collect::<Vec<_>>().join(", ")
}

fn wrapped(label: &str, words: &str) -> String {
    let further = format!("{INDENT}{:width$}", "", width = label.len());
    let first = format!("{INDENT}{label}");
    let options = textwrap::Options::new(WIDTH).initial_indent(&first).subsequent_indent(&further);
    let mut text = textwrap::fill(words, options);
    text.push('\n');
    text
}
