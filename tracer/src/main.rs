//! The `conntracer` command.

fn main() -> std::process::ExitCode {
    tracer::app::main()
}
