//! Whatever bytes there are, no parser panics.

#![no_main]

#[path = "../parsers.rs"]
mod parsers;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    parsers::understood(text);
});
