//! What is in the registers when a function calls something.
//!
//! Constants, maps and functions are followed from where they are loaded, and a map's elements
//! from where they are looked up, along every path, through moves between registers. What was
//! on the stack or differs from path to path is unknown.

use std::rc::Rc;

use super::elf::{CALL, Callee, Function, FunctionId, Instruction, LOAD_64, Loaded, Reference};

/// What is known of a register.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Value {
    #[default]
    Unknown,
    Number(i64),
    Map(Rc<str>),
    Function(FunctionId),
    /// An address in an element of a map.
    Element(Rc<str>),
}

/// bpf_map_lookup_elem.
const LOOKUP: Callee = Callee::Helper(1);

/// r1 to r5.
pub(crate) type Arguments = [Value; 5];

/// A call, and its five arguments.
#[derive(Debug)]
pub(crate) struct Call {
    /// Where it is.
    pub function: FunctionId,
    pub callee: Callee,
    pub arguments: Arguments,
}

/// r0 to r10, and five that no valid instruction names.
type Registers = [Value; 16];

/// All calls that the function can come to, if it is called with these arguments.
pub(crate) fn calls(id: FunctionId, function: &Function, arguments: &Arguments) -> Vec<Call> {
    let code = &function.instructions;
    let mut before: Vec<Option<Registers>> = vec![None; code.len()];
    let mut waiting = Vec::new();
    let mut registers = Registers::default();
    registers[1..6].clone_from_slice(arguments);
    meet(&mut before, &mut waiting, 0, &registers);
    while let Some(at) = waiting.pop() {
        let (Some(instruction), Some(Some(registers))) = (code.get(at), before.get(at)) else {
            continue;
        };
        let after = after(instruction, registers);
        for next in successors(instruction, at) {
            meet(&mut before, &mut waiting, next, &after);
        }
    }
    let reached = code.iter().zip(&before);
    reached
        .filter_map(|(instruction, registers)| match (&instruction.reference, registers) {
            (Reference::Call(callee), Some([_, a, b, c, d, e, ..])) => {
                let arguments = [a, b, c, d, e].map(Clone::clone);
                Some(Call { function: id, callee: callee.clone(), arguments })
            }
            _ => None,
        })
        .collect()
}

/// Notes that `at` can be come to with these registers, and looks at it again if that is news.
/// A register can only become unknown, so this ends.
fn meet(
    before: &mut [Option<Registers>],
    waiting: &mut Vec<usize>,
    at: usize,
    registers: &Registers,
) {
    let Some(known) = before.get_mut(at) else { return };
    match known {
        None => *known = Some(registers.clone()),
        Some(known) => {
            let mut is_news = false;
            for (known, register) in known.iter_mut().zip(registers) {
                if known != register && *known != Value::Unknown {
                    *known = Value::Unknown;
                    is_news = true;
                }
            }
            if !is_news {
                return;
            }
        }
    }
    waiting.push(at);
}

// The parts of an instruction's code, as the kernel's documentation names them.
const CLASS: u8 = 0x07;
const LDX: u8 = 0x01;
const LD: u8 = 0x00;
const STX: u8 = 0x03;
const ALU: u8 = 0x04;
const JMP: u8 = 0x05;
const JMP32: u8 = 0x06;
const ALU64: u8 = 0x07;
const OPERATION: u8 = 0xf0;
const ADD: u8 = 0x00;
const MOV: u8 = 0xb0;
const JA: u8 = 0x00;
const EXIT: u8 = 0x90;
const CALL_ANY: u8 = 0x80;
const FROM_REGISTER: u8 = 0x08;
const MODE: u8 = 0xe0;
const ATOMIC: u8 = 0xc0;
const FETCH: i32 = 0x01;
const COMPARE_AND_EXCHANGE: i32 = 0xf1;

fn after(instruction: &Instruction, registers: &Registers) -> Registers {
    let mut after = registers.clone();
    let value = match instruction.code & CLASS {
        LD if instruction.code == LOAD_64 => match &instruction.reference {
            Reference::Load(Loaded::Number(number)) => Value::Number(*number),
            Reference::Load(Loaded::Map(map)) => Value::Map(map.clone()),
            Reference::Load(Loaded::Function(function)) => Value::Function(*function),
            _ => Value::Unknown,
        },
        // Of a packet, into r0; it keeps none of r1 to r5.
        LD => {
            after[..6].fill(Value::Unknown);
            return after;
        }
        LDX => Value::Unknown,
        ALU | ALU64 => moved(instruction, registers),
        STX if instruction.code & MODE == ATOMIC => {
            if instruction.number == COMPARE_AND_EXCHANGE {
                after[0] = Value::Unknown;
            } else if instruction.number & FETCH != 0 {
                after[instruction.src] = Value::Unknown;
            }
            return after;
        }
        JMP if instruction.code & OPERATION == CALL_ANY => {
            after[..6].fill(Value::Unknown);
            after[0] = returned(instruction, registers);
            return after;
        }
        _ => return after,
    };
    after[instruction.dst] = value;
    after
}

fn returned(instruction: &Instruction, registers: &Registers) -> Value {
    match (&instruction.reference, &registers[1]) {
        (Reference::Call(callee), Value::Map(map)) if *callee == LOOKUP => {
            Value::Element(map.clone())
        }
        _ => Value::Unknown,
    }
}

