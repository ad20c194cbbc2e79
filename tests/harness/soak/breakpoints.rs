//! Breakpoints in the code of a process: where a probe is, its memory differs from the file that it maps.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
};

const PAGE: usize = 4096;

/// Read at a time.
const PIECE: usize = 64 * PAGE;

/// How many bytes of the code that a process maps are not as in the file.
#[track_caller]
pub fn count(pid: u32) -> usize {
    let Ok(maps) = fs::read_to_string(format!("/proc/{pid}/maps")) else { return 0 };
    let Ok(memory) = File::open(format!("/proc/{pid}/mem")) else { return 0 };
    maps.lines().filter_map(Code::parse).map(|code| code.differences(pid, &memory)).sum()
}

/// Code that a process maps from a file.
#[derive(Debug, PartialEq, Eq)]
struct Code<'m> {
    /// As the folder `map_files` names it.
    range: &'m str,
    start: u64,
    end: u64,
    offset: u64,
}

impl<'m> Code<'m> {
    /// A line of `maps`; `None` if it is no code, or no file's.
    fn parse(line: &'m str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let [range, rights, offset, _, inode] =
            [words.next()?, words.next()?, words.next()?, words.next()?, words.next()?];
        let (start, end) = range.split_once('-')?;
        let number = |text| u64::from_str_radix(text, 16).ok();
        let code = Self { range, start: number(start)?, end: number(end)?, offset: number(offset)? };
        (rights.contains('x') && inode != "0").then_some(code)
    }

    #[track_caller]
    fn differences(&self, pid: u32, memory: &File) -> usize {
        let path = format!("/proc/{pid}/map_files/{}", self.range);
        // It may be unmapped by now.
        let Ok(file) = File::open(&path) else { return 0 };
        let (mut of_process, mut of_file) = (vec![0; PIECE], vec![0; PIECE]);
        let mut found = 0;
        for at in (self.start..self.end).step_by(PIECE) {
            let length = PIECE.min((self.end - at) as usize);
            let length = read(memory, &mut of_process[..length], at);
            let length = read(&file, &mut of_file[..length], self.offset + (at - self.start));
            let (ours, theirs) = (&of_process[..length], &of_file[..length]);
            if ours != theirs {
                found += ours.iter().zip(theirs).filter(|(ours, theirs)| ours != theirs).count();
            }
        }
        found
    }
}

/// Reads as much as there is; behind the end of a file there is nothing, and its memory is zero.
fn read(file: &File, into: &mut [u8], at: u64) -> usize {
    let mut done = 0;
    while done < into.len() {
        match file.read_at(&mut into[done..], at + done as u64) {
            Ok(0) | Err(_) => break,
            Ok(count) => done += count,
        }
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_of_files_is_looked_at() {
        let code = "55d0c0a00000-55d0c0b00000 r-xp 00002000 fe:01 1234                       /usr/bin/node";
        let parsed =
            Code { range: "55d0c0a00000-55d0c0b00000", start: 0x55d0_c0a0_0000, end: 0x55d0_c0b0_0000, offset: 0x2000 };
        assert_eq!(Code::parse(code), Some(parsed));
        assert_eq!(Code::parse(&code.replace("r-xp", "r--p")), None);
        assert_eq!(Code::parse(&code.replace("1234", "0")), None);
        assert_eq!(Code::parse(""), None);
    }

    #[test]
    fn code_without_probes_is_as_in_the_file() {
        assert_eq!(count(std::process::id()), 0);
    }
}
