//! The guard of a cgroup, with real processes, DNS servers and a database.

mod blocklist;
mod connected;
mod digests;
mod lifecycle;
mod revoked;
mod service;
mod support;
mod verdicts;
mod zone;

use std::net::IpAddr;

fn ip(address: &str) -> IpAddr {
    address.parse().expect("an address")
}
