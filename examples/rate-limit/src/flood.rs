//! A flood of packets, each of a source that nobody has seen, and a known source among them.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::network::{Network, received};

const SINK_PORT: u16 = 9;
const KNOWN_PORT: u16 = 10;

/// Spoofed packets between two looks at the clock.
const BATCH: u32 = 64;

/// The known source, which is none of the spoofed ones.
pub const KNOWN: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 128, 0, 1));

/// Both of them.
pub struct Flood<'a> {
    network: &'a Network,
    sink: UdpSocket,
    known: UdpSocket,
    period: Duration,
    due: Instant,
    /// Spoofed packets that were sent.
    pub spoofed: u32,
    /// Packets of the known source that were sent.
    pub known_sent: u64,
    /// Of these, those that came through.
    pub known_received: u64,
}

impl<'a> Flood<'a> {
    /// The known source sends a packet each `period`, from now on.
    pub fn new(network: &'a Network, period: Duration) -> Result<Self> {
        let sink = network.receiver(KNOWN, SINK_PORT)?;
        let known = network.receiver(KNOWN, KNOWN_PORT)?;
        let due = Instant::now();
        Ok(Self { network, sink, known, period, due, spoofed: 0, known_sent: 0, known_received: 0 })
    }

    /// Sends some spoofed packets, and what is due of the known source.
    pub fn go_on(&mut self) -> Result<()> {
        for _ in 0..BATCH {
            self.network.send(spoofed(self.spoofed), SINK_PORT)?;
            self.spoofed += 1;
        }
        self.known()?;
        // Packets for a socket that is full are not seen.
        received(&self.sink)?;
        Ok(())
    }

    /// Sends what is due of the known source, and looks what has come.
    pub fn known(&mut self) -> Result<()> {
        if Instant::now() >= self.due {
            self.network.send(KNOWN, KNOWN_PORT)?;
            self.known_sent += 1;
            self.due = Instant::now().checked_add(self.period).unwrap_or(self.due);
        }
        self.receive()
    }

    /// Looks what has come of the known source.
    pub fn receive(&mut self) -> Result<()> {
        self.known_received += received(&self.known)?;
        Ok(())
    }
}

/// One of eight million addresses.
fn spoofed(number: u32) -> IpAddr {
    Ipv4Addr::from(0x0a00_0000 | (number & 0x7f_ffff)).into()
}
