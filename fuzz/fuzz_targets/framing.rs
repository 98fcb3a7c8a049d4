//! A stream of requests in pieces: the state machine finds the requests that a slow, obvious
//! reading of the whole finds.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| visitas::http::oracle::check_input(input));
