//! A tick at a fixed period that wakes the process once each. A timer of tokio's wakes it twice where the period is longer
//! than 64 ms: its wheel sorts such timers in again on the way, and each wake-up costs the traced machine.

use std::{os::fd::OwnedFd, time::Duration};

use anyhow::{Context as _, Result};
use rustix::{
    io::Errno,
    time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime},
};
use tokio::io::unix::AsyncFd;

use crate::unchecked;

/// Ticks for as long as it lives. Ticks that nobody waited for count as one.
pub struct Ticker(AsyncFd<OwnedFd>);

impl Ticker {
    /// The first tick comes after one period.
    ///
    /// # Errors
    /// If the kernel has no descriptor or memory left.
    pub fn new(period: Duration) -> Result<Self> {
        let begin = || -> Result<_> {
            let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
            set(&timer, period)?;
            Ok(unchecked::polled(timer)?)
        };
        Ok(Self(begin().context("cannot set a timer")?))
    }

    /// Changes the period; the next tick comes after one such.
    ///
    /// # Errors
    /// If the kernel refuses the period.
    pub fn set_period(&self, period: Duration) -> Result<()> {
        set(self.0.get_ref(), period).context("cannot set a timer")
    }

    /// Waits for the next tick.
    ///
    /// # Errors
    /// If the timer cannot be read.
    pub async fn tick(&self) -> Result<()> {
        let mut expirations = [0; size_of::<u64>()];
        loop {
            let mut ready = self.0.readable().await.context("cannot read the timer")?;
            let read = rustix::io::read(self.0.get_ref(), &mut expirations);
            // One read takes all there is: none more is needed to find that out.
            ready.clear_ready();
            match read {
                Ok(_) => return Ok(()),
                Err(Errno::AGAIN) => {}
                Err(error) => return Err(error).context("cannot read the timer"),
            }
        }
    }
}

fn set(timer: &OwnedFd, period: Duration) -> Result<()> {
    let period = period.try_into()?;
    let times = Itimerspec { it_interval: period, it_value: period };
    timerfd_settime(timer, TimerfdTimerFlags::empty(), &times)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn ticks_come_a_period_apart_and_missed_ones_count_as_one() -> Result<()> {
        const PERIOD: Duration = Duration::from_millis(20);
        let began = Instant::now();
        let ticker = Ticker::new(PERIOD)?;
        ticker.tick().await?;
        assert!(began.elapsed() >= PERIOD);
        std::thread::sleep(5 * PERIOD);
        ticker.tick().await?;
        let late = Instant::now();
        ticker.tick().await?;
        ticker.tick().await?;
        assert!(late.elapsed() >= PERIOD, "ticks that were missed came all the same");
        Ok(())
    }
}
