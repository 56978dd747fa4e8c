//! What a loader is to do with its life, by a seed: the same seed, the same life.

use std::time::Duration;

use fastrand::Rng;

/// A hash whose elements have workqueues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hash {
    /// Its elements are there before they are added.
    Elems,
    /// Its elements are allocated.
    Loose,
    /// It makes room by evicting elements.
    Recent,
}

impl Hash {
    /// All of them, as `torture.bpf.c` counts them.
    pub const ALL: [Hash; 3] = [Hash::Elems, Hash::Loose, Hash::Recent];

    /// The map's name.
    pub fn name(self) -> &'static str {
        match self {
            Hash::Elems => "elems",
            Hash::Loose => "loose",
            Hash::Recent => "recent",
        }
    }
}

/// One thing that a loader does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Attach the program of a type, unless it is.
    Attach(String),
    /// Detach it, if it is attached.
    Detach(String),
    /// Let it run, if it is attached or needs not be.
    Cause(String, u32),
    /// Submit jobs.
    Submit(u32),
    /// Cancel the newest jobs.
    Cancel(u32),
    /// Add elements from a key on, and arm them. In the hash that evicts they push out others.
    Add(Hash, u32, u32),
    /// Update elements from a key on, that are there.
    Update(Hash, u32, u32),
    /// Delete elements from a key on.
    Delete(Hash, u32, u32),
    /// Submit elements from a key on so many times.
    Start(Hash, u32, u32),
    /// Forbid the cgroup more memory than it has.
    Squeeze,
    /// Allow it more again.
    Release,
    /// Die by SIGKILL, whatever else goes on.
    Die,
}

impl Op {
    /// The hash that it is about.
    pub fn hash(&self) -> Option<Hash> {
        match *self {
            Op::Add(hash, ..) | Op::Update(hash, ..) | Op::Delete(hash, ..) => Some(hash),
            Op::Start(hash, ..) => Some(hash),
            _ => None,
        }
    }

    /// What it is counted as.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Attach(_) => "attach",
            Op::Detach(_) => "detach",
            Op::Cause(..) => "let run",
            Op::Submit(_) => "submit",
            Op::Cancel(_) => "cancel",
            Op::Add(Hash::Recent, ..) => "add and evict",
            Op::Add(..) => "add",
            Op::Update(..) => "update",
            Op::Delete(..) => "delete",
            Op::Start(..) => "start",
            Op::Squeeze => "squeeze",
            Op::Release => "release",
            Op::Die => "die",
        }
    }
}

/// How it is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Drain, and unload.
    Stop,
    /// Drop the handle, and go on living for a moment.
    Drop,
    /// End the process.
    Exit,
    /// Be killed at one of its operations.
    Kill,
    /// Be killed so long after it has begun to load, to take over or to pin.
    KillEarly(Duration),
}

impl End {
    /// What it is counted as.
    pub fn name(self) -> &'static str {
        match self {
            End::Stop => "stopped",
            End::Drop => "dropped",
            End::Exit => "exited",
            End::Kill => "killed",
            End::KillEarly(_) => "killed early",
        }
    }

    /// Whether it is a signal that ends it.
    pub fn is_kill(self) -> bool {
        matches!(self, End::Kill | End::KillEarly(_))
    }
}

/// What the process of one loader does, from loading to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Life {
    /// The types of its programs.
    pub types: Vec<String>,
    /// The hashes whose workqueues it has; it has the executor in any case.
    pub hashes: Vec<Hash>,
    /// Whether it pins, and goes on with what is pinned.
    pub is_pinned: bool,
    /// Whether its object is of another build, which replaces what is pinned.
    pub is_other_build: bool,
    /// The most memory that it may have. What it does may fail then.
    pub limit: Option<u64>,
    /// What each of its three threads does: one has the programs, one the elements and jobs, and one
    /// only starts elements.
    pub hands: [Vec<Op>; 3],
    /// How it ends.
    pub end: End,
}

