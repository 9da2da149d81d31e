//! The steering program, instruction by instruction.
//!
//! A program of this type may not look into the packet directly: it loads by `BPF_LD | BPF_ABS`, which
//! turns to host order, and which ends the program with 0 where the packet is too short.

// linux/bpf_common.h and linux/bpf.h.
const LD: u8 = 0x00;
const LDX: u8 = 0x01;
const STX: u8 = 0x03;
const ST: u8 = 0x02;
const JMP: u8 = 0x05;
const ALU64: u8 = 0x07;
const W: u8 = 0x00;
const B: u8 = 0x10;
const DW: u8 = 0x18;
const IMM: u8 = 0x00;
const ABS: u8 = 0x20;
const MEM: u8 = 0x60;
const ADD: u8 = 0x00;
const RSH: u8 = 0x70;
const MOV: u8 = 0xB0;
const JA: u8 = 0x00;
const JEQ: u8 = 0x10;
const CALL: u8 = 0x80;
const EXIT: u8 = 0x90;
const K: u8 = 0x00;
const X: u8 = 0x08;
/// The second register field of a wide load says that the number is a map's descriptor.
const PSEUDO_MAP_FD: u8 = 1;
const MAP_LOOKUP_ELEM: i32 = 1;

/// `struct bpf_insn` in memory, as one number of the host.
const fn instruction(code: u8, to: u8, from: u8, offset: i16, number: i32) -> u64 {
    // The two register fields are bit fields: their places in the byte follow the host's order.
    let registers = if cfg!(target_endian = "little") {
        (from << 4) | to
    } else {
        (to << 4) | from
    };
    let [o0, o1] = offset.to_ne_bytes();
    let [n0, n1, n2, n3] = number.to_ne_bytes();
    u64::from_ne_bytes([code, registers, o0, o1, n0, n1, n2, n3])
}

/// The program for the map of this descriptor.
pub(super) fn steering(map: i32) -> [u64; 25] {
    let load = |size, at| instruction(LD | ABS | size, 0, 0, 0, at);
    let store = |at, register| instruction(STX | MEM | W, 10, register, at, 0);
    let store_number = |at, number| instruction(ST | MEM | W, 10, 0, at, number);
    [
        instruction(ALU64 | MOV | X, 6, 1, 0, 0), // r6 = the packet, where loads look for it
        load(B, 0),                               // r0 = version
        instruction(ALU64 | RSH | K, 0, 0, 0, 4),
        instruction(JMP | JEQ | K, 0, 0, 6, 6), // to IPv6
        // IPv4: 4, 0, destination.
        store_number(-16, 4),
        store_number(-12, 0),
        load(W, 16),
        store(-8, 0),
        instruction(ALU64 | MOV | X, 7, 0, 0, 0), // r7 = its own bits, if it is not in the map
        instruction(JMP | JA, 0, 0, 6, 0),        // to the look-up
        // IPv6: 6, upper 64 bits of the destination.
        store_number(-16, 6),
        load(W, 24),
        store(-12, 0),
        load(W, 28),
        store(-8, 0),
        instruction(ALU64 | MOV | X, 7, 0, 0, 0),
        // The look-up.
        instruction(LD | DW | IMM, 1, PSEUDO_MAP_FD, 0, map), // r1 = the map, two words
        0,
        instruction(ALU64 | MOV | X, 2, 10, 0, 0), // r2 = the key on the stack
        instruction(ALU64 | ADD | K, 2, 0, 0, -16),
        instruction(JMP | CALL, 0, 0, 0, MAP_LOOKUP_ELEM),
        instruction(JMP | JEQ | K, 0, 0, 1, 0),
        instruction(LDX | MEM | W, 7, 0, 0, 0), // r7 = the value
        instruction(ALU64 | MOV | X, 0, 7, 0, 0),
        instruction(JMP | EXIT, 0, 0, 0, 0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jumps_end_where_the_comments_say() {
        let program = steering(5);
        // An instruction's offset counts from the one behind it.
        assert_eq!(program[3 + 1 + 6], instruction(ST | MEM | W, 10, 0, -16, 6));
        assert_eq!(
            program[9 + 1 + 6],
            instruction(LD | DW | IMM, 1, PSEUDO_MAP_FD, 0, 5)
        );
        assert_eq!(
            program[21 + 1 + 1],
            instruction(ALU64 | MOV | X, 0, 7, 0, 0)
        );
    }
}
