//! The URLs of both stores: any text is a place or an error that never repeats what may hold a
//! password.

#![no_main]

use std::ffi::OsString;

use visitas::config::Config;

const PASSWORD: &str = "xyzzy-plugh";

libfuzzer_sys::fuzz_target!(|input: &str| {
    // The password shows where it is no password. An address is read without its tabs and line
    // ends.
    if input.replace(['\t', '\n', '\r'], "").contains(PASSWORD) {
        return;
    }
    for (variable, starts) in [
        ("DATABASE_URL", ["postgres://u:xyzzy-plugh@", "password=xyzzy-plugh ", ""]),
        ("REDIS_URL", ["redis://:xyzzy-plugh@", "redis://u:xyzzy-plugh@", ""]),
    ] {
        for start in starts {
            let url = OsString::from(format!("{start}{input}"));
            let found = Config::from_lookup(&|name| (name == variable).then(|| url.clone()));
            let shown = match &found {
                Ok(config) => format!("{} {}", config.ledger, config.counter),
                Err(error) => error.to_string(),
            };
            assert!(!shown.contains(PASSWORD) && !shown.chars().any(char::is_control), "{shown:?}");
        }
    }
});
