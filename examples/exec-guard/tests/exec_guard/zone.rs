//! The answers of a list of addresses: for a server that is to lie about them, or be slow.

use std::collections::HashSet;
use std::net::IpAddr;

use anyhow::Result;
use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::{A, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};

/// What it answers.
#[derive(Debug, Clone)]
pub struct Zone {
    name: Name,
    ttl_s: u32,
    listed: HashSet<Name>,
}

impl Zone {
    /// A list of addresses.
    pub fn new(name: &Name, ttl_s: u32, listed: &[IpAddr]) -> Result<Self> {
        let listed = listed.iter().map(|address| reversed(*address, name));
        Ok(Self { name: name.clone(), ttl_s, listed: listed.collect::<Result<_>>()? })
    }

    /// To a packet that is a question.
    pub fn answer(&self, packet: &[u8]) -> Result<Vec<u8>> {
        let question = Message::from_vec(packet)?;
        let mut answer = Message::new();
        answer.set_id(question.id()).set_message_type(MessageType::Response);
        answer.set_authoritative(true).add_queries(question.queries().to_vec());
        for query in question.queries() {
            let name = query.name().to_lowercase();
            if !self.name.zone_of(&name) {
                answer.set_response_code(ResponseCode::Refused);
            } else if !self.listed.contains(&name) {
                answer.set_response_code(ResponseCode::NXDomain);
                answer.add_name_server(self.soa());
            } else if query.query_type() == RecordType::A {
                let listed = RData::A(A::new(127, 0, 0, 2));
                answer.add_answer(Record::from_rdata(query.name().clone(), self.ttl_s, listed));
            } else {
                answer.add_name_server(self.soa());
            }
        }
        Ok(answer.to_vec()?)
    }

    fn soa(&self) -> Record {
        let (name, ttl) = (self.name.clone(), i32::try_from(self.ttl_s).unwrap_or(i32::MAX));
        let soa = SOA::new(name.clone(), name.clone(), 1, ttl, ttl, ttl, self.ttl_s);
        Record::from_rdata(name, self.ttl_s, RData::SOA(soa))
    }
}

/// Not as `dnsbl` does it: by what the standard has for names of addresses.
fn reversed(address: IpAddr, zone: &Name) -> Result<Name> {
    let arpa = Name::from(address);
    // Without in-addr.arpa, or ip6.arpa.
    let labels: Vec<&[u8]> = arpa.iter().collect();
    let own = Name::from_labels(labels[..labels.len() - 2].to_vec())?;
    Ok(own.append_domain(zone)?)
}
