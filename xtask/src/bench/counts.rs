//! What the guest reported, as tables and verdicts.

use std::{collections::BTreeMap, fmt::Write as _};

use anyhow::{Context, Result, bail};

use super::plan::{BOUNDS, Bound, LOOPS, Limit, NONE, connection_lines, exchange_lines};

/// Instructions of one iteration.
#[derive(Clone, Copy)]
struct Sample {
    /// All of them.
    all: i64,
    /// Those of the tracer's own threads.
    own: i64,
}

/// What the guest reported.
#[derive(Default)]
pub struct Counts {
    /// Tracers in the order in which they ran.
    tracers: Vec<String>,
    /// By tracer and loop.
    samples: BTreeMap<(String, String), Vec<Sample>>,
    /// What went wrong: lines that are missing or too many, losses, tracers that failed.
    wrong: Vec<String>,
}

impl Counts {
    /// Takes one line of the guest's script.
    pub fn take(&mut self, line: &str) -> Result<()> {
        let words: Vec<_> = line.split_whitespace().collect();
        match words[..] {
            ["count", tracer, of, all, own] => {
                if !self.tracers.iter().any(|known| known == tracer) {
                    self.tracers.push(tracer.to_owned());
                }
                let sample = Sample { all: number(all)?, own: number(own)? };
                self.samples.entry((tracer.to_owned(), of.to_owned())).or_default().push(sample);
            }
            ["lines", tracer, of, kind, written, iterations] => {
                let iterations = number(iterations)?;
                let expected = match kind {
                    "exchange" => Some(exchange_lines(tracer, of, iterations)),
                    _ => connection_lines(tracer, of, iterations),
                };
                if let Some(expected) = expected.filter(|expected| Ok(*expected) != written.parse()) {
                    self.wrong.push(format!("{tracer} wrote {written} {kind} lines of {of}, not {expected}"));
                }
            }
            ["failed", tracer] => self.wrong.push(format!("{tracer} failed")),
            ["lost", tracer] => self.wrong.push(format!("{tracer} reported losses")),
            _ => bail!("the VM printed a line that is not a figure: {line}"),
        }
        Ok(())
    }

    fn of(&self, tracer: &str, of: &str) -> Option<&[Sample]> {
        self.samples.get(&(tracer.to_owned(), of.to_owned())).map(Vec::as_slice)
    }

    /// Median of what a loop cost beside a tracer.
    fn median(&self, tracer: &str, of: &str) -> Result<i64> {
        let samples = self.of(tracer, of).with_context(|| format!("the VM gave no figure for {tracer} on {of}"))?;
        Ok(median(samples.iter().map(|sample| sample.all).collect()))
    }

    /// What a tracer adds to an iteration.
    pub fn added(&self, tracer: &str, of: &str) -> Result<i64> {
        Ok(self.median(tracer, of)? - self.median(NONE, of)?)
    }

    /// A table of all loops, and all tracers that ran beside each.
    pub fn table(&self) -> Result<String> {
        let mut table = String::from(
            "| loop | tracer | instructions | share | own threads | spread |\n|---|---|---|---|---|---|\n",
        );
        for of in LOOPS {
            for tracer in &self.tracers {
                let Some(samples) = self.of(tracer, of) else { continue };
                let (figure, share, own) = if tracer == NONE {
                    (thousands(self.median(tracer, of)?), String::new(), String::new())
                } else {
                    let own = median(samples.iter().map(|sample| sample.own).collect());
                    let added = self.added(tracer, of)?;
                    (signed(added), percent(self.share(tracer, of)?), thousands(own))
                };
                let spread = thousands(spread(samples));
                writeln!(table, "| {of} | {tracer} | {figure} | {share} | {own} | {spread} |")?;
            }
        }
        Ok(table)
    }

    /// What a tracer adds to an iteration, as a share of it.
    fn share(&self, tracer: &str, of: &str) -> Result<f64> {
        Ok(self.added(tracer, of)? as f64 / self.median(NONE, of)? as f64)
    }

