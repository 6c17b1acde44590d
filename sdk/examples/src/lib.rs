//! The example functions as components, for the demo and for the tests of the node.
//!
//! They are in `examples/`, a workspace of its own; the build script builds them for `wasm32-wasip2`
//! from their committed `Cargo.lock`.

/// `examples/summary`, revision 1: a native function. It takes samples of a node as JSON and answers
/// statistics of each field.
pub const SUMMARY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/summary.wasm"));

/// `examples/summary`, revision 2: it also answers the standard deviation.
pub const SUMMARY_V2: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/summary_v2.wasm"));

/// `examples/chart`: a `wasi:http` function. `GET /` answers a greeting as JSON, `POST /chart` draws
/// samples of a node as SVG.
pub const CHART: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/chart.wasm"));

/// `examples/sensor`: a native function that waits as long as it is told, as for a slow device.
pub const SENSOR: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/sensor.wasm"));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_components_are_there_distinct_and_small() {
        for component in [SUMMARY, SUMMARY_V2, CHART, SENSOR] {
            // A component, not a core module: version 13, layer 1.
            assert_eq!(component[..8], *b"\0asm\x0d\0\x01\0");
            assert!(component.len() < 200 << 10, "{} bytes", component.len());
        }
        assert_ne!(SUMMARY, SUMMARY_V2);
    }
}
