//! `conntracer replay FILE`: the outputs of a trace, from its recording.

use std::{fs::File, io::BufReader, path::Path};

use anyhow::{Context as _, Result};

use super::{Opened, open_output, talk};
use crate::{
    cli,
    findings::Findings,
    memory::Budget,
    output::recording::Reader,
    stage::{outlet::Outlet, pipeline::Pipeline},
    track::{Clock, Correlator, Limits},
};

/// Events taken before memory is looked at again.
const LOOK_AT_MEMORY_EVERY: usize = 1_024;

/// Replays a recording. One that was cut short is replayed up to the cut, and the summary says so.
///
/// # Errors
/// If the file is no recording, or one of another version, or the output cannot be written.
pub fn replay(options: &cli::Replay) -> Result<()> {
    replay_to(&options.file, open_output(&options.output)?).map(drop)
}

/// The same, to an output. Returns how many findings there are.
///
/// # Errors
/// As [`replay`].
pub fn replay_to(file: &Path, opened: Opened) -> Result<usize> {
    let reader = open(file)?;
    let Opened { output, sink, findings } = opened;
    let header = reader.header();
    let clock = Clock { boot_to_wall_ns: header.boot_to_wall_ns, tick_ns: header.tick_ns, began_at: header.began_at };
    let findings = findings.map(|when| Findings::new(when, clock.wall(clock.began_at)));
    let memory = Budget::of_mib(Budget::DEFAULT_MIB);
    let correlator = Correlator::new(clock, memory.limits(Limits::default().max_connections));
    let mut pipeline = Pipeline::new(None, correlator, findings, output, Outlet::waiting(sink));
    let mut remark = None;
    for (at, event) in reader.enumerate() {
        // A recording can come from anybody.
        while at % LOOK_AT_MEMORY_EVERY == 0 && memory.is_exceeded() && pipeline.make_room()? {}
        match event {
            Ok(event) => pipeline.event(&event)?,
            Err(cut) => {
                talk(&cut.to_string());
                remark = Some(cut.to_string());
            }
        }
    }
    pipeline.finish(remark)?;
    Ok(pipeline.found())
}

fn open(path: &Path) -> Result<Reader<BufReader<File>>> {
    let file = File::open(path).with_context(|| format!("cannot open '{}'", path.display()))?;
    Reader::open(BufReader::new(file)).with_context(|| format!("cannot replay '{}'", path.display()))
}
