//! The target of one decoder. Every target is this file, under the decoder's name.

#![no_main]

use libfuzzer_sys::fuzz_target;
use osiris_property_tests::decoders::{ALL, Decoder};

const NAME: &str = env!("CARGO_BIN_NAME");

fn decoder() -> &'static Decoder {
    ALL.iter().find(|decoder| decoder.name == NAME).expect("a target has the name of a decoder")
}

fuzz_target!(|bytes: &[u8]| (decoder().try_bytes)(bytes));