impl Life {
    /// Of the loader of an actor that is the `number`th one, with programs of some of these types.
    pub fn plan(seed: u64, actor: u32, number: u32, types: &[String]) -> Self {
        let mut rng = rng(seed, actor, number);
        let mut chosen = vec![dealt(seed, actor, number, types)];
        for _ in 0..rng.usize(..3) {
            let name = rng.choice(types).expect("there are types");
            if chosen.iter().all(|other| other != name && !disturb(other, name)) {
                chosen.push(name.clone());
            }
        }
        // To verify their programs is most of what a life takes.
        let hashes: Vec<Hash> = Hash::ALL.into_iter().filter(|_| rng.bool()).collect();
        let is_pinned = rng.u8(..3) == 0;
        let end = match rng.u8(..8) {
            0 | 1 => End::Stop,
            2 if !is_pinned => End::Drop,
            2 | 3 => End::Exit,
            4 => End::KillEarly(Duration::from_millis(rng.u64(1..3000))),
            _ => End::Kill,
        };
        let mebibytes = |number: u64| number << 20;
        let limit = (rng.u8(..3) == 0).then(|| mebibytes(rng.u64(8..96)));
        let steps = rng.usize(50..300);
        let mut hands = [
            (0..steps).map(|_| of_programs(&mut rng, &chosen)).collect::<Vec<_>>(),
            (0..steps).map(|_| of_elements(&mut rng, &hashes, limit.is_some())).collect(),
            (0..steps).filter_map(|_| start(&mut rng, &hashes)).collect(),
        ];
        if end == End::Kill {
            let at = rng.usize(..=steps);
            hands[1].insert(at, Op::Die);
        }
        let is_other_build = is_pinned && rng.bool();
        Life { types: chosen, hashes, is_pinned, is_other_build, limit, hands, end }
    }

    /// Whether something of it takes elements away, of which submissions are lost then.
    pub fn loses_elements(&self) -> bool {
        let takes_away =
            |op: &Op| matches!(op, Op::Update(..) | Op::Delete(..) | Op::Add(Hash::Recent, ..));
        self.hands.iter().flatten().any(takes_away)
    }
}