    /// Prints how we stand against the bounds; whether all are met.
    pub fn verdicts(&self) -> Result<bool> {
        let mut verdicts = BOUNDS.iter().map(|bound| self.verdict(bound)).collect::<Result<Vec<_>>>()?;
        verdicts.push(if self.wrong.is_empty() {
            (true, "every connection and every exchange has its line, with every tracer".to_owned())
        } else {
            (false, self.wrong.join("; "))
        });
        for (met, what) in &verdicts {
            println!("{} {what}", if *met { "PASS" } else { "MISS" });
        }
        Ok(verdicts.iter().all(|(met, _)| *met))
    }

    fn verdict(&self, bound: &Bound) -> Result<(bool, String)> {
        let Bound { tracer, of, limit } = *bound;
        let added = self.added(tracer, of)?;
        Ok(match limit {
            Limit::Added(most) => {
                (added <= most, format!("{tracer} on {of}: {}, at most {}", signed(added), signed(most)))
            }
            Limit::Share(most) => {
                let share = self.share(tracer, of)?;
                let what =
                    format!("{tracer} on {of}: {} ({}), at most {}", percent(share), signed(added), percent(most));
                (share <= most, what)
            }
        })
    }
}

fn number(word: &str) -> Result<i64> {
    word.parse().with_context(|| format!("the VM printed '{word}' where a number belongs"))
}

pub fn median(mut samples: Vec<i64>) -> i64 {
    samples.sort_unstable();
    samples.get(samples.len() / 2).copied().unwrap_or(0)
}

/// Largest less smallest.
fn spread(samples: &[Sample]) -> i64 {
    let all = || samples.iter().map(|sample| sample.all);
    all().max().unwrap_or(0) - all().min().unwrap_or(0)
}

/// `+1,234`
fn signed(number: i64) -> String {
    format!("{}{}", if number < 0 { "" } else { "+" }, thousands(number))
}

/// `+0.56 %`
fn percent(share: f64) -> String {
    format!("{:+.2} %", share * 100.0)
}

/// `1,234,567`
pub fn thousands(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::from(if number < 0 { "-" } else { "" });
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{
        super::plan::{CHURN, EXCHANGES},
        *,
    };

    fn taken(lines: &[&str]) -> Result<Counts> {
        let mut counts = Counts::default();
        lines.iter().try_for_each(|line| counts.take(line))?;
        Ok(counts)
    }

    #[test]
    fn added_instructions_are_the_difference_of_medians() -> Result<()> {
        let counts = taken(&[
            "count none churn 100 0",
            "count none churn 104 0",
            "count none churn 101 0",
            "count exchanges churn 1301 500",
        ])?;
        assert_eq!(counts.added(EXCHANGES, CHURN)?, 1200);
        let table = counts.table()?;
        assert!(table.contains("| churn | exchanges | +1,200 | +1188.12 % | 500 | 0 |"), "{table}");
        assert!(counts.verdicts().is_err(), "figures are missing");
        Ok(())
    }

    #[test]
    fn a_bound_is_met_up_to_its_limit() -> Result<()> {
        let counts = taken(&["count none churn 100000 0", "count exchanges churn 100600 0"])?;
        let met = |limit| Ok::<_, anyhow::Error>(counts.verdict(&Bound { tracer: EXCHANGES, of: CHURN, limit })?.0);
        assert!(met(Limit::Added(600))? && !met(Limit::Added(599))?);
        assert!(met(Limit::Share(0.006))? && !met(Limit::Share(0.0059))?);
        Ok(())
    }

    #[test]
    fn missing_lines_losses_and_failed_tracers_are_told() -> Result<()> {
        let counts = taken(&[
            "lines exchanges churn connection 8 4",
            "lines exchanges churn exchange 8 4",
            "lines summary churn exchange 0 4",
            "lines sslsnoop tls-rr connection 70 35",
        ])?;
        assert!(counts.wrong.is_empty(), "{:?}", counts.wrong);
        let counts = taken(&[
            "lines exchanges rr exchange 7 4",
            "lines unselected rr connection 2 4",
            "lost summary",
            "failed sslsnoop",
        ])?;
        assert_eq!(
            counts.wrong,
            [
                "exchanges wrote 7 exchange lines of rr, not 8",
                "unselected wrote 2 connection lines of rr, not 0",
                "summary reported losses",
                "sslsnoop failed"
            ]
        );
        assert!(Counts::default().take("bash: no such file").is_err());
        Ok(())
    }

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!([0, 999, 1000, -43_100, 1_234_567].map(thousands), ["0", "999", "1,000", "-43,100", "1,234,567"]);
    }
}
