//! How often the ring buffers are emptied, and what else is done from time to time.

use std::time::Duration;

use anyhow::Result;

use super::ticker::Ticker;

/// While something happens. Waking for each event would cost the traced machine far more than the event; a person does not see a
/// tenth of a second.
const BUSY: Duration = Duration::from_millis(100);
/// While nothing does: what comes then is shown a little later, and a quiet machine is hardly woken.
const QUIET: Duration = Duration::from_millis(250);
/// Nothing happens when nothing has for so long.
const PATIENCE: Duration = Duration::from_secs(1);

/// Ticks that come less often while nothing happens.
pub struct Pace {
    ticker: Ticker,
    period: Duration,
    /// For how long nothing has happened.
    quiet: Duration,
}

impl Pace {
    /// Begins as if something had happened.
    ///
    /// # Errors
    /// As [`Ticker::new`].
    pub fn new() -> Result<Self> {
        Ok(Self { ticker: Ticker::new(BUSY)?, period: BUSY, quiet: Duration::ZERO })
    }

    /// Waits for the next tick. Returns how long after the one before it comes.
    ///
    /// # Errors
    /// As [`Ticker::tick`].
    pub async fn tick(&self) -> Result<Duration> {
        self.ticker.tick().await?;
        Ok(self.period)
    }

    /// Whether nothing has happened for a while.
    pub fn is_quiet(&self) -> bool {
        self.period == QUIET
    }

    /// Takes in whether anything had happened at a tick, or at an urge.
    ///
    /// # Errors
    /// As [`Ticker::set_period`].
    pub fn note(&mut self, happened: bool) -> Result<()> {
        self.quiet = if happened { Duration::ZERO } else { self.quiet.saturating_add(self.period) };
        let period = if self.quiet < PATIENCE { BUSY } else { QUIET };
        if period != self.period {
            self.period = period;
            self.ticker.set_period(period)?;
        }
        Ok(())
    }
}

/// Something that is done now and then, by the time that passes between ticks.
pub struct Periodic {
    every: Duration,
    passed: Duration,
}

impl Periodic {
    /// Due at the first tick.
    pub fn new(every: Duration) -> Self {
        Self { every, passed: every }
    }

    /// Takes in that so much time has passed. Whether it is to be done.
    pub fn is_due(&mut self, passed: Duration) -> bool {
        self.passed += passed;
        let is_due = self.passed >= self.every;
        if is_due {
            self.passed = Duration::ZERO;
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn what_is_done_now_and_then_is_due_at_first_and_each_time_its_period_has_passed() {
        let mut periodic = Periodic::new(Duration::from_secs(1));
        let due = (0..9).map(|_| periodic.is_due(Duration::from_millis(250))).collect::<Vec<_>>();
        assert_eq!(due, [true, false, false, false, true, false, false, false, true]);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn ticks_come_less_often_while_nothing_happens_and_often_again_when_something_does() -> Result<()> {
        let mut pace = Pace::new()?;
        let mut waited = Duration::ZERO;
        while waited < PATIENCE {
            waited += pace.tick().await?;
            pace.note(false)?;
        }
        assert!(pace.is_quiet());
        let began = Instant::now();
        assert_eq!(pace.tick().await?, QUIET);
        assert!(began.elapsed() >= QUIET - BUSY);
        pace.note(true)?;
        assert_eq!(pace.tick().await?, BUSY);
        Ok(())
    }
}
