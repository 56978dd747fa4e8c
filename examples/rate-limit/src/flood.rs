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

/// A source that sends steadily, and looks what comes through.
pub struct Steady<'a> {
    network: &'a Network,
    source: IpAddr,
    port: u16,
    socket: UdpSocket,
    period: Duration,
    due: Instant,
    /// Packets that were sent.
    pub sent: u64,
    /// Of these, those that came through.
    pub received: u64,
}

impl<'a> Steady<'a> {
    /// Sends a packet each `period`, from now on.
    pub fn new(network: &'a Network, source: IpAddr, port: u16, period: Duration) -> Result<Self> {
        let socket = network.receiver(source, port)?;
        let due = Instant::now();
        Ok(Self { network, source, port, socket, period, due, sent: 0, received: 0 })
    }

    /// Sends what is due, and looks what has come.
    pub fn go_on(&mut self) -> Result<()> {
        if Instant::now() >= self.due {
            self.network.send(self.source, self.port)?;
            self.sent += 1;
            self.due = Instant::now().checked_add(self.period).unwrap_or(self.due);
        }
        self.receive()
    }

    /// Looks what has come.
    pub fn receive(&mut self) -> Result<()> {
        self.received += received(&self.socket)?;
        Ok(())
    }
}

/// Spoofed sources, and a known one.
pub struct Flood<'a> {
    network: &'a Network,
    sink: UdpSocket,
    /// The known source.
    pub known: Steady<'a>,
    /// Spoofed packets that were sent.
    pub spoofed: u32,
}

impl<'a> Flood<'a> {
    /// The known source sends a packet each `period`, from now on.
    pub fn new(network: &'a Network, period: Duration) -> Result<Self> {
        let sink = network.receiver(KNOWN, SINK_PORT)?;
        let known = Steady::new(network, KNOWN, KNOWN_PORT, period)?;
        Ok(Self { network, sink, known, spoofed: 0 })
    }

    /// Sends some spoofed packets, and what is due of the known source.
    pub fn go_on(&mut self) -> Result<()> {
        self.go_on_by(BATCH)
    }

    /// The same, with so many of the spoofed ones.
    pub fn go_on_by(&mut self, spoofed_packets: u32) -> Result<()> {
        for _ in 0..spoofed_packets {
            self.network.send(spoofed(self.spoofed), SINK_PORT)?;
            self.spoofed += 1;
        }
        self.known.go_on()?;
        // Packets for a socket that is full are not seen.
        received(&self.sink)?;
        Ok(())
    }

    /// Packets that were sent of both.
    pub fn sent(&self) -> u64 {
        u64::from(self.spoofed) + self.known.sent
    }
}

/// One of eight million addresses.
fn spoofed(number: u32) -> IpAddr {
    Ipv4Addr::from(0x0a00_0000 | (number & 0x7f_ffff)).into()
}
