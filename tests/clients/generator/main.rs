//! Makes random connections and logs on stdout what really happened to each socket, one JSON object a line. The same
//! seed makes the same connections, but for their ports and times. After them come a fifth as many lives with TLS, and a
//! fifth as many names that are looked up and connected to.
//!
//! `generator --connections N --seed S`

mod life;
mod lookup;
mod plan;
mod tls;

use std::{
    env,
    ops::Range,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use anyhow::{Context, Result};
use harness::{Actor, accuracy::Told};

use crate::{
    life::Places,
    lookup::Servers,
    plan::{End, Plan},
    tls::Parties,
};

/// Connections that live at the same time.
const AT_ONCE: usize = 16;

/// Lives with TLS and lookups at the same time. They compute, and on an emulated processor tasks that compute crowd each other
/// out in the middle of hooks. Where the kernel preempts, a hook has three programs at least: with three tasks none is
/// skipped (docs/ARCHITECTURE.md), and what is compared is what the hooks saw.
const FEW_AT_ONCE: usize = 3;

/// For so many connections there is one life with TLS, and one lookup.
const ONE_IN: usize = 5;

fn main() -> Result<()> {
    let connections: usize = option("--connections")?.unwrap_or(1_000);
    let seed: u64 = option("--seed")?.unwrap_or(1) as u64;
    let plans: Vec<Plan> = (0..connections).map(|index| Plan::random(seed, index)).collect();
    // A process that is born later would hold copies of all sockets until it runs its own program, and so delay the
    // closes of those that are closed meanwhile. The certificates are made by one, too.
    let process = |plan: &Plan| Mutex::new((plan.end == End::Exit).then(Actor::new));
    let processes: Vec<Mutex<Option<Actor>>> = plans.iter().map(process).collect();
    let (parties, servers, places) = (Parties::new(), Servers::new(), Places::new());
    let mut told = all(0..connections, AT_ONCE, |index| {
        let process = processes[index].lock().expect("no thread failed").take();
        life::live(index, &plans[index], &places, process).into_iter().map(Told::Socket).collect()
    });
    let of_each = connections.div_ceil(ONE_IN);
    let with_tls = connections..connections + of_each;
    let lookups = with_tls.end..with_tls.end + of_each;
    told.extend(all(with_tls, FEW_AT_ONCE, |index| {
        let plan = tls::Plan::random(seed, index);
        tls::live(index, &plan, &parties).into_iter().map(Told::Socket).collect()
    }));
    told.extend(all(lookups, FEW_AT_ONCE, |index| lookup::live(index, &lookup::Plan::random(seed, index), &servers)));
    told.push(Told::Socket(places.close()));
    for truth in told {
        println!("{}", serde_json::to_string(&truth)?);
    }
    Ok(())
}

/// Lets all of these live, so many at the same time; returns what is true of them.
fn all(indexes: Range<usize>, at_once: usize, live: impl Fn(usize) -> Vec<Told> + Sync) -> Vec<Told> {
    let next = AtomicUsize::new(indexes.start);
    let told: Mutex<Vec<Told>> = Mutex::default();
    thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= indexes.end {
                        break;
                    }
                    let lived = live(index);
                    told.lock().expect("no thread failed").extend(lived);
                }
            });
        }
    });
    told.into_inner().expect("no thread failed")
}

fn option(name: &str) -> Result<Option<usize>> {
    let mut args = env::args().skip_while(|arg| arg != name).skip(1);
    args.next().map(|value| value.parse().with_context(|| format!("{name} {value}"))).transpose()
}
