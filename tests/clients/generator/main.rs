//! Makes random connections and logs on stdout what really happened to each socket, one JSON object a line. The same
//! seed makes the same connections, but for their ports and times.
//!
//! `generator --connections N --seed S`

mod life;
mod plan;

use std::{
    env,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use anyhow::{Context, Result};
use harness::{Actor, accuracy::Truth};

use crate::{
    life::Places,
    plan::{End, Plan},
};

/// Connections that live at the same time.
const AT_ONCE: usize = 16;

fn main() -> Result<()> {
    let connections: usize = option("--connections")?.unwrap_or(1_000);
    let seed: u64 = option("--seed")?.unwrap_or(1) as u64;
    let plans: Vec<Plan> = (0..connections).map(|index| Plan::random(seed, index)).collect();
    // A process that is born later would hold copies of all sockets until it runs its own program, and so delay the
    // closes of those that are closed meanwhile.
    let process = |plan: &Plan| Mutex::new((plan.end == End::Exit).then(Actor::new));
    let processes: Vec<Mutex<Option<Actor>>> = plans.iter().map(process).collect();
    let places = Places::new();
    let next = AtomicUsize::new(0);
    let truths: Mutex<Vec<Truth>> = Mutex::default();
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(plan) = plans.get(index) else { break };
                    let process = processes[index].lock().expect("no thread failed").take();
                    let lived = life::live(index, plan, &places, process);
                    truths.lock().expect("no thread failed").extend(lived);
                }
            });
        }
    });
    let mut truths = truths.into_inner().expect("no thread failed");
    truths.push(places.close());
    for truth in truths {
        println!("{}", serde_json::to_string(&truth)?);
    }
    Ok(())
}

fn option(name: &str) -> Result<Option<usize>> {
    let mut args = env::args().skip_while(|arg| arg != name).skip(1);
    args.next().map(|value| value.parse().with_context(|| format!("{name} {value}"))).transpose()
}
