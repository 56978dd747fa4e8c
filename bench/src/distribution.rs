//! What many measurements of one thing come to.

use serde::{Deserialize, Serialize};

/// How measurements are spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Distribution {
    /// How many there are.
    pub samples: u64,
    /// The least.
    pub min: u64,
    /// What half of them do not exceed.
    pub p50: u64,
    /// What 90 of 100 do not exceed.
    pub p90: u64,
    /// What 99 of 100 do not exceed.
    pub p99: u64,
    /// What 999 of 1000 do not exceed.
    pub p999: u64,
    /// The most.
    pub max: u64,
}

impl Distribution {
    /// Of at least one measurement.
    pub fn of(mut samples: Vec<u64>) -> Option<Self> {
        samples.sort_unstable();
        let (min, max) = (*samples.first()?, *samples.last()?);
        let rank = |per_mille| percentile(&samples, per_mille);
        Some(Self {
            samples: samples.len() as u64,
            min,
            p50: rank(500),
            p90: rank(900),
            p99: rank(990),
            p999: rank(999),
            max,
        })
    }
}

/// The least of sorted samples that so many of a thousand do not exceed.
fn percentile(sorted: &[u64], per_mille: usize) -> u64 {
    let rank = (sorted.len() * per_mille).div_ceil(1000).max(1);
    sorted[rank - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_thousand_each_percentile_is_its_number() {
        // Not in order.
        let samples = (1..=1000).map(|n| (n * 7) % 1000 + 1).collect();
        let spread = Distribution::of(samples).expect("there are some");
        assert_eq!((spread.samples, spread.min, spread.max), (1000, 1, 1000));
        let found = [spread.p50, spread.p90, spread.p99, spread.p999];
        assert_eq!(found, [500, 900, 990, 999]);
    }

    #[test]
    fn few_samples_have_no_percentile_beyond_the_most() {
        let spread = Distribution::of(vec![3]).expect("there is one");
        assert_eq!((spread.min, spread.p50, spread.p999, spread.max), (3, 3, 3, 3));
        let spread = Distribution::of(vec![20, 10]).expect("there are two");
        assert_eq!((spread.p50, spread.p90, spread.max), (10, 20, 20));
        assert_eq!(Distribution::of(vec![]), None);
    }
}
