//! Breakpoints in the code of a process: where a probe is, its memory differs from the file that it maps.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
};

const PAGE: usize = 4096;

/// Bytes of `pagemap` that tell of a page.
const ENTRY: usize = size_of::<u64>();

/// In `pagemap`: the page is in memory, or swapped out.
const IS_THERE: u64 = 0b11 << 62;

/// In `pagemap`: it is the file's own page.
const IS_THE_FILES: u64 = 1 << 61;

/// How many bytes of the code that a process maps are not as in the file.
#[track_caller]
pub fn count(pid: u32) -> usize {
    let open = |what: &str| File::open(format!("/proc/{pid}/{what}"));
    let (Ok(memory), Ok(pages)) = (open("mem"), open("pagemap")) else { return 0 };
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    maps.lines().filter_map(Code::parse).map(|code| code.differences(pid, &memory, &pages)).sum()
}

/// Code that a process maps from a file.
#[derive(Debug, PartialEq, Eq)]
struct Code {
    start: u64,
    end: u64,
    offset: u64,
}

impl Code {
    /// A line of `maps`; `None` if it is no code, or no file's.
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let [range, rights, offset, _, inode] =
            [words.next()?, words.next()?, words.next()?, words.next()?, words.next()?];
        let (start, end) = range.split_once('-')?;
        let number = |text| u64::from_str_radix(text, 16).ok();
        let code = Self { start: number(start)?, end: number(end)?, offset: number(offset)? };
        (rights.contains('x') && inode != "0").then_some(code)
    }

    /// Pages that are the file's own are not compared with it. A page with a breakpoint is the process's own.
    fn differences(&self, pid: u32, memory: &File, pages: &File) -> usize {
        // `maps` fills up with zeros, this does not.
        let path = format!("/proc/{pid}/map_files/{:x}-{:x}", self.start, self.end);
        // It may be unmapped by now.
        let Ok(file) = File::open(&path) else { return 0 };
        let count = (self.end - self.start) as usize / PAGE;
        let mut entries = vec![0; count * ENTRY];
        let told = read(pages, &mut entries, self.start / PAGE as u64 * ENTRY as u64);
        let entries =
            entries[..told].chunks_exact(ENTRY).map(|entry| u64::from_ne_bytes(entry.try_into().expect("8 bytes")));
        let own = entries.enumerate().filter(|(_, entry)| entry & IS_THERE != 0 && entry & IS_THE_FILES == 0);
        own.map(|(page, _)| (page * PAGE) as u64)
            .map(|at| {
                let (mut ours, mut theirs) = ([0; PAGE], [0; PAGE]);
                let length = read(memory, &mut ours, self.start + at);
                let length = read(&file, &mut theirs[..length], self.offset + at);
                ours[..length].iter().zip(&theirs).filter(|(ours, theirs)| ours != theirs).count()
            })
            .sum()
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
        let parsed = Code { start: 0x55d0_c0a0_0000, end: 0x55d0_c0b0_0000, offset: 0x2000 };
        assert_eq!(Code::parse(code), Some(parsed));
        assert_eq!(Code::parse(&code.replace("r-xp", "r--p")), None);
        assert_eq!(Code::parse(&code.replace("1234", "0")), None);
        assert_eq!(Code::parse(""), None);
    }

    #[test]
    fn changed_code_is_counted() {
        let pid = std::process::id();
        assert_eq!(count(pid), 0);
        // As a debugger does.
        let memory =
            fs::OpenOptions::new().read(true).write(true).open("/proc/self/mem").expect("this process's memory");
        let at = never_called as *const () as u64;
        let before = read_byte(&memory, at).expect("code");
        memory.write_at(&[!before], at).expect("changed code");
        assert_eq!(count(pid), 1);
        memory.write_at(&[before], at).expect("code as before");
        assert_eq!(count(pid), 0);
    }

    fn read_byte(memory: &File, at: u64) -> std::io::Result<u8> {
        let mut byte = [0];
        memory.read_exact_at(&mut byte, at)?;
        Ok(byte[0])
    }

    #[inline(never)]
    fn never_called() {
        std::process::abort();
    }
}
