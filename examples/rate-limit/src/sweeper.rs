//! Buckets that are full again are removed by user space, as where the kernel has no workqueue.

use std::time::Duration;

use anyhow::Result;
use libbpf_rs::{MapCore, MapFlags};
use nix::time::{ClockId, clock_gettime};

use crate::maps::words;

/// Removes the buckets that are full by now. Returns how many there were.
///
/// Nobody else may remove buckets of this map.
pub fn sweep(buckets: &impl MapCore) -> Result<u32> {
    let now = u64::try_from(Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC)?).as_nanos())?;
    let (mut full, mut count) = (Vec::new(), 0);
    // libbpf-rs takes a batch with a place left for the last one, but a hash's are seldom without:
    // one for all.
    let all = buckets.max_entries();
    for (source, bucket) in buckets.lookup_batch(all, MapFlags::ANY, MapFlags::ANY)? {
        let [full_at] = words(&bucket)?;
        if full_at <= now {
            full.extend(source);
            count += 1;
        }
    }
    if count > 0 {
        buckets.delete_batch(&full, count, MapFlags::ANY, MapFlags::ANY)?;
    }
    Ok(count)
}
