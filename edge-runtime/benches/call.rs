//! What a call costs, one fresh instance each. One thread, so the figure is the time a core needs.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use osiris_runtime::{Library, Limits, Runtime, RuntimeConfig};

fn calls(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a folder");
    let library = Library::open(dir.path().join("library"), 1 << 30).expect("a library");
    let runtime = Runtime::new(RuntimeConfig::new(dir.path().join("code"))).expect("a runtime");
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("an executor");
    let prepare = |component| {
        let hash = library.put(component).expect("room");
        let function = runtime.prepare("bench", hash, library.path(hash), Limits::default());
        tokio.block_on(function).expect("prepared")
    };
    let summary = prepare(osiris_examples::SUMMARY);
    let chart = prepare(osiris_examples::CHART);
    let input = r#"{"samples":[{"cpu_percent":10,"memory_used":1,"memory_total":4,"load1":0.5}]}"#;
    criterion.bench_function("native: summary of one sample", |bench| {
        bench.iter(|| {
            let outcome = tokio.block_on(summary.call_native(input.to_owned()));
            black_box(outcome.result.expect("an answer"))
        });
    });
    criterion.bench_function("wasi:http: GET /", |bench| {
        bench.iter(|| {
            let request = http::Request::get("http://localhost/").body(Bytes::new()).expect("a request");
            black_box(tokio.block_on(chart.call_http(request)).result.expect("a response"))
        });
    });
}

criterion_group!(benches, calls);
criterion_main!(benches);
