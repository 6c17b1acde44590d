//! A node with a library and a runtime in a temporary folder, and small components in text form.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part")]

use std::sync::Arc;

use osiris_runtime::{Function, Library, Limits, PoolSize, Runtime, RuntimeConfig};

pub struct Node {
    pub runtime: Runtime,
    pub library: Library,
    pub dir: tempfile::TempDir,
}

impl Node {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let config = RuntimeConfig::new(dir.path().join("code"));
        Self::with(dir, config)
    }

    pub fn small(dir: tempfile::TempDir) -> Self {
        let config = RuntimeConfig { pool: PoolSize::Small, ..RuntimeConfig::new(dir.path().join("code")) };
        Self::with(dir, config)
    }

    pub fn with(dir: tempfile::TempDir, config: RuntimeConfig) -> Self {
        let library = Library::open(dir.path().join("library"), 1 << 30).expect("a library");
        Self { runtime: Runtime::new(config).expect("a runtime"), library, dir }
    }

    pub async fn prepare(&self, component: &[u8], limits: Limits) -> Arc<Function> {
        let hash = self.library.put(component).expect("room");
        let path = self.library.path(hash);
        self.runtime.prepare("test", hash, path, limits).await.expect("prepared")
    }
}

/// A native function that runs `body` and answers its input. `items` are more items of its core module.
pub fn native_wat(body: &str, items: &str) -> Vec<u8> {
    let text = format!(
        r#"(component
        (core module $m
            (memory (export "memory") 1)
            (global $next (mut i32) (i32.const 1024))
            {items}
            (func (export "realloc") (param i32 i32 i32 i32) (result i32)
                (local $at i32)
                (local.set $at (global.get $next))
                (global.set $next (i32.add (global.get $next) (local.get 3)))
                (if (i32.gt_u (global.get $next) (i32.mul (memory.size) (i32.const 65536)))
                    (then (drop (memory.grow (i32.add (i32.div_u (local.get 3) (i32.const 65536)) (i32.const 1))))))
                (local.get $at))
            (func (export "call") (param $at i32) (param $len i32) (result i32)
                {body}
                (i32.store (i32.const 0) (i32.const 0))
                (i32.store (i32.const 4) (local.get $at))
                (i32.store (i32.const 8) (local.get $len))
                i32.const 0))
        (core instance $i (instantiate $m))
        (func (export "call") (param "input" string) (result (result string (error string)))
            (canon lift (core func $i "call") (memory (core memory $i "memory")) (realloc (core func $i "realloc")))))"#
    );
    wat::parse_str(text).expect("valid text")
}

/// A native function that writes `lines` lines of 64 bytes, in pieces of 4096, and answers its input.
pub fn flood_wat(lines: u32) -> Vec<u8> {
    let line = format!("{}\\n", "x".repeat(63));
    let page = line.repeat(64);
    let text = format!(
        r#"(component
        (import "wasi:io/error@0.2.0" (instance $error (export "error" (type (sub resource)))))
        (alias export $error "error" (type $error-type))
        (import "wasi:io/streams@0.2.0" (instance $streams
            (alias outer 1 $error-type (type $e0))
            (export "error" (type $e (eq $e0)))
            (type $variant (variant (case "last-operation-failed" (own $e)) (case "closed")))
            (export "stream-error" (type $stream-error (eq $variant)))
            (export "output-stream" (type $o (sub resource)))
            (export "[method]output-stream.blocking-write-and-flush" (func
                (param "self" (borrow $o)) (param "contents" (list u8)) (result (result (error $stream-error)))))))
        (alias export $streams "output-stream" (type $output))
        (import "wasi:cli/stdout@0.2.0" (instance $stdout
            (alias outer 1 $output (type $o0))
            (export "output-stream" (type $o (eq $o0)))
            (export "get-stdout" (func (result (own $o))))))
        (core module $memory
            (memory (export "memory") 2)
            (data (i32.const 65536) "{page}")
            (func (export "realloc") (param i32 i32 i32 i32) (result i32) i32.const 1024))
        (core instance $mem (instantiate $memory))
        (core func $get (canon lower (func $stdout "get-stdout")))
        (core func $write (canon lower (func $streams "[method]output-stream.blocking-write-and-flush")
            (memory (core memory $mem "memory")) (realloc (core func $mem "realloc"))))
        (core module $m
            (import "mem" "memory" (memory 2))
            (import "host" "get" (func $get (result i32)))
            (import "host" "write" (func $write (param i32 i32 i32 i32)))
            (func (export "call") (param $at i32) (param $len i32) (result i32)
                (local $out i32) (local $left i32)
                (local.set $out (call $get))
                (local.set $left (i32.const {lines}))
                (loop $l
                    (call $write (local.get $out) (i32.const 65536) (i32.const 4096) (i32.const 256))
                    (local.set $left (i32.sub (local.get $left) (i32.const 64)))
                    (br_if $l (i32.gt_s (local.get $left) (i32.const 0))))
                (i32.store (i32.const 0) (i32.const 0))
                (i32.store (i32.const 4) (local.get $at))
                (i32.store (i32.const 8) (local.get $len))
                i32.const 0))
        (core instance $i (instantiate $m
            (with "mem" (instance $mem))
            (with "host" (instance (export "get" (func $get)) (export "write" (func $write))))))
        (func (export "call") (param "input" string) (result (result string (error string)))
            (canon lift (core func $i "call") (memory (core memory $mem "memory")) (realloc (core func $mem "realloc")))))"#
    );
    wat::parse_str(text).expect("valid text")
}

/// A `wasi:http` function that runs `body` and never answers.
pub fn http_wat(body: &str) -> Vec<u8> {
    let text = format!(
        r#"(component
        (import "wasi:http/types@0.2.0" (instance $types
            (export "incoming-request" (type (sub resource)))
            (export "response-outparam" (type (sub resource)))))
        (alias export $types "incoming-request" (type $request))
        (alias export $types "response-outparam" (type $out))
        (core module $m (func (export "handle") (param i32 i32) {body}))
        (core instance $i (instantiate $m))
        (func $handle (param "request" (own $request)) (param "response-out" (own $out))
            (canon lift (core func $i "handle")))
        (instance $handler (export "handle" (func $handle)))
        (export "wasi:http/incoming-handler@0.2.0" (instance $handler)))"#
    );
    wat::parse_str(text).expect("valid text")
}
