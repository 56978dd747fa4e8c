//! Asks a list of addresses that is a DNS zone (RFC 5782): an address that is listed has, under its
//! digits turned around, an A record within 127.0.0.0/24.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};

use crate::policy::Addresses;

/// How often to look whether it is over.
const LOOK: Duration = Duration::from_millis(50);

/// What a list says of an address, and for how long that holds, if it says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listing {
    /// Whether it is listed.
    pub is_listed: bool,
    /// As the list says.
    pub ttl: Option<Duration>,
}

/// Why it is not known what the list says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// Nothing has come in time, or that the server cannot say.
    Silent(String),
    /// What has come is no answer.
    Lied(String),
}

/// A list, and who has it.
#[derive(Debug, Clone)]
pub struct List {
    server: SocketAddr,
    zone: Name,
    timeout: Duration,
    tries: u32,
}

impl List {
    /// As the policy says.
    pub fn new(addresses: &Addresses) -> Self {
        Self {
            server: addresses.server,
            zone: addresses.zone.clone(),
            timeout: Duration::from_millis(addresses.timeout_ms),
            tries: addresses.tries,
        }
    }

    /// What it says of an address. Takes no longer than all tries, or until it is over.
    ///
    /// # Errors
    ///
    /// Of the last try.
    pub fn ask(&self, address: IpAddr, is_over: &AtomicBool) -> Result<Listing, Failure> {
        let mut asked = self.ask_once(address, is_over);
        for _ in 1..self.tries {
            if asked.is_ok() {
                break;
            }
            asked = self.ask_once(address, is_over);
        }
        asked
    }

    fn ask_once(&self, address: IpAddr, is_over: &AtomicBool) -> Result<Listing, Failure> {
        let silent = |error: &dyn std::error::Error| Failure::Silent(error.to_string());
        let name = name(address, &self.zone).map_err(|error| silent(&error))?;
        let mut message = Message::new();
        message.set_id(rand::random()).set_message_type(MessageType::Query);
        message.set_op_code(OpCode::Query).set_recursion_desired(true);
        message.add_query(Query::query(name, RecordType::A));
        let bytes = message.to_vec().map_err(|error| silent(&error))?;
        // A port of its own, which who forges answers does not know; connected, so that the kernel
        // lets through what comes from the server only, and says if nobody is there.
        let any: IpAddr = if self.server.is_ipv4() {
            Ipv4Addr::UNSPECIFIED.into()
        } else {
            std::net::Ipv6Addr::UNSPECIFIED.into()
        };
        let socket = UdpSocket::bind((any, 0)).map_err(|error| silent(&error))?;
        socket.connect(self.server).map_err(|error| silent(&error))?;
        socket.send(&bytes).map_err(|error| silent(&error))?;
        let until = Instant::now() + self.timeout;
        let mut failure = Failure::Silent(format!("{} does not answer", self.server));
        let mut packet = [0; 4096];
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || is_over.load(Ordering::Relaxed) {
                return Err(failure);
            }
            socket.set_read_timeout(Some(left.min(LOOK))).map_err(|error| silent(&error))?;
            let length = match socket.recv(&mut packet) {
                Ok(length) => length,
                // The latter also of a process that was stopped and goes on.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                    ) =>
                {
                    continue;
                }
                Err(error) => return Err(silent(&error)),
            };
            match Message::from_vec(&packet[..length]) {
                Ok(answer) if is_answer(&message, &answer) => return listing(&message, &answer),
                // The right one may still come.
                Ok(_) => failure = Failure::Lied("it is the answer to another question".to_owned()),
                Err(error) => failure = Failure::Lied(error.to_string()),
            }
        }
    }
}

/// As the list has it: `2.0.0.127.zone`, or the 32 digits of an IPv6 address.
fn name(address: IpAddr, zone: &Name) -> Result<Name, hickory_proto::ProtoError> {
    let labels: Vec<String> = match address {
        IpAddr::V4(v4) => v4.octets().iter().rev().map(u8::to_string).collect(),
        IpAddr::V6(v6) => {
            let digits = v6.octets().into_iter().rev().flat_map(|byte| [byte & 15, byte >> 4]);
            digits.map(|digit| format!("{digit:x}")).collect()
        }
    };
    Name::from_labels(labels.iter().map(String::as_bytes))?.append_domain(zone)
}

fn is_answer(question: &Message, answer: &Message) -> bool {
    answer.id() == question.id()
        && answer.message_type() == MessageType::Response
        && answer.op_code() == OpCode::Query
        && answer.queries() == question.queries()
}

fn listing(question: &Message, answer: &Message) -> Result<Listing, Failure> {
    if answer.truncated() {
        return Err(Failure::Lied("it is cut".to_owned()));
    }
    match answer.response_code() {
        ResponseCode::NXDomain => return Ok(not_listed(answer)),
        ResponseCode::NoError => {}
        code => return Err(Failure::Silent(format!("the server says {code}"))),
    }
    let asked = question.queries().first().map(Query::name);
    let records = answer.answers().iter().filter(|record| asked == Some(record.name()));
    let mut addresses = records.filter_map(|record| match record.data() {
        RData::A(address) => Some((address.0, record.ttl())),
        _ => None,
    });
    let Some((address, ttl)) = addresses.next() else { return Ok(not_listed(answer)) };
    match address.octets() {
        // 127.0.0.1 is the answer of who answers all with himself, 127.255.255.* that of lists that
        // do not want to be asked.
        [127, 0, 0, last] if last > 1 => {
            Ok(Listing { is_listed: true, ttl: Some(Duration::from_secs(ttl.into())) })
        }
        _ => Err(Failure::Lied(format!("{address} means nothing"))),
    }
}

/// How long that holds is in the zone's SOA record (RFC 2308).
fn not_listed(answer: &Message) -> Listing {
    let ttl = answer.name_servers().iter().find_map(|record| match record.data() {
        RData::SOA(soa) => Some(Duration::from_secs(soa.minimum().min(record.ttl()).into())),
        _ => None,
    });
    Listing { is_listed: false, ttl }
}
