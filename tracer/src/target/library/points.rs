//! Where in a function the probe for its entry goes: where it costs least.
//!
//! A probe replaces an instruction. The kernel emulates a few (pushes, jumps, calls); any other it executes elsewhere, which takes a
//! second trap: 800 instructions more each time (6.12). So the probe for the entry goes on the first instruction that the kernel
//! emulates, if every call comes by there and the arguments are still where they were.

use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, OpAccess, OpKind, Register,
};
use tracer_ebpf::ssl::FRAME_MASK;

/// Longest stretch of a function's beginning that is looked at, in bytes.
const PROLOGUE: u64 = 64;

/// Registers that hold arguments: of C functions (System V, up to four), and of Go's.
const C_ARGUMENTS: &[Register] = &[Register::RDI, Register::RSI, Register::RDX, Register::RCX];
const GO_ARGUMENTS: &[Register] = &[Register::RAX, Register::RBX, Register::RCX, Register::R14];

/// By which convention a function is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Convention {
    /// C's.
    C,
    /// Go's, by registers (1.17 on).
    Go,
}

/// Where the probe for a function's entry goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// In bytes from its first instruction.
    pub offset: u64,
    /// How many bytes lie there between the top of the stack and where it was when the function was called.
    pub frame: u64,
}

/// Where the probe for a function's entry goes; `code` is the function's.
pub fn entry(code: &[u8], convention: Convention) -> Entry {
    let arguments = match convention {
        Convention::C => C_ARGUMENTS,
        Convention::Go => GO_ARGUMENTS,
    };
    let mut factory = InstructionInfoFactory::new();
    let mut frame = 0;
    // What is jumped back to is executed more than once a call.
    let jumped_to: Vec<u64> = instructions(code).map(|instruction| instruction.near_branch_target()).collect();
    for instruction in instructions(code).take_while(|instruction| instruction.ip() < PROLOGUE) {
        if instruction.is_invalid() {
            break;
        }
        if instruction.ip() > 0 && jumped_to.contains(&instruction.ip()) {
            break;
        }
        if is_emulated(&instruction) {
            return if frame <= FRAME_MASK { Entry { offset: instruction.ip(), frame } } else { Entry::default() };
        }
        if let Some(bytes) = taken_of_stack(&instruction) {
            frame += bytes;
            continue;
        }
        let used = factory.info(&instruction).used_registers();
        let is_lost = used.iter().any(|used| {
            let is_written = !matches!(used.access(), OpAccess::None | OpAccess::Read | OpAccess::CondRead);
            let register = used.register().full_register();
            // A probe must find where the call returns to.
            is_written && (arguments.contains(&register) || register == Register::RSP)
        });
        if is_lost || instruction.flow_control() != FlowControl::Next {
            break;
        }
    }
    Entry::default()
}

/// How many bytes of the stack an instruction takes, if it is the usual one to do so.
fn taken_of_stack(instruction: &Instruction) -> Option<u64> {
    let takes = matches!(instruction.code(), Code::Sub_rm64_imm8 | Code::Sub_rm64_imm32)
        && instruction.op0_kind() == OpKind::Register
        && instruction.op0_register() == Register::RSP;
    takes.then(|| instruction.immediate(1)).filter(|bytes| *bytes <= FRAME_MASK)
}

fn instructions(code: &[u8]) -> impl Iterator<Item = Instruction> {
    Decoder::with_ip(64, code, 0, DecoderOptions::NONE).into_iter()
}

/// Whether the kernel emulates an instruction under a probe (`arch/x86/kernel/uprobes.c`: pushes of a register, near jumps and calls,
/// one-byte `nop`).
fn is_emulated(instruction: &Instruction) -> bool {
    match instruction.code() {
        Code::Push_r64 | Code::Nopd => true,
        Code::Call_rel32_64 | Code::Jmp_rel8_64 | Code::Jmp_rel32_64 => true,
        _ => instruction.is_jcc_short_or_near(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `SSL_read` of OpenSSL 3.0.
    const WITH_CANARY: &[u8] = &[
        0x48, 0x83, 0xec, 0x18, // sub rsp, 24
        0x64, 0x48, 0x8b, 0x04, 0x25, 0x28, 0x00, 0x00, 0x00, // mov rax, fs:[28h]
        0x48, 0x89, 0x44, 0x24, 0x08, // mov [rsp+8], rax
        0x31, 0xc0, // xor eax, eax
        0x85, 0xd2, // test edx, edx
        0x78, 0x05, // js over the next
        0xe8, 0x00, 0x01, 0x00, 0x00, // call
        0x48, 0x83, 0xc4, 0x18, // add rsp, 24
        0xc3, // ret
    ];

    #[test]
    fn the_entry_is_probed_on_the_first_instruction_that_the_kernel_emulates() {
        assert_eq!(entry(WITH_CANARY, Convention::C), Entry { offset: 22, frame: 24 });
        assert_eq!(entry(&[0x55, 0x48, 0x89, 0xe5], Convention::C).offset, 0, "push rbp");
        assert_eq!(entry(&[0xf3, 0x0f, 0x1e, 0xfa, 0x41, 0x54], Convention::C).offset, 4, "endbr64; push r12");
    }

    #[test]
    fn the_entry_is_probed_before_an_argument_is_lost() {
        let moves_first_argument = [0x48, 0x89, 0xd7, 0x55];
        assert_eq!(entry(&moves_first_argument, Convention::C).offset, 0, "mov rdi, rdx; push rbp");
        assert_eq!(entry(&moves_first_argument, Convention::Go).offset, 3, "which is none of Go's");
        let writes_half = [0x31, 0xff, 0x55];
        assert_eq!(entry(&writes_half, Convention::C).offset, 0, "xor edi, edi; push rbp");
        let aligns_stack = [0x48, 0x83, 0xe4, 0xf0, 0x55];
        assert_eq!(entry(&aligns_stack, Convention::C).offset, 0, "and rsp, -16; push rbp");
        let loops = [0x48, 0x31, 0xc0, 0x50, 0xeb, 0xfd];
        assert_eq!(entry(&loops, Convention::C).offset, 0, "xor rax, rax; push rax; jmp to the push");
        let exchanges = [0x48, 0x87, 0xd1, 0x55];
        assert_eq!(entry(&exchanges, Convention::C).offset, 0, "xchg rcx, rdx; push rbp");
    }

    proptest! {
        #[test]
        fn whatever_the_bytes_a_point_lies_in_the_function(code in prop::collection::vec(any::<u8>(), 0..300)) {
            for convention in [Convention::C, Convention::Go] {
                let Entry { offset, frame } = entry(&code, convention);
                prop_assert!(offset <= code.len() as u64 && frame <= FRAME_MASK);
            }
        }
    }
}
