//! Asks a list of addresses that is a DNS zone (RFC 5782): an address that is listed has, under its
//! digits turned around, an A record within 127.0.0.0/24.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
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

    /// Whether it can be asked for all addresses: no name is longer than that of one of IPv6.
    pub(crate) fn check(&self) -> Result<(), hickory_proto::ProtoError> {
        name(Ipv6Addr::UNSPECIFIED.into(), &self.zone).map(drop)
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
            Ipv6Addr::UNSPECIFIED.into()
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
    let negative = negative_ttl(answer);
    match answer.response_code() {
        ResponseCode::NXDomain => return Ok(Listing { is_listed: false, ttl: negative }),
        ResponseCode::NoError => {}
        code => return Err(Failure::Silent(format!("the server says {code}"))),
    }
    if answer.answers().is_empty() {
        // Without an SOA record it may be a referral to another server.
        return match negative {
            Some(_) => Ok(Listing { is_listed: false, ttl: negative }),
            None => Err(Failure::Lied("it has neither an answer nor an SOA record".to_owned())),
        };
    }
    let asked = question.queries().first().map(Query::name);
    let records = answer.answers().iter().filter(|record| asked == Some(record.name()));
    let mut addresses = records.filter_map(|record| match record.data() {
        RData::A(address) => Some((address.0, record.ttl())),
        _ => None,
    });
    let Some((address, ttl)) = addresses.next() else {
        return Err(Failure::Lied("it has no address of what was asked for".to_owned()));
    };
    match address.octets() {
        // 127.0.0.1 is the answer of who answers all with himself, 127.255.255.* that of lists that
        // do not want to be asked.
        [127, 0, 0, last] if last > 1 => {
            Ok(Listing { is_listed: true, ttl: Some(Duration::from_secs(ttl.into())) })
        }
        _ => Err(Failure::Lied(format!("{address} means nothing"))),
    }
}

/// How long it holds that there is nothing, by the zone's SOA record (RFC 2308).
fn negative_ttl(answer: &Message) -> Option<Duration> {
    answer.name_servers().iter().find_map(|record| match record.data() {
        RData::SOA(soa) => Some(Duration::from_secs(soa.minimum().min(record.ttl()).into())),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::Record;
    use hickory_proto::rr::rdata::{A, CNAME, NS, SOA};

    use super::*;

    fn named(name: &str) -> Name {
        name.parse().expect("a name")
    }

    fn record(name: &str, data: RData) -> Record {
        Record::from_rdata(named(name), 60, data)
    }

    const ASKED: &str = "2.0.0.127.list.example.";

    /// What is made of these answers and authorities.
    fn read(
        code: ResponseCode,
        answers: &[Record],
        authorities: &[Record],
    ) -> Result<Listing, Failure> {
        let mut question = Message::new();
        question.add_query(Query::query(named(ASKED), RecordType::A));
        let mut answer = question.clone();
        answer.set_response_code(code);
        answer.add_answers(answers.to_vec()).add_name_servers(authorities.to_vec());
        listing(&question, &answer)
    }

    #[test]
    fn not_listed_is_only_what_the_zone_says_it_has_not() {
        let address = |name| record(name, RData::A(A::new(127, 0, 0, 2)));
        let soa = SOA::new(named("list.example."), named("list.example."), 1, 1, 1, 1, 30);
        let soa = [record("list.example.", RData::SOA(soa))];
        let servers = [record("list.example.", RData::NS(NS(named("ns.example."))))];
        let alias = record(ASKED, RData::CNAME(CNAME(named("other.example."))));
        let ok = ResponseCode::NoError;
        let not_listed =
            |ttl| Ok(Listing { is_listed: false, ttl: Option::map(ttl, Duration::from_secs) });
        assert_eq!(read(ResponseCode::NXDomain, &[], &soa), not_listed(Some(30)));
        assert_eq!(read(ResponseCode::NXDomain, &[], &[]), not_listed(None));
        assert_eq!(read(ok, &[], &soa), not_listed(Some(30)));
        let listed = Listing { is_listed: true, ttl: Some(Duration::from_secs(60)) };
        assert_eq!(read(ok, &[address(ASKED)], &[]), Ok(listed));
        for (what, answers, authorities) in [
            ("nothing", &[][..], &[][..]),
            ("a referral", &[], &servers),
            ("an alias", std::slice::from_ref(&alias), &soa),
            ("an alias and its address", &[alias.clone(), address("other.example.")], &[]),
            ("another address", &[address("3.0.0.127.list.example.")], &soa),
        ] {
            let read = read(ok, answers, authorities);
            assert!(matches!(read, Err(Failure::Lied(_))), "{what}: {read:?}");
        }
    }
}
