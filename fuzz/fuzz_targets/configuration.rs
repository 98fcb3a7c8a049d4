//! The environment: any of it is a configuration or an error of one line that holds no password.

#![no_main]

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use visitas::config::{Config, VARIABLES};

const PASSWORD: &str = "correct horse battery staple";

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    if input.windows(PASSWORD.len()).any(|part| part == PASSWORD.as_bytes()) {
        return;
    }
    let mut variables: HashMap<&str, OsString> = HashMap::new();
    variables.insert("DB_PASSWORD", OsString::from(PASSWORD));
    variables.insert("REDIS_PASSWORD", OsString::from(PASSWORD));
    // Each line sets the variable that its first byte numbers. Names are not resolved and files not
    // read here.
    for line in input.split(|byte| *byte == b'\n') {
        let Some((number, value)) = line.split_first() else { continue };
        let name = VARIABLES[usize::from(*number) % VARIABLES.len()].name;
        if name != "HOST" && !name.ends_with("_FILE") && !name.ends_with("PASSWORD") {
            variables.insert(name, OsString::from_vec(value.to_vec()));
        }
    }
    if let Err(error) = Config::from_lookup(&|name| variables.get(name).cloned()) {
        let text = error.to_string();
        assert!(!text.contains(PASSWORD) && !text.chars().any(char::is_control), "{text:?}");
    }
});
