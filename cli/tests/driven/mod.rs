//! Homes and nodes of the real binary, driven as people and scripts drive it.
#![allow(dead_code, reason = "each file of tests needs some of it")]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use tempfile::TempDir;

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_osiris");

/// A folder of its own for the data and for everything else that a home folder holds.
pub(crate) struct Home(TempDir);

impl Home {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    pub(crate) fn founded() -> Self {
        let home = Self::new();
        home.done(&["init", "--name", "home", "--label", "test"]);
        home
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.path().join(name);
        std::fs::write(&path, bytes).expect("written");
        path.display().to_string()
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        self.command_of(BINARY.as_ref(), arguments)
    }

    pub(crate) fn command_of(&self, binary: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary);
        command.args(arguments).env_clear().current_dir(self.path());
        command.env("HOME", self.path()).env("OSIRIS_DATA", self.path().join("data"));
        command.env("OSIRIS_MESH", "127.0.0.1:0").stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(arguments, self.command(arguments).output().expect("the binary runs"))
    }

    pub(crate) fn run_with_input(&self, arguments: &[&str], input: &[u8]) -> Ran {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary runs");
        child.stdin.take().expect("a pipe").write_all(input).expect("written");
        Ran::of(arguments, child.wait_with_output().expect("it ends"))
    }

    /// Runs a command that must succeed.
    pub(crate) fn done(&self, arguments: &[&str]) -> Ran {
        let ran = self.run(arguments);
        assert_eq!(ran.code, 0, "{ran:?}");
        ran
    }

    /// Runs a command that must end with `code` and say each of `words` on stderr, and what is next.
    pub(crate) fn fails(&self, arguments: &[&str], code: i32, words: &[&str]) -> Ran {
        let ran = self.run(arguments);
        assert_eq!(ran.code, code, "{ran:?}");
        assert!(ran.err.starts_with("error: "), "{ran:?}");
        for word in words {
            assert!(ran.err.contains(word), "no {word:?} in {ran:?}");
        }
        assert_eq!(ran.out, "", "data where there is none: {ran:?}");
        ran
    }

    pub(crate) fn up(&self) -> Node<'_> {
        self.up_at("127.0.0.1:0")
    }

    pub(crate) fn up_at(&self, mesh: &str) -> Node<'_> {
        let mut child = self
            .command(&["up", "--http", "0", "--mesh", mesh, "-o", "json", "--log", "warn"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
        let addresses = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line:?}"));
        Node { home: self, child, addresses }
    }
}

/// A running node; it is killed if a test fails.
pub(crate) struct Node<'a> {
    pub(crate) home: &'a Home,
    pub(crate) child: Child,
    pub(crate) addresses: serde_json::Value,
}

impl Node<'_> {
    pub(crate) fn down(self) {
        self.home.done(&["down"]);
        self.ended();
    }

    /// Waits for its end, which is that of a node that was asked to end.
    pub(crate) fn ended(mut self) {
        let status = self.child.wait().expect("it ends");
        assert!(status.success() && status.signal().is_none(), "{status:?}");
    }
}

impl Drop for Node<'_> {
    fn drop(&mut self) {
        // It has ended already where the test went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) arguments: Vec<String>,
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    pub(crate) fn of(arguments: &[&str], output: Output) -> Self {
        Self {
            arguments: arguments.iter().map(ToString::to_string).collect(),
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}
