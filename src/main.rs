//! The program: flags, environment, signals, exit code.

fn main() {}
