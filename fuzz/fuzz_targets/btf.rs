//! The reader of the kernel's types: whatever a file says of them, it neither panics nor takes long, nor does any question that the tracer
//! asks.
#![no_main]

use std::{fs, path::Path, sync::LazyLock};

use libfuzzer_sys::fuzz_target;
use tracer::{
    bpf::hooks,
    kernel::{btf::Btf, offsets},
};

/// The types of real kernels, as the tests keep them.
static KERNELS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tracer/tests/fixtures/btf");
    let read = |name| fs::read(dir.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    ["5.10.btf", "6.1.btf", "6.12.btf", "7.2.btf"].map(read).into()
});

fuzz_target!(|data: &[u8]| {
    let Some((manner, data)) = data.split_first() else { return };
    let Some(kernel) = KERNELS.get(usize::from(*manner)) else { return ask(data) };
    let mut bytes = kernel.clone();
    for change in data.chunks_exact(7) {
        // A place, and what is written there.
        let place = u32::from_le_bytes([change[0], change[1], change[2], 0]) as usize % bytes.len();
        let length = 4.min(bytes.len() - place);
        bytes[place..place + length].copy_from_slice(&change[3..3 + length]);
    }
    ask(&bytes);
});

fn ask(bytes: &[u8]) {
    let Ok(btf) = Btf::parse(bytes) else { return };
    let resolved = offsets::resolve(&btf);
    assert!(resolved.missing.iter().all(|(field, reason)| !field.is_empty() && !reason.to_string().is_empty()));
    drop(hooks::superseded(&btf));
    drop(hooks::absent(&btf, &[]));
    drop(hooks::named_types(&btf));
    for function in ["tcp_connect", "tcp_sendmsg", "inet_csk_accept", "tcp_recvmsg"] {
        drop(btf.prototype(function));
    }
}
