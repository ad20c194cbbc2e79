fn main() {
    let mut l = tracer::target::library::Libraries::default();
    for pid in std::env::args().skip(1) {
        let pid: u32 = pid.parse().unwrap();
        for x in l.examine(pid) {
            println!("{:?} {:?} {} {}", x.kind, x.version, x.name, x.functions.len());
            for f in &x.functions {
                let c = x.code(f).unwrap();
                println!(
                    "   {:?} size {} entry {} returns {:?}",
                    f.name,
                    f.size,
                    tracer::target::library::points::entry(&c, tracer::target::library::points::Convention::C),
                    tracer::target::library::points::returns(&c)
                );
            }
        }
        println!("{:?}", l.name(pid, 2));
    }
}
