//! A node that is told to end by a signal, with a call under way.

mod driven;

use std::process::Stdio;
use std::time::{Duration, Instant};

use driven::{Home, Ran};
use rustix::process::{Pid, Signal, kill_process};

/// How long the call takes; longer than all that happens until the signal.
const CALL: Duration = Duration::from_secs(3);
/// Longer than anything here takes, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(60);

/// A native function that waits that long, and says so.
fn sleeper() -> Vec<u8> {
    let nanoseconds = CALL.as_nanos();
    let text = format!(
        r#"(component
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
            ;; The answer: a result that is well, and its string.
            (data (i32.const 0) "\00\00\00\00\10\00\00\00\07\00\00\00\00\00\00\00\"slept\"")
            (func (export "realloc") (param i32 i32 i32 i32) (result i32) i32.const 1024)
            (func (export "call") (param i32 i32) (result i32)
                (call $block (call $sleep (i64.const {nanoseconds})))
                i32.const 0))
        (core instance $i (instantiate $m (with "host" (instance
            (export "sleep" (func $sleep)) (export "block" (func $block))))))
        (func (export "call") (param "input" string) (result (result string (error string)))
            (canon lift (core func $i "call") (memory (core memory $i "memory")) (realloc (core func $i "realloc")))))"#
    );
    wat::parse_str(text).expect("valid text")
}

fn answers_what_runs_and_ends(signal: Signal) {
    let home = Home::founded();
    let mut node = home.up();
    let wasm = home.write("sleeper.wasm", &sleeper());
    home.done(&["deploy", &wasm, "--name", "sleeper", "--wait", "--timeout", "60s"]);
    let mut call = home.command(&["call", "sleeper", "1"]);
    let call = call.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
    let began = Instant::now();
    while home.done(&["status", "-o", "json"]).json()["in_flight"] != 1 {
        assert!(began.elapsed() < PATIENCE, "the call does not run");
        std::thread::sleep(Duration::from_millis(10));
    }
    kill_process(Pid::from_child(&node.child), signal).expect("a node");
    let answered = Ran::of(&["call"], call.wait_with_output().expect("it ends"));
    assert_eq!((answered.code, answered.out.trim()), (0, "\"slept\""), "{answered:?}");
    assert!(began.elapsed() >= CALL / 2, "it did not run while the node was told to end");
    let ended = node.child.wait().expect("it ends");
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert!(began.elapsed() < PATIENCE, "the node went on for long");
    // It let go of the folder in order: nothing is to be mended, and another one starts at once.
    assert_eq!(home.done(&["ledger", "verify", "-o", "json"]).json()["problems"], serde_json::json!([]));
    home.up().down();
}

#[test]
fn sigterm_lets_the_running_call_end_and_then_the_node() {
    answers_what_runs_and_ends(Signal::TERM);
}

#[test]
fn sigint_lets_the_running_call_end_and_then_the_node() {
    answers_what_runs_and_ends(Signal::INT);
}

/// Whoever reads the line of addresses may signal at once.
#[test]
fn a_node_that_said_where_it_listens_ends_in_order() {
    let home = Home::founded();
    for signal in [Signal::TERM, Signal::INT].into_iter().cycle().take(10) {
        let mut node = home.up();
        kill_process(Pid::from_child(&node.child), signal).expect("a node");
        let ended = node.child.wait().expect("it ends");
        assert_eq!(ended.code(), Some(0), "{ended:?}");
    }
}
