//! A request's head: whatever comes, it is read the same way however much of it is there, and
//! within its limits.

#![no_main]

libfuzzer_sys::fuzz_target!(|head: &[u8]| visitas::http::oracle::check_head(head));
