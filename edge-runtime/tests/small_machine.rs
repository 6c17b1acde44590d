//! The same calls where addresses are scarce, as on small boards and under `ulimit -v`.

use std::process::Command;

use osiris_runtime::Limits;

mod common;
use common::{Node, native_wat};

/// Runs in a process of its own, under the limit that [`functions_run_where_addresses_are_scarce`] sets.
#[tokio::test]
#[ignore = "it is run by functions_run_where_addresses_are_scarce, under an address-space limit"]
async fn call_under_a_limit() {
    let node = Node::new();
    let pool = node.runtime.describe_pool();
    let limit = pool.machine.address_bytes.expect("the limit that was set");
    assert!(pool.shape.address_bytes() <= limit / 2, "{pool}");
    let function = node.prepare(&native_wat("", ""), Limits::default()).await;
    assert_eq!(function.call_native("hello".to_owned()).await.result.as_deref(), Ok("hello"));
    println!("pooled: {}", pool.shape.pooled);
}

#[test]
fn functions_run_where_addresses_are_scarce() {
    let this = std::env::current_exe().expect("this test");
    for (limit_kib, pooled) in [(20 << 20, true), (2 << 20, true), (400 << 10, false)] {
        let script =
            format!("ulimit -v {limit_kib} && exec \"$0\" --ignored --exact --nocapture call_under_a_limit");
        let output = Command::new("sh").args(["-c", &script]).arg(&this).output().expect("sh runs");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "{limit_kib} KiB: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(text.contains(&format!("pooled: {pooled}")), "{limit_kib} KiB: {text}");
    }
}
