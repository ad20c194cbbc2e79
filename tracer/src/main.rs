//! The `conntracer` command.

fn main() {}
