//! What a kernel can only be asked by trying: something is attached, and taken off at once.

use std::fs;

use anyhow::{Context as _, Result, anyhow};
use aya::{
    Btf, Ebpf,
    programs::{
        FEntry, UProbe,
        uprobe::{UProbeAttachLocation, UProbeAttachPoint, UProbeScope},
    },
};

use super::load::refusal;

/// One of the programs for libraries; they are all loaded when it is asked.
const PROGRAM: &str = "ssl_free";

/// The program that does nothing, and where it goes.
const NOTHING: (&str, &str) = ("nothing", "tcp_connect");

/// Why no program can be attached as fentry or fexit, if none can: a kernel may load them and have no way to attach them, as on 64-bit Arm
/// before 6.4.
pub fn trampoline_failure(ebpf: &mut Ebpf, types: &Btf) -> Option<String> {
    let mut attach = || -> Result<()> {
        let (name, function) = NOTHING;
        let program: &mut FEntry = ebpf.program_mut(name).context("not in the BPF object")?.try_into()?;
        program.load(function, types).map_err(|error| anyhow!(refusal(&error)))?;
        let link = program.attach()?;
        program.detach(link)?;
        program.unload()?;
        Ok(())
    };
    attach().err().map(|error| format!("{error:#}"))
}

/// Whether the kernel lets this process place probes in user space: puts one on a function here that nobody calls meanwhile.
///
/// # Errors
/// What the kernel says against it.
pub fn put_on_and_off(ebpf: &mut Ebpf) -> Result<()> {
    let program: &mut UProbe = ebpf.program_mut(PROGRAM).context("not in the BPF object")?.try_into()?;
    let maps = fs::read_to_string("/proc/self/maps").context("cannot read this program's mappings")?;
    let address = put_on_and_off as *const () as u64;
    let at = file_offset(&maps, address).context("this program is not mapped where it runs")?;
    let point = UProbeAttachPoint { location: UProbeAttachLocation::AbsoluteOffset(at), cookie: None };
    let link = program.attach(point, "/proc/self/exe", UProbeScope::CallingProcess)?;
    program.detach(link)?;
    Ok(())
}

/// Where in its file the byte at an address comes from: `START-END PERMISSIONS OFFSET ...`, numbers in hexadecimal.
fn file_offset(maps: &str, address: u64) -> Option<u64> {
    maps.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let offset = words.nth(1)?;
        let [start, end, offset] = [start, end, offset].map(|number| u64::from_str_radix(number, 16).ok());
        (start? <= address && address < end?).then(|| Some(address - start? + offset?))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_in_memory_is_found_in_its_file() {
        let maps = "1000-3000 r--p 00000000 fd:01 7 /x\n3000-5000 r-xp 00002000 fd:01 7 /x\nnonsense\n";
        assert_eq!(file_offset(maps, 0x3010), Some(0x2010));
        assert_eq!(file_offset(maps, 0x5000), None);
    }
}
