//! The guard of a cgroup, with real processes, a DNS server and a database.

mod connected;
mod digests;
mod lifecycle;
mod revoked;
mod service;
mod support;
mod verdicts;

use std::net::IpAddr;

fn ip(address: &str) -> IpAddr {
    address.parse().expect("an address")
}
