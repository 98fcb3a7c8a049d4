//! A wall clock that is wrong: libfaketime, loaded into the program under test. Its monotonic clock
//! stays right.

use std::fs;
use std::path::Path;

use super::server::{Settings, program};

const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
/// In the name of the dynamic loader that a program asks for, unless it is static.
const LOADER: &[u8] = b"ld-linux";

/// The same settings for a process whose clock libfaketime sets: by `FAKETIME`, or by
/// `FAKETIME_TIMESTAMP_FILE`.
///
/// # Errors
/// Why there can be none here.
pub fn faked(settings: Settings) -> Result<Settings, String> {
    let program = fs::read(program()).expect("the program");
    if !program.windows(LOADER.len()).any(|bytes| bytes == LOADER) {
        return Err("nothing can be loaded into a static program".to_owned());
    }
    if !Path::new(LIBRARY).exists() {
        return Err("libfaketime is not installed".to_owned());
    }
    Ok(settings
        .set("LD_PRELOAD", LIBRARY)
        .set("FAKETIME_DONT_FAKE_MONOTONIC", 1))
}
