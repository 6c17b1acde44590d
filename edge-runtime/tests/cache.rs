//! Compiled code: made once, kept, checked, replaced when it is damaged.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use osiris_runtime::{CompileFigures, Limits};

mod common;
use common::{Node, native_wat};

fn cached(node: &Node) -> Vec<PathBuf> {
    let entries = fs::read_dir(node.dir.path().join("code")).expect("the cache folder");
    entries.map(|entry| entry.expect("an entry").path()).collect()
}

async fn prepare_and_call(node: &Node) {
    let function = node.prepare(&native_wat("", ""), Limits::default()).await;
    assert_eq!(function.call_native("hello".to_owned()).await.result.as_deref(), Ok("hello"));
}

#[tokio::test]
async fn code_is_compiled_once_and_loaded_after_a_restart() {
    let node = Node::small(tempfile::tempdir().expect("a folder"));
    prepare_and_call(&node).await;
    prepare_and_call(&node).await;
    assert_eq!(node.runtime.compile_figures(), CompileFigures { compiled: 1, loaded: 1, damaged: 0 });
    let [file] = cached(&node).try_into().expect("one file");
    assert_eq!(fs::metadata(&file).expect("the file").permissions().mode() & 0o777, 0o600);
    let folder = file.parent().expect("its folder");
    assert_eq!(fs::metadata(folder).expect("the folder").permissions().mode() & 0o777, 0o700);
    let Node { runtime, dir, .. } = node;
    drop(runtime);
    let again = Node::small(dir);
    prepare_and_call(&again).await;
    assert_eq!(again.runtime.compile_figures(), CompileFigures { compiled: 0, loaded: 1, damaged: 0 });
}

#[tokio::test]
async fn damaged_code_is_never_run() {
    let node = Node::small(tempfile::tempdir().expect("a folder"));
    prepare_and_call(&node).await;
    let [file] = cached(&node).try_into().expect("one file");
    let whole = fs::read(&file).expect("the file");
    let mut damaged = 0;
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    };
    let last = whole.len() - 1;
    let cases = [
        flipped(0),
        flipped(whole.len() / 2),
        flipped(last - 20),
        flipped(last),
        whole[..last].to_vec(),
        vec![],
    ];
    for bytes in cases {
        // Replaced, not written over: a running function has the file mapped.
        fs::remove_file(&file).expect("removed");
        fs::write(&file, &bytes).expect("damaged");
        prepare_and_call(&node).await;
        damaged += 1;
        assert_eq!(
            node.runtime.compile_figures(),
            CompileFigures { compiled: 1 + damaged, loaded: 0, damaged },
            "case {damaged}"
        );
        assert!(fs::read(&file).expect("written again").len() > 1000);
    }
}

#[tokio::test]
async fn the_cache_is_swept_and_forgets() {
    let dir = tempfile::tempdir().expect("a folder");
    let code = dir.path().join("code");
    fs::create_dir(&code).expect("the cache folder");
    for name in ["half.1.2.part", "abc.0123456789abcdef.cwasm", "notes.txt"] {
        fs::write(code.join(name), "x").expect("written");
    }
    let node = Node::small(dir);
    assert_eq!(cached(&node), [code.join("notes.txt")]);
    prepare_and_call(&node).await;
    assert_eq!(cached(&node).len(), 2);
    let hash = node.library.list()[0].0;
    node.runtime.forget(hash).expect("forgotten");
    node.runtime.forget(hash).expect("forgotten already");
    assert_eq!(cached(&node).len(), 1);
}

#[tokio::test]
async fn the_same_component_is_compiled_once_for_all_who_ask_together() {
    let node = Node::small(tempfile::tempdir().expect("a folder"));
    tokio::join!(prepare_and_call(&node), prepare_and_call(&node), prepare_and_call(&node));
    assert_eq!(node.runtime.compile_figures(), CompileFigures { compiled: 1, loaded: 2, damaged: 0 });
}

#[tokio::test]
async fn the_pool_is_described() {
    let node = Node::small(tempfile::tempdir().expect("a folder"));
    let pool = node.runtime.describe_pool();
    assert_eq!((pool.shape.calls, pool.shape.memory_bytes), (64, 64 << 20));
    assert!(pool.to_string().starts_with("64 calls at a time of at most 64 MiB, pooled"), "{pool}");
    let function = node.prepare(&native_wat("", ""), Limits::default()).await;
    assert_eq!((function.concurrency(), function.limits().memory_bytes), (16, 64 << 20));
}
