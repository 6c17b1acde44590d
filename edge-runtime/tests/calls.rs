//! Calls of real and of hostile components, through the public API.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use osiris_runtime::{
    CallError, ComponentHash, Figures, Function, Library, Limits, PoolSize, PrepareError, RuntimeConfig,
    World,
};

mod common;
use common::{Node, http_wat, native_wat};

const SAMPLES: &str = r#"{"samples":[{"cpu_percent":10,"memory_used":1,"memory_total":4,"load1":0.5},
    {"cpu_percent":30,"memory_used":3,"memory_total":4,"load1":1.5}]}"#;

fn request(method: &str, path: &str, body: &str) -> http::Request<Bytes> {
    let builder = http::Request::builder().method(method).uri(path);
    builder.body(Bytes::copy_from_slice(body.as_bytes())).expect("a request")
}

fn trap_message(error: Option<CallError>) -> String {
    match error {
        Some(CallError::Trap { message }) => message,
        other => panic!("expected a trap, got {other:?}"),
    }
}

#[tokio::test]
async fn a_native_function_answers_and_logs() {
    let node = Node::new();
    let summary = node.prepare(osiris_examples::SUMMARY, Limits::default()).await;
    assert_eq!(summary.world(), World::Native);
    let outcome = summary.call_native(SAMPLES.to_owned()).await;
    let answer: serde_json::Value = serde_json::from_str(&outcome.result.expect("an answer")).expect("JSON");
    assert_eq!(answer["revision"], 1);
    assert_eq!(answer["fields"]["cpu_percent"]["mean"], 20.0);
    assert!(outcome.queued <= outcome.elapsed);
    let logs = summary.logs(10);
    assert_eq!((logs.len(), logs[0].call, logs[0].text.as_str()), (1, outcome.call, "summarized 2 samples"));
    assert_eq!(summary.figures(), Figures { done: 1, ..Figures::default() });
    assert_eq!(node.runtime.memory_used_bytes(), 0);
}

#[tokio::test]
async fn the_second_revision_answers_as_such() {
    let node = Node::new();
    let summary = node.prepare(osiris_examples::SUMMARY_V2, Limits::default()).await;
    let answer = summary.call_native(SAMPLES.to_owned()).await.result.expect("an answer");
    let answer: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
    assert_eq!(answer["revision"], 2);
    assert_eq!(answer["fields"]["cpu_percent"]["deviation"], 10.0);
}

