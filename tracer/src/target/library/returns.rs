//! Where the calls of a function return: on its return instructions, and on those of functions that it ends in with a jump.
//!
//! Such a jump leaves the stack as it was at the call, so it is the other function's return instruction that returns. That function may
//! have no symbol, and so no known length: its code is followed along every branch, instruction by instruction. Others may call it
//! too: whoever probes its returns has to tell from the stack whose call it is that returns.

use std::{collections::HashSet, ops::Range};

use iced_x86::{Decoder, DecoderError, DecoderOptions, FlowControl, Instruction};

/// Most return instructions that one function's calls may return by. One that has more is not probed there.
const RETURNS_MAX: usize = 64;

/// Most instructions outside a function that are followed. GnuTLS's `_gnutls_recv_int` has some 130.
const FOLLOWED_MAX: usize = 4_096;

/// Bytes that are read at a time of what is followed.
const PIECE: u64 = 512;

/// Code in a file, of which a function is a part.
pub trait Code {
    /// What is loaded together: within it, as far apart as addresses are, so are places in the file.
    fn stretch(&self) -> Range<u64>;

    /// So many bytes from this offset in the file. `None` if they cannot be read.
    fn read(&self, offset: u64, length: u64) -> Option<Vec<u8>>;
}

/// Each return instruction by which calls of the function may return, as offsets in the file. `None` if one of its ways cannot be followed
/// to its end: not all returns would be seen.
pub fn returns(code: &dyn Code, function: Range<u64>) -> Option<Vec<u64>> {
    let mut walk = Walk { code, function, seen: HashSet::new(), pending: Vec::new(), returns: Vec::new() };
    walk.within()?;
    walk.beyond()?;
    if walk.returns.is_empty() { None } else { Some(walk.returns) }
}

struct Walk<'c> {
    code: &'c dyn Code,
    function: Range<u64>,
    /// Instructions outside the function that were looked at.
    seen: HashSet<u64>,
    /// Where else the code goes on.
    pending: Vec<u64>,
    returns: Vec<u64>,
}

/// How the code goes on after an instruction.
enum Next {
    /// With the one behind it.
    Behind,
    /// Not with the one behind it.
    Elsewhere,
}

impl Walk<'_> {
    /// Looks at all of the function itself, whose length is known.
    fn within(&mut self) -> Option<()> {
        let Range { start, end } = self.function;
        let bytes = self.code.read(start, end.checked_sub(start)?)?;
        for instruction in decoder(&bytes, start) {
            self.take(&instruction)?;
        }
        Some(())
    }

    /// Looks at what it jumps to, along every branch.
    fn beyond(&mut self) -> Option<()> {
        while let Some(at) = self.pending.pop() {
            let stretch = self.code.stretch();
            if !stretch.contains(&at) {
                return None;
            }
            let bytes = self.code.read(at, PIECE.min(stretch.end - at))?;
            self.follow(&bytes, at)?;
        }
        Some(())
    }

    /// Follows a piece of code from its first byte up to where it goes on elsewhere.
    fn follow(&mut self, bytes: &[u8], start: u64) -> Option<()> {
        let mut decoder = decoder(bytes, start);
        let mut at = start;
        while !self.function.contains(&at) && !self.seen.contains(&at) {
            let instruction = decoder.decode();
            if decoder.last_error() == DecoderError::NoMoreBytes && at > start {
                // It lies across the end of the piece.
                self.pending.push(at);
                break;
            }
            self.seen.insert(at);
            if self.seen.len() > FOLLOWED_MAX {
                return None;
            }
            match self.take(&instruction)? {
                Next::Behind => at = instruction.next_ip(),
                Next::Elsewhere => break,
            }
        }
        Some(())
    }

    fn take(&mut self, instruction: &Instruction) -> Option<Next> {
        if instruction.is_invalid() {
            return None;
        }
        let target = instruction.near_branch_target();
        let is_beyond = !self.function.contains(&target);
        match instruction.flow_control() {
            FlowControl::Return => {
                self.returns.push(instruction.ip());
                (self.returns.len() <= RETURNS_MAX).then_some(Next::Elsewhere)
            }
            FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch => {
                if is_beyond {
                    self.pending.push(target);
                }
                let goes_on = instruction.flow_control() == FlowControl::ConditionalBranch;
                Some(if goes_on { Next::Behind } else { Next::Elsewhere })
            }
            // A jump by a table or through a pointer may lead anywhere; of those that leave, the compiler makes few.
            FlowControl::IndirectBranch => None,
            // Where it is certain that nothing follows, compilers put one of these.
            FlowControl::Exception | FlowControl::Interrupt => Some(Next::Elsewhere),
            _ => Some(Next::Behind),
        }
    }
}

