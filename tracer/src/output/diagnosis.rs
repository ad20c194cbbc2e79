//! What `diagnose` prints: findings, losses, and at the end what was looked at. The rest is left to `trace`.

use super::{
    Output,
    ndjson::Ndjson,
    summary::reservations,
    text::Text,
    units::{counted, duration},
};
use crate::{
    findings::finding::Finding,
    track::record::{Record, Summary},
};

/// The output of a diagnosis for people.
pub struct TextDiagnosis {
    text: Text,
    found: usize,
}

impl TextDiagnosis {
    /// With colours only if told so.
    pub fn new(colour: bool) -> Self {
        Self { text: Text::new(colour, false), found: 0 }
    }

    /// `nothing found; looked at 12 connections and 340 exchanges with 3 destinations in 60.0 s`
    fn closing(&self, summary: &Summary) -> String {
        let groups = || summary.groups.iter().chain(&summary.other);
        let exchanges: u64 = groups().filter_map(|group| group.exchanges.as_ref()).map(|group| group.count).sum();
        let found = match self.found {
            0 => "nothing found".to_owned(),
            found => counted(found as u64, "finding"),
        };
        let looked_at = format!(
            "looked at {} and {} with {} in {}",
            counted(summary.connections, "connection"),
            counted(exchanges, "exchange"),
            counted(groups().count() as u64, "destination"),
            duration(summary.stopped_at.0.saturating_sub(summary.began_at.0)),
        );
        format!("{}; {looked_at}\n{}", self.text.paint().bold(&found), reservations(summary, self.text.paint()))
    }
}

impl Output for TextDiagnosis {
    fn record(&mut self, record: &Record, out: &mut Vec<u8>) {
        match record {
            Record::Summary(summary) => out.extend_from_slice(self.closing(summary).as_bytes()),
            Record::Loss(_) | Record::Detail(_) => self.text.record(record, out),
            _ => {}
        }
    }

    fn finding(&mut self, finding: &Finding, out: &mut Vec<u8>) {
        self.found += 1;
        self.text.finding(finding, out);
        out.push(b'\n');
    }

    fn wants_exchanges(&self) -> bool {
        true
    }
}

/// The output of a diagnosis as NDJSON: `finding`, `loss` and `summary` lines.
#[derive(Default)]
pub struct NdjsonDiagnosis(Ndjson);

impl Output for NdjsonDiagnosis {
    fn record(&mut self, record: &Record, out: &mut Vec<u8>) {
        if matches!(record, Record::Loss(_) | Record::Detail(_) | Record::Summary(_)) {
            self.0.record(record, out);
        }
    }

    fn finding(&mut self, finding: &Finding, out: &mut Vec<u8>) {
        self.0.finding(finding, out);
    }

    fn wants_exchanges(&self) -> bool {
        true
    }
}
