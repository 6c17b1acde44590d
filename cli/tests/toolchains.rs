//! Components that were not built with Rust deploy and answer: Python and C in the native world,
//! JavaScript as `wasi:http`. `examples/other-toolchains/build` makes them.

use std::env;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Instant;

use serde_json::{Value, json};

/// A node on a folder of its own; it is killed at the end.
struct Node {
    folder: tempfile::TempDir,
    child: Option<Child>,
}

impl Node {
    fn up() -> Self {
        let mut node = Self { folder: tempfile::tempdir().expect("a folder"), child: None };
        node.data(&["init", "--name", "toolchains"]);
        let mut child = node
            .command(&["up", "--http", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("osiris runs");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("addresses");
        node.child = Some(child);
        assert!(line.contains("\"http\""), "the node did not start: {line}");
        node
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_osiris"));
        command.arg("--data").arg(self.folder.path().join("data"));
        command.args(["-o", "json", "--mesh", "127.0.0.1:0"]).args(arguments).stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("osiris runs")
    }

    /// What a command prints that must succeed.
    fn data(&self, arguments: &[&str]) -> Value {
        let output = self.run(arguments);
        assert!(output.status.success(), "osiris {arguments:?}: {output:?}");
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// The native function's own error, which must be one.
    fn error(&self, name: &str, input: &str) -> String {
        let output = self.run(&["call", name, input]);
        assert_eq!(output.status.code(), Some(1), "{name} {input}: {output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    fn deploy(&self, folder: &Path, name: &str, world: &str) {
        let file = folder.join(name).with_extension("wasm");
        let size = std::fs::metadata(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display())).len();
        let began = Instant::now();
        let path = file.to_str().expect("UTF-8");
        let deployed = self.data(&["deploy", path, "--name", name, "--wait", "--timeout", "180s"]);
        assert_eq!((&deployed["live"], &deployed["world"]), (&true.into(), &world.into()), "{deployed}");
        println!("{name}: {size} bytes, {world}, live after {:.1} s", began.elapsed().as_secs_f32());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
#[ignore = "needs componentize"]
fn components_of_other_toolchains_deploy_and_answer() {
    let folder = PathBuf::from(env::var_os("OSIRIS_COMPONENTS").expect(
        "OSIRIS_COMPONENTS names no folder: run examples/other-toolchains/build OUT and set it to OUT",
    ));
    let node = Node::up();
    node.deploy(&folder, "sum", "native");
    node.deploy(&folder, "median", "native");
    node.deploy(&folder, "greet", "http");

    // Twice: the second call meets nothing that the first one left.
    for _ in 0..2 {
        assert_eq!(node.data(&["call", "sum", "[1, 2, -45, 999999999999999]"]), 999_999_999_999_957_i64);
        assert_eq!(node.data(&["call", "median", "[3, 1, 8]"]), json!({"mean": 4.0, "median": 3}));
        let greeting = json!({"greeting": "Hello, Isis!"});
        assert_eq!(node.data(&["call", "greet", r#"{"name": "Isis"}"#, "--path", "/greet"]), greeting);
        assert_eq!(node.data(&["call", "greet", "--path", "/greet?name=Isis"]), greeting);
    }

    // More input than one page of memory holds.
    let many = node.folder.path().join("many.json");
    std::fs::write(&many, json!(vec![7; 100_000]).to_string()).expect("written");
    let many = format!("@{}", many.display());
    assert_eq!(node.data(&["call", "sum", &many]), 700_000);
    assert_eq!(node.data(&["call", "median", &many]), json!({"mean": 7.0, "median": 7.0}));

    let refused = node.error("sum", r#"{"not": "a list"}"#);
    assert!(refused.contains("give a list of whole numbers"), "{refused}");
    let refused = node.error("median", "[]");
    assert!(refused.contains("give a list of numbers"), "{refused}");
    let missing = node.run(&["call", "greet", "--path", "/nowhere"]);
    assert_eq!(missing.status.code(), Some(3), "{missing:?}");
    assert!(String::from_utf8_lossy(&missing.stderr).contains("404"), "{missing:?}");
}
