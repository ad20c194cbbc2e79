//! How Java is started.

/// The small compiler and collector, which start sooner. And no file of figures in `/tmp`: a JVM that finds one in use says so on
/// standard output, between the lines of our programs.
pub const OPTIONS: [&str; 4] = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto", "-XX:-UsePerfData"];