fn rng(seed: u64, actor: u32, number: u32) -> Rng {
    // Neighbours have nothing in common: the generator itself spreads what it is seeded with.
    let life = (u64::from(actor) << 32 | u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    Rng::with_seed(seed.rotate_left(17) ^ life)
}

/// The type that a life has in any case: each actor comes through all of them, in an order that
/// follows from the seed, and the first ones begin far apart.
fn dealt(seed: u64, actor: u32, number: u32, types: &[String]) -> String {
    let mut order: Vec<&String> = types.iter().collect();
    Rng::with_seed(seed).shuffle(&mut order);
    let begins = actor as usize * order.len() / 3 + actor as usize / 3;
    order[(begins + number as usize) % order.len()].clone()
}

/// Whether programs of both types are not for one life: that of XDP drops what it sees, and nobody
/// is connected then.
fn disturb(one: &str, other: &str) -> bool {
    let is_connected = |name| matches!(name, "sockops" | "sk_msg" | "struct_ops");
    one == "xdp" && is_connected(other) || other == "xdp" && is_connected(one)
}

fn of_programs(rng: &mut Rng, types: &[String]) -> Op {
    let name = rng.choice(types).expect("it has types").clone();
    match rng.u8(..8) {
        0 | 1 => Op::Attach(name),
        2 => Op::Detach(name),
        _ => Op::Cause(name, rng.u32(1..20)),
    }
}

fn of_elements(rng: &mut Rng, hashes: &[Hash], is_limited: bool) -> Op {
    match rng.u8(..20) {
        0 if is_limited => Op::Squeeze,
        1 if is_limited => Op::Release,
        ..=2 => Op::Cancel(rng.u32(1..20)),
        3..=6 => Op::Submit(rng.u32(1..80)),
        what => of_hash(rng, hashes, what).unwrap_or_else(|| Op::Submit(rng.u32(1..80))),
    }
}

fn of_hash(rng: &mut Rng, hashes: &[Hash], what: u8) -> Option<Op> {
    let hash = *rng.choice(hashes)?;
    // Twice as many keys as there is room for in the hash that evicts.
    let (key, count) = (rng.u32(..32), rng.u32(1..8));
    match what {
        7..=11 => Some(Op::Add(hash, key, count)),
        12 | 13 => Some(Op::Update(hash, key, count)),
        14 | 15 => Some(Op::Delete(hash, key, count)),
        _ => start(rng, hashes),
    }
}

fn start(rng: &mut Rng, hashes: &[Hash]) -> Option<Op> {
    let hash = *rng.choice(hashes)?;
    Some(Op::Start(hash, rng.u32(..32), rng.u32(1..40)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn types() -> Vec<String> {
        crate::run::TYPES.map(str::to_owned).to_vec()
    }

    #[test]
    fn every_type_comes_to_every_actor() {
        let types = types();
        for actor in 0..16 {
            for first in [0, 7] {
                let lives = (first..first + types.len() as u32)
                    .map(|number| Life::plan(1, actor, number, &types));
                let has: std::collections::BTreeSet<String> =
                    lives.map(|life| life.types[0].clone()).collect();
                assert_eq!(has.len(), types.len(), "actor {actor}, from {first} on: {has:?}");
            }
        }
        let first = [0, 1, 2].map(|actor| dealt(1, actor, 0, &types));
        assert!(first[0] != first[1] && first[1] != first[2] && first[2] != first[0], "{first:?}");
    }

    #[test]
    fn the_same_seed_is_the_same_life() {
        for number in 0..50 {
            let life = Life::plan(7, 1, number, &types());
            assert_eq!(life, Life::plan(7, 1, number, &types()));
            for other in [(8, 1, number), (7, 2, number), (7, 1, number + 1)] {
                let (seed, actor, number) = other;
                assert_ne!(life, Life::plan(seed, actor, number, &types()), "{other:?}");
            }
        }
    }

    #[test]
    fn only_who_is_to_be_killed_dies() {
        for number in 0..500 {
            let life = Life::plan(1, 0, number, &types());
            let deaths = life.hands.iter().flatten().filter(|op| **op == Op::Die).count();
            assert_eq!(deaths, usize::from(life.end == End::Kill), "{life:?}");
            assert!(!(life.is_pinned && life.end == End::Drop), "{life:?}");
            assert!(life.is_pinned || !life.is_other_build, "{life:?}");
        }
    }

    #[test]
    fn every_kind_of_life_comes() {
        let lives: Vec<Life> = (0..500).map(|number| Life::plan(1, 0, number, &types())).collect();
        for end in ["stopped", "dropped", "exited", "killed", "killed early"] {
            assert!(lives.iter().any(|life| life.end.name() == end), "{end}");
        }
        for name in types() {
            assert!(lives.iter().any(|life| life.types.contains(&name)), "{name}");
        }
        let has = |life: &Life, name| life.types.iter().any(|other| other == name);
        for name in ["sockops", "sk_msg", "struct_ops"] {
            assert!(!lives.iter().any(|life| has(life, "xdp") && has(life, name)), "{name}");
        }
        let names: std::collections::BTreeSet<&str> =
            lives.iter().flat_map(|life| life.hands.iter().flatten()).map(Op::name).collect();
        assert_eq!(names.len(), 13, "{names:?}");
        for (what, is_so) in [
            ("pinned", lives.iter().any(|life| life.is_pinned && life.end == End::Stop)),
            ("other", lives.iter().any(|life| life.is_other_build)),
            ("limited", lives.iter().any(|life| life.limit.is_some())),
        ] {
            assert!(is_so, "{what}");
        }
    }
}
