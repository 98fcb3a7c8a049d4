//! A wrong wall clock: libfaketime, loaded into the program under test. The monotonic clock stays
//! right.

use std::fs;
use std::path::Path;

use super::server::{Settings, program};

const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
/// Part of the dynamic loader's name in every program that is not static.
const LOADER: &[u8] = b"ld-linux";

/// Settings for a process whose clock follows `FAKETIME` or `FAKETIME_TIMESTAMP_FILE`.
///
/// # Errors
/// Why this is not possible here.
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
