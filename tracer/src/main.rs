//! The `conntracer` command.

use std::alloc::System;

use cap::Cap;

/// The system's allocator, counting what is in use; it limits nothing.
#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

fn main() -> std::process::ExitCode {
    tracer::memory::count_by(|| HEAP.allocated());
    tracer::app::main()
}
