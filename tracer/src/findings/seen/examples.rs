//! The dearest examples of something.

use crate::{
    findings::finding::Example,
    track::record::{ConnectionId, Nanos, WallTime},
};

/// How many are kept.
const KEPT: usize = 3;

/// Up to three connections, the dearest first.
#[derive(Clone, Debug, Default)]
pub struct Examples(Vec<(Nanos, Example)>);

impl Examples {
    /// Takes one, if it is among the dearest.
    pub fn add(&mut self, connection: ConnectionId, at: Option<WallTime>, cost: Nanos, what: impl FnOnce() -> String) {
        let place = self.0.partition_point(|(dearer, _)| *dearer >= cost);
        if place < KEPT {
            self.0.truncate(KEPT - 1);
            self.0.insert(place, (cost, Example { connection, at, what: what() }));
        }
    }

    /// Them all.
    pub fn list(&self) -> Vec<Example> {
        self.0.iter().map(|(_, example)| example.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_dearest_are_kept() {
        let mut examples = Examples::default();
        for cost in [5, 1, 9, 7, 3, 8] {
            examples.add(ConnectionId { socket: cost, life: 0 }, None, cost, || cost.to_string());
        }
        let kept: Vec<_> = examples.list().into_iter().map(|example| example.what).collect();
        assert_eq!(kept, ["9", "8", "7"]);
    }
}