fn decoder(bytes: &[u8], ip: u64) -> Decoder<'_> {
    Decoder::with_ip(64, bytes, ip, DecoderOptions::NONE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A file that is all code.
    struct Bytes<'b>(&'b [u8]);

    impl Code for Bytes<'_> {
        fn stretch(&self) -> Range<u64> {
            0..self.0.len() as u64
        }

        fn read(&self, offset: u64, length: u64) -> Option<Vec<u8>> {
            let end = offset.checked_add(length)?;
            Some(self.0.get(offset as usize..end as usize)?.to_vec())
        }
    }

    /// The returns of what is in the first bytes of a file.
    fn returns_of(file: &[u8], length: u64) -> Option<Vec<u64>> {
        returns(&Bytes(file), 0..length)
    }

    #[track_caller]
    fn assert_returns(function: &[u8], expected: Option<&[u64]>) {
        assert_eq!(returns_of(function, function.len() as u64).as_deref(), expected);
    }

    #[test]
    fn every_return_of_the_function_is_found() {
        assert_returns(&[0x74, 0x01, 0xc3, 0x90, 0xf3, 0xc3], Some(&[2, 4])); // je; ret; nop; rep ret
        assert_returns(&[0x0f, 0x0b, 0xc3], Some(&[2])); // ud2; ret
    }

    #[test]
    fn the_returns_of_a_function_that_it_jumps_to_are_its_own() {
        // jmp over a return of another; je over a return; ret; ret
        let file = [0xeb, 0x01, 0xc3, 0x74, 0x01, 0xc3, 0xc3];
        assert_eq!(returns_of(&file, 2).map(sorted), Some(vec![5, 6]));
        // It lies before the one that jumps to it, and goes back into it: ret; jmp; ret; jmp to the first
        let file = [0xeb, 0x02, 0xc3, 0x90, 0xc3, 0xeb, 0xf9];
        assert_eq!(returns(&Bytes(&file), 4..7).map(sorted), Some(vec![4]), "it is followed back into itself");
    }

    #[test]
    fn what_is_followed_may_be_longer_than_what_is_read_at_a_time() {
        let mut file = vec![0xeb, 0x00];
        // An instruction of three bytes lies across the end of each piece.
        file.extend([0x48, 0x89, 0xc0].repeat(1_000));
        file.push(0xc3);
        assert_eq!(returns_of(&file, 2), Some(vec![3_002]));
    }

    #[test]
    fn a_loop_in_what_is_followed_ends() {
        assert_eq!(returns_of(&[0xeb, 0x00, 0xeb, 0xfe], 2), None, "jmp to a jump to itself");
        assert_eq!(returns_of(&[0xeb, 0x00, 0x75, 0xfe, 0xc3], 2), Some(vec![4]), "which may end");
    }

    #[test]
    fn a_function_that_cannot_be_followed_to_its_end_has_no_known_returns() {
        assert_returns(&[0xe9, 0x00, 0x10, 0x00, 0x00], None); // jmp out of what is loaded
        assert_returns(&[0xc3, 0xff, 0xe0], None); // ret; jmp rax
        assert_returns(&[0x90], None); // no return at all
        assert_returns(&[0xc3, 0x48], None); // cut in an instruction
        assert_returns(&[], None);
        assert_eq!(returns_of(&[0xeb, 0x00, 0xff, 0xe0], 2), None, "jmp to jmp rax, as to another library");
        assert_eq!(returns_of(&[0xeb, 0x00, 0x90], 2), None, "jmp to where the file ends");
        let long = [vec![0xeb, 0x00], vec![0x90; FOLLOWED_MAX + 1], vec![0xc3]].concat();
        assert_eq!(returns_of(&long, 2), None, "longer than is followed");
        assert_returns(&[0xc3; RETURNS_MAX + 1], None);
    }

    fn sorted(mut offsets: Vec<u64>) -> Vec<u64> {
        offsets.sort_unstable();
        offsets
    }

    proptest! {
        #[test]
        fn whatever_the_bytes_a_return_lies_in_the_file(
            file in prop::collection::vec(any::<u8>(), 0..2_000), length in 0_u64..300,
        ) {
            for at in returns_of(&file, length).unwrap_or_default() {
                prop_assert!(at < file.len() as u64);
            }
        }
    }
}