/// What an arithmetic instruction leaves in its destination.
fn moved(instruction: &Instruction, registers: &Registers) -> Value {
    if instruction.code & (CLASS | OPERATION) == ALU64 | ADD {
        let is_from_register = instruction.code & FROM_REGISTER != 0;
        let added = is_from_register.then_some(&registers[instruction.src]);
        let element = [Some(&registers[instruction.dst]), added].into_iter().flatten();
        let mut element = element.filter(|value| matches!(value, Value::Element(_)));
        return element.next().cloned().unwrap_or_default();
    }
    if instruction.code & OPERATION != MOV || instruction.offset != 0 {
        return Value::Unknown;
    }
    let is_64_bits = instruction.code & CLASS == ALU64;
    if instruction.code & FROM_REGISTER == 0 {
        let number = i64::from(instruction.number);
        return Value::Number(if is_64_bits { number } else { number & 0xffff_ffff });
    }
    match &registers[instruction.src] {
        Value::Number(number) if !is_64_bits => Value::Number(number & 0xffff_ffff),
        _ if !is_64_bits => Value::Unknown,
        value => value.clone(),
    }
}

fn successors(instruction: &Instruction, at: usize) -> impl Iterator<Item = usize> {
    let is_jump = matches!(instruction.code & CLASS, JMP | JMP32) && instruction.code != CALL;
    let operation = instruction.code & OPERATION;
    let (falls_through, away) = match instruction.code {
        LOAD_64 => (false, Some(1)),
        _ if !is_jump => (true, None),
        _ if operation == EXIT => (false, None),
        _ if operation == JA && instruction.code & CLASS == JMP32 => {
            (false, Some(i64::from(instruction.number)))
        }
        _ if operation == JA => (false, Some(i64::from(instruction.offset))),
        _ => (true, Some(i64::from(instruction.offset))),
    };
    let next = falls_through.then_some(at + 1);
    // A place outside of the function is none, which meet() finds.
    let target = away.and_then(|away| usize::try_from((at as i64).saturating_add(1 + away)).ok());
    next.into_iter().chain(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instruction(code: u8, dst: usize, src: usize, offset: i16, number: i32) -> Instruction {
        Instruction { code, dst, src, offset, number, reference: Reference::None }
    }

    fn map(dst: usize, name: &str) -> [Instruction; 2] {
        let mut load = instruction(LOAD_64, dst, 0, 0, 0);
        load.reference = Reference::Load(Loaded::Map(name.into()));
        [load, instruction(0, 0, 0, 0, 0)]
    }

    fn call() -> Instruction {
        let mut call = instruction(CALL, 0, 0, 0, 1);
        call.reference = Reference::Call(Callee::Helper(1));
        call
    }

    fn arguments(instructions: impl IntoIterator<Item = Instruction>) -> Vec<Arguments> {
        let instructions = instructions.into_iter().collect();
        let function = Function { name: String::new(), instructions };
        let found = calls(0, &function, &Arguments::default());
        found.into_iter().map(|call| call.arguments).collect()
    }

    const EXIT: Instruction = Instruction {
        code: 0x95,
        dst: 0,
        src: 0,
        offset: 0,
        number: 0,
        reference: Reference::None,
    };

    #[test]
    fn follows_a_move_and_forgets_at_a_call() {
        let [load, half] = map(6, "m");
        let to_r1 = instruction(0xbf, 1, 6, 0, 0);
        let found = arguments([load, half, to_r1.clone(), call(), call(), to_r1, call(), EXIT]);
        let firsts: Vec<&Value> = found.iter().map(|arguments| &arguments[0]).collect();
        let m = Value::Map("m".into());
        assert_eq!(firsts, [&m, &Value::Unknown, &m]);
    }

    #[test]
    fn an_element_is_of_the_map_it_was_looked_up_in() {
        let [load, half] = map(1, "m");
        let lookup = Instruction { reference: Reference::Call(LOOKUP), ..call() };
        let to_r1 = instruction(0xbf, 1, 0, 0, 0);
        let [add, subtract] = [0x07, 0x17].map(|code| instruction(code, 1, 0, 0, 8));
        for (then, expected) in [(add, Value::Element("m".into())), (subtract, Value::Unknown)] {
            let lookup = [load.clone(), half.clone(), lookup.clone(), to_r1.clone()];
            let found = arguments([&lookup[..], &[then, call(), EXIT]].concat());
            assert_eq!(found[1][0], expected);
        }
    }

    #[test]
    fn paths_that_differ_are_unknown() {
        let [load, half] = map(1, "m");
        let [other, its_half] = map(1, "n");
        let skip = instruction(0x15, 0, 0, 2, 0);
        let found = arguments([load, half, skip, other, its_half, call(), EXIT]);
        assert_eq!(found[0][0], Value::Unknown);
    }

    #[test]
    fn a_loop_ends_and_dead_code_is_not_looked_at() {
        let back = instruction(0x05, 0, 0, -2, 0);
        let one = instruction(0xb7, 4, 0, 0, 1);
        let found = arguments([one, call(), back, call()]);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0][3], Value::Unknown);
    }

    #[test]
    fn a_jump_out_of_the_function_is_no_panic() {
        for offset in [i16::MIN, i16::MAX] {
            assert!(arguments([instruction(0x05, 0, 0, offset, 0)]).is_empty());
        }
    }
}
