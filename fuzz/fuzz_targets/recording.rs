//! The reader of recordings: whatever a file holds, it neither panics nor reads on after a cut, and what it read can be
//! recorded and read again.
#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use tracer::{
    output::recording::{BYTE_ORDER, Header, OpenError, Reader, Writer},
    stage::event::Event,
};
use tracer_ebpf::{ProcessRecord, SocketRecord};

const KERNEL_ITEM: u16 = 1;
const USER_ITEM: u16 = 2;

fuzz_target!(|data: &[u8]| {
    let Some((manner, data)) = data.split_first() else { return };
    match manner % 3 {
        // As a file: this is about the header, and whatever is no recording at all.
        0 => drop(read(data)),
        // After a good header: this is about the blocks' heads.
        1 => drop(read(&[header_bytes(), data.to_vec()].concat())),
        // In a block whose checksum is right: this is about the events.
        _ => {
            let events = read(&[header_bytes(), block(data)].concat()).expect("the header is good");
            assert_eq!(events, read(&record(&events)).expect("it was just recorded"));
        }
    }
});

/// The events of a recording, up to its end or a cut.
fn read(bytes: &[u8]) -> Result<Vec<Event>, OpenError> {
    let mut events = Vec::new();
    let mut is_cut = false;
    for item in Reader::open(Cursor::new(bytes))? {
        assert!(!is_cut, "nothing comes after a cut");
        match item {
            Ok(event) => events.push(event),
            Err(_) => is_cut = true,
        }
    }
    Ok(events)
}

fn record(events: &[Event]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), &header()).expect("memory");
    for event in events {
        writer.push(event).expect("memory");
    }
    writer.flush().expect("memory");
    writer.into_inner()
}

fn header() -> Header {
    Header {
        tool_version: "0.1.0".into(),
        created_at: "2026-11-21T03:14:33Z".into(),
        began_at: 5,
        kernel: "6.12.0".into(),
        host: "host".into(),
        boot_to_wall_ns: -7,
        tick_ns: 4_000_000,
        offsets: Default::default(),
        byte_order: BYTE_ORDER.into(),
    }
}

fn header_bytes() -> Vec<u8> {
    Writer::new(Vec::new(), &header()).expect("memory").into_inner()
}

/// A block of items made of `data`, well formed but for what the items say.
fn block(mut data: &[u8]) -> Vec<u8> {
    let (mut items, mut count) = (Vec::new(), 0_u32);
    while let Some((kind, rest)) = data.split_first() {
        let (kind, length, rest) = match (kind % 4, rest.split_first()) {
            (0, _) => (KERNEL_ITEM, size_of::<SocketRecord>(), rest),
            (1, _) => (KERNEL_ITEM, size_of::<ProcessRecord>(), rest),
            (2, Some((length, rest))) => (USER_ITEM, usize::from(*length), rest),
            _ => (u16::from(*kind), usize::from(*kind), rest),
        };
        let (payload, rest) = rest.split_at(length.min(rest.len()));
        items.extend_from_slice(&kind.to_le_bytes());
        items.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        items.extend_from_slice(payload);
        (data, count) = (rest, count + 1);
    }
    let head = [(items.len() as u32).to_le_bytes(), count.to_le_bytes()].concat();
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&head);
    hasher.update(&items);
    [head, hasher.finalize().to_le_bytes().to_vec(), items].concat()
}
