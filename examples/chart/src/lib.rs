//! Draws samples of a node: `GET /` greets, `POST /chart` answers an SVG line chart.

pub mod chart;
pub mod routes;

#[cfg(target_family = "wasm")]
mod serve;
