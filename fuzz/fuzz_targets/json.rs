//! Payloads that call themselves JSON.

#![no_main]

#[path = "../../tests/it/agreement.rs"]
mod agreement;

use catchment::config::Codec;

libfuzzer_sys::fuzz_target!(|data: &[u8]| agreement::check(Codec::Json, data));
