use aya::maps::RingBuf;
use tracer::{
    bpf::{self, Backend, Settings, filter::EVERYTHING},
    kernel::{btf::Btf, offsets},
};
use tracer_ebpf::*;
use zerocopy::FromBytes;
fn main() -> anyhow::Result<()> {
    let btf = Btf::of_running_kernel()?;
    let r = offsets::resolve(&btf);
    println!("missing {:?}", r.missing);
    let backend = if std::env::args().any(|a| a == "kprobe") { Backend::Kprobe } else { Backend::Auto };
    let config = Config { wake_bytes: 1 << 20, ..EVERYTHING };
    let mut l =
        bpf::load(&Settings { config, offsets: r.offsets, backend, ring_bytes: 1 << 22, max_connections: 65536 })?;
    for h in &l.hooks {
        println!("{} {:?} {:?}", h.name, h.backend, h.reason);
    }
    l.attach()?;
    for (n, c) in l.verified_instructions() {
        println!("  {n} {c:?}");
    }
    let mut ring = RingBuf::try_from(l.ebpf.take_map("EVENTS").unwrap())?;
    std::fs::write("/tmp/ready", "")?;
    for _ in 0..40 {
        std::thread::sleep(std::time::Duration::from_millis(100));
        while let Some(item) = ring.next() {
            if let Ok(s) = SocketRecord::read_from_bytes(&item) {
                println!("{} {}", String::from_utf8_lossy(&s.comm).trim_end_matches('\0'), format!("{s:?}"));
            } else if let Ok(s) = ProcessRecord::read_from_bytes(&item) {
                println!(
                    "proc {} {} {:?}",
                    s.kind,
                    s.tgid,
                    String::from_utf8_lossy(&s.filename).trim_end_matches('\0')
                );
            }
        }
    }
    println!("losses {:?}", bpf::losses::Losses::new(&mut l.ebpf)?.new_losses()?);
    Ok(())
}