#[tokio::test]
async fn a_functions_own_error_is_passed_on() {
    let node = Node::new();
    let summary = node.prepare(osiris_examples::SUMMARY, Limits::default()).await;
    let outcome = summary.call_native(r#"{"samples":[]}"#.to_owned()).await;
    assert_eq!(outcome.result, Err(CallError::Guest { message: "give at least one sample".to_owned() }));
    assert_eq!(summary.figures().failed, 1);
}

#[tokio::test]
async fn an_http_function_answers_every_method_and_path() {
    let node = Node::new();
    let chart = node.prepare(osiris_examples::CHART, Limits::default()).await;
    assert_eq!(chart.world(), World::Http);
    for (method, path, body, status, begins) in [
        ("GET", "/", "", 200, r#"{"hello":"osiris"}"#),
        ("GET", "http://example.org/?x=1", "", 200, r#"{"hello":"osiris"}"#),
        ("HEAD", "/", "", 200, ""),
        ("POST", "/chart", SAMPLES, 200, "<svg"),
        ("POST", "/chart", "nonsense", 400, "{\"error\""),
        ("DELETE", "/", "", 405, "{\"error\""),
        ("PROPFIND", "/a/b", "", 404, "{\"error\""),
    ] {
        let response = chart.call_http(request(method, path, body)).await.result.expect("a response");
        assert_eq!(response.status(), status, "{method} {path}");
        let text = String::from_utf8(response.body().to_vec()).expect("text");
        assert!(text.starts_with(begins), "{method} {path}: {text}");
    }
    let many = vec![r#"{"cpu_percent":5,"memory_used":1,"memory_total":2}"#; 20_000].join(",");
    let large = request("POST", "/chart", &format!(r#"{{"samples":[{many}]}}"#));
    let response = chart.call_http(large).await.result.expect("a response");
    // Written in pieces of 4096 bytes; each must have arrived.
    assert!(response.body().len() > 3 * 4096 && response.body().ends_with(b"</svg>\n"));
}

#[tokio::test]
async fn an_http_function_that_never_answers_is_explained() {
    let node = Node::new();
    let limits = Limits { timeout: Duration::from_millis(200), ..Limits::default() };
    for (body, expected) in [
        ("unreachable", CallError::Trap { message: "wasm `unreachable` instruction executed".to_owned() }),
        ("", CallError::NoResponse),
        ("(loop $l br $l)", CallError::Deadline { after: limits.timeout }),
    ] {
        let function = node.prepare(&http_wat(body), limits.clone()).await;
        let outcome = function.call_http(request("GET", "/", "")).await;
        assert_eq!(outcome.result.map(drop), Err(expected));
        assert_eq!(function.figures(), Figures { failed: 1, ..Figures::default() });
    }
}

#[tokio::test]
async fn a_pool_without_room_is_busy_and_recovers() {
    let dir = tempfile::tempdir().expect("a folder");
    let pool = PoolSize::Explicit { calls: 1, memory_bytes: 64 << 20 };
    let config = RuntimeConfig { pool, ..RuntimeConfig::new(dir.path().join("code")) };
    let node = Node::with(dir, config);
    let endless = slow(&node, 0).await;
    let summary = node.prepare(osiris_examples::SUMMARY, Limits::default()).await;
    let running = call(&endless);
    until(&endless, |f| f.in_flight == 1).await;
    let error = summary.call_native(SAMPLES.to_owned()).await.result.expect_err("the only slot is taken");
    assert_eq!(error.status(), 503, "{error}");
    running.await.expect("no panic").expect_err("its deadline");
    summary.call_native(SAMPLES.to_owned()).await.result.expect("the slot is free again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deadlines_hold_when_every_worker_computes() {
    let node = Node::new();
    let timeout = Duration::from_millis(300);
    let limits = Limits { timeout, concurrency: 8, ..Limits::default() };
    let endless = node.prepare(&native_wat("(loop $l br $l)", ""), limits).await;
    let calls: Vec<_> = (0..8)
        .map(|_| {
            let endless = endless.clone();
            tokio::spawn(async move { endless.call_native(String::new()).await })
        })
        .collect();
    for call in calls {
        let outcome = call.await.expect("no panic");
        assert_eq!(outcome.result, Err(CallError::Deadline { after: timeout }));
        assert!(outcome.elapsed < timeout + Duration::from_millis(500), "{:?}", outcome.elapsed);
    }
}

#[tokio::test]
async fn a_function_is_not_called_in_the_wrong_world() {
    let node = Node::new();
    let chart = node.prepare(osiris_examples::CHART, Limits::default()).await;
    let summary = node.prepare(osiris_examples::SUMMARY, Limits::default()).await;
    let errors = [
        chart.call_native(String::new()).await.result.map(drop),
        summary.call_http(request("GET", "/", "")).await.result.map(drop),
    ];
    for error in errors {
        assert_eq!(error.expect_err("the wrong world").status(), 400);
    }
    assert_eq!((chart.figures().refused, summary.figures().refused), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_guest_that_loops_is_stopped_and_others_are_served() {
    let node = Node::new();
    let limits = Limits { timeout: Duration::from_millis(300), ..Limits::default() };
    let in_call = node.prepare(&native_wat("(loop $l br $l)", ""), limits.clone()).await;
    let in_start = node.prepare(&native_wat("", "(start $s) (func $s (loop $l br $l))"), limits).await;
    let summary = node.prepare(osiris_examples::SUMMARY, Limits::default()).await;
    for endless in [in_call, in_start] {
        let looping = tokio::spawn(async move { endless.call_native(String::new()).await });
        tokio::task::yield_now().await;
        let asked = Instant::now();
        summary.call_native(SAMPLES.to_owned()).await.result.expect("others are served meanwhile");
        assert!(asked.elapsed() < Duration::from_millis(250), "{:?}", asked.elapsed());
        assert!(!looping.is_finished());
        let outcome = looping.await.expect("no panic");
        assert_eq!(outcome.result, Err(CallError::Deadline { after: Duration::from_millis(300) }));
        assert!(outcome.elapsed < Duration::from_millis(800), "{:?}", outcome.elapsed);
    }
    assert_eq!(node.runtime.memory_used_bytes(), 0);
}

#[tokio::test]
async fn a_guest_that_sleeps_is_stopped_too() {
    // Sleeping in the host: `wasi:clocks/monotonic-clock.subscribe-duration` and `pollable.block`.
    let text = r#"(component
        (import "wasi:io/poll@0.2.0" (instance $poll
            (export "pollable" (type $p (sub resource)))
            (export "[method]pollable.block" (func (param "self" (borrow $p))))))
        (alias export $poll "pollable" (type $pollable))
        (import "wasi:clocks/monotonic-clock@0.2.0" (instance $clock
            (alias outer 1 $pollable (type $q))
            (export "pollable" (type $r (eq $q)))
            (export "subscribe-duration" (func (param "when" u64) (result (own $r))))))
        (core func $block (canon lower (func $poll "[method]pollable.block")))
        (core func $sleep (canon lower (func $clock "subscribe-duration")))
        (core module $m
            (import "host" "sleep" (func $sleep (param i64) (result i32)))
            (import "host" "block" (func $block (param i32)))
            (memory (export "memory") 1)
            (func (export "realloc") (param i32 i32 i32 i32) (result i32) i32.const 1024)
            (func (export "call") (param i32 i32) (result i32)
                (call $block (call $sleep (i64.const 60000000000)))
                i32.const 0))
        (core instance $i (instantiate $m (with "host" (instance
            (export "sleep" (func $sleep)) (export "block" (func $block))))))
        (func (export "call") (param "input" string) (result (result string (error string)))
            (canon lift (core func $i "call") (memory (core memory $i "memory")) (realloc (core func $i "realloc")))))"#;
    let node = Node::new();
    let limits = Limits { timeout: Duration::from_millis(100), ..Limits::default() };
    let sleeper = node.prepare(&wat::parse_str(text).expect("valid text"), limits).await;
    let outcome = sleeper.call_native(String::new()).await;
    assert_eq!(outcome.result, Err(CallError::Deadline { after: Duration::from_millis(100) }));
    assert!(outcome.elapsed < Duration::from_millis(600), "{:?}", outcome.elapsed);
}

#[tokio::test]
async fn a_memory_bomb_traps_and_leaves_nothing() {
    let node = Node::new();
    let limits = Limits { memory_bytes: 16 << 20, ..Limits::default() };
    let bomb = native_wat("(loop $l (drop (memory.grow (i32.const 16))) br $l)", "");
    let bomb = node.prepare(&bomb, limits).await;
    let message = trap_message(bomb.call_native(String::new()).await.result.err());
    assert!(message.contains("its limit (memory_bytes) is 16777216"), "{message}");
    assert_eq!(node.runtime.memory_used_bytes(), 0);
}

#[tokio::test]
async fn a_module_with_too_much_memory_from_the_start_traps() {
    let node = Node::new();
    let limits = Limits { memory_bytes: 1 << 20, ..Limits::default() };
    let summary = node.prepare(osiris_examples::SUMMARY, limits).await;
    let message = trap_message(summary.call_native(SAMPLES.to_owned()).await.result.err());
    assert!(message.contains("its limit (memory_bytes) is 1048576"), "{message}");
}

#[tokio::test]
async fn the_nodes_memory_is_shared_and_bounded() {
    let dir = tempfile::tempdir().expect("a folder");
    let config = RuntimeConfig { memory_bytes: 1 << 20, ..RuntimeConfig::new(dir.path().join("code")) };
    let node = Node::with(dir, config);
    let summary = node.prepare(osiris_examples::SUMMARY, Limits::default()).await;
    let error = summary.call_native(SAMPLES.to_owned()).await.result.expect_err("no room on the node");
    assert_eq!(error.status(), 503);
    assert!(error.retry_after().is_some());
}

#[tokio::test]
async fn a_table_bomb_and_deep_recursion_trap() {
    let node = Node::new();
    let table = "(table $t 1 funcref)";
    let grow = "(loop $l (drop (table.grow $t (ref.null func) (i32.const 1000))) br $l)";
    for (body, items, says) in [
        (grow, table, "the limit is 20000"),
        ("(call $deep)", "(func $deep (call $deep))", "call stack exhausted"),
        ("unreachable", "", "wasm `unreachable` instruction executed"),
        ("(drop (i32.div_u (i32.const 1) (i32.const 0)))", "", "integer divide by zero"),
        ("(drop (i32.load (i32.const -4)))", "", "out of bounds memory access"),
    ] {
        let function = node.prepare(&native_wat(body, items), Limits::default()).await;
        let message = trap_message(function.call_native(String::new()).await.result.err());
        assert!(message.contains(says), "{message}");
    }
}

#[tokio::test]
async fn a_log_flood_is_cut_and_the_call_is_fine() {
    let node = Node::new();
    let flood = node.prepare(&common::flood_wat(1000), Limits { log_bytes: 4096, ..Limits::default() }).await;
    let outcome = flood.call_native("ok".to_owned()).await;
    assert_eq!(outcome.result.as_deref(), Ok("ok"));
    let logs = flood.logs(usize::MAX);
    let bytes: usize = logs.iter().map(|l| l.text.len() + 1).sum();
    assert!((4096..4096 + 200).contains(&bytes), "{bytes}");
    assert_eq!(
        logs.last().map(|l| l.text.as_str()),
        Some("[osiris: the log of this call was truncated after 4096 bytes]")
    );
}

#[tokio::test]
async fn answers_over_the_cap_are_errors() {
    let node = Node::new();
    let too_large = |max| Err(CallError::ResponseTooLarge { max });
    let small = Limits { response_bytes: 10, ..Limits::default() };
    // It answers with its input.
    let echo = node.prepare(&native_wat("", ""), small.clone()).await;
    assert_eq!(echo.call_native("0123456789".to_owned()).await.result.as_deref(), Ok("0123456789"));
    assert_eq!(echo.call_native("0123456789a".to_owned()).await.result, too_large(10));
    // So large that wasmtime refuses to copy it out at all.
    assert_eq!(echo.call_native("a".repeat(200 << 10)).await.result, too_large(10));
    let chart = node.prepare(osiris_examples::CHART, small).await;
    let outcome = chart.call_http(request("GET", "/", "")).await;
    assert_eq!(outcome.result.map(drop), too_large(10).map(drop));
    let chart =
        node.prepare(osiris_examples::CHART, Limits { response_bytes: 6000, ..Limits::default() }).await;
    let many = vec![r#"{"cpu_percent":5}"#; 1000].join(",");
    let long = request("POST", "/chart", &format!(r#"{{"samples":[{many}]}}"#));
    assert_eq!(chart.call_http(long).await.result.map(drop), too_large(6000).map(drop));
}

#[tokio::test]
async fn requests_over_the_cap_are_refused() {
    let node = Node::new();
    let limits = Limits { request_bytes: 4, ..Limits::default() };
    let summary = node.prepare(osiris_examples::SUMMARY, limits.clone()).await;
    let chart = node.prepare(osiris_examples::CHART, limits).await;
    let too_large = CallError::TooLarge { size: 5, max: 4 };
    assert_eq!(summary.call_native("12345".to_owned()).await.result, Err(too_large.clone()));
    assert_eq!(chart.call_http(request("POST", "/", "12345")).await.result.map(drop), Err(too_large));
    assert_eq!((summary.figures().refused, chart.figures().refused), (1, 1));
}

/// A function that loops until its deadline, one call at a time.
async fn slow(node: &Node, queue_len: u32) -> Arc<Function> {
    let limits =
        Limits { timeout: Duration::from_millis(400), concurrency: 1, queue_len, ..Limits::default() };
    node.prepare(&native_wat("(loop $l br $l)", ""), limits).await
}

fn call(function: &Arc<Function>) -> tokio::task::JoinHandle<Result<String, CallError>> {
    let function = function.clone();
    tokio::spawn(async move { function.call_native(String::new()).await.result })
}

async fn until(function: &Function, wanted: impl Fn(Figures) -> bool) {
    let began = Instant::now();
    while !wanted(function.figures()) {
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", function.figures());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_full_queue_is_busy() {
    let node = Node::new();
    let function = slow(&node, 1).await;
    let first = call(&function);
    until(&function, |f| f.in_flight == 1).await;
    let second = call(&function);
    until(&function, |f| f.backlog == 1).await;
    let third = function.call_native(String::new()).await;
    let error = third.result.expect_err("the queue is full");
    assert_eq!(error.status(), 503);
    assert!(error.retry_after().is_some_and(|after| after >= Duration::from_secs(1)));
    for accepted in [first, second] {
        accepted.await.expect("no panic").expect_err("it loops or waits until its deadline");
    }
    let figures = function.figures();
    assert_eq!((figures.in_flight, figures.backlog, figures.failed + figures.refused), (0, 0, 3));
}

#[tokio::test]
async fn draining_finishes_what_was_accepted() {
    let node = Node::new();
    let function = slow(&node, 8).await;
    let running = call(&function);
    until(&function, |f| f.in_flight == 1).await;
    let draining = tokio::spawn({
        let function = function.clone();
        async move { function.drain().await }
    });
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!draining.is_finished());
    assert_eq!(function.call_native(String::new()).await.result, Err(CallError::Draining));
    assert!(matches!(running.await.expect("no panic"), Err(CallError::Deadline { .. })));
    draining.await.expect("drained");
}

#[tokio::test]
async fn a_caller_that_goes_away_frees_everything() {
    let node = Node::new();
    let function = slow(&node, 8).await;
    let (first, second) = (call(&function), call(&function));
    until(&function, |f| f.in_flight == 1 && f.backlog == 1).await;
    first.abort();
    second.abort();
    until(&function, |f| f.in_flight == 0 && f.backlog == 0).await;
    assert_eq!(function.figures(), Figures { failed: 1, refused: 1, ..Figures::default() });
    assert_eq!(node.runtime.memory_used_bytes(), 0);
}

#[tokio::test]
async fn no_call_sees_another_calls_memory() {
    // Writes its number of calls to memory and answers the count of digits: always one.
    let count = "(i32.store (i32.const 512) (i32.add (i32.load (i32.const 512)) (i32.const 1)))
        (if (i32.ne (i32.load (i32.const 512)) (i32.const 1)) (then unreachable))";
    let node = Node::new();
    let function = node.prepare(&native_wat(count, ""), Limits::default()).await;
    for _ in 0..50 {
        function.call_native("x".to_owned()).await.result.expect("a fresh instance");
    }
}

#[tokio::test]
async fn bad_limits_and_bad_components_are_refused() {
    let node = Node::new();
    let hash = node.library.put(osiris_examples::SUMMARY).expect("room");
    let limits = Limits { concurrency: 0, ..Limits::default() };
    let error =
        node.runtime.prepare("f", hash, node.library.path(hash), limits).await.expect_err("bad limits");
    assert!(matches!(error, PrepareError::Limits(_)), "{error}");
    let hash = node.library.put(b"not wasm").expect("room");
    let error = node.runtime.prepare("f", hash, node.library.path(hash), Limits::default()).await;
    assert!(error.expect_err("garbage").to_string().starts_with("This is not a WebAssembly file"));
    let wrong = ComponentHash::of(b"something else");
    let error = node.runtime.prepare("f", wrong, node.library.path(hash), Limits::default()).await;
    assert!(error.expect_err("wrong bytes").to_string().contains("is damaged"));
    let error = node.runtime.prepare("f", wrong, node.library.path(wrong), Limits::default()).await;
    assert!(error.expect_err("no file").to_string().contains("cannot be read"));
    assert!(!Library::open(node.dir.path().join("other"), 1).expect("a library").contains(hash));
}
