//! What a command is handed through pipes: within --timeout, whatever the other end does.

use std::path::Path;
use std::process::{Command, Stdio};

/// Runs `osiris` in a folder; exit code and stderr.
fn run(folder: &Path, arguments: &[&str], stdin: Stdio) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_osiris"));
    command.args(arguments).env_clear().current_dir(folder).stdin(stdin);
    command.env("HOME", folder).env("OSIRIS_DATA", folder.join("data")).env("OSIRIS_MESH", "127.0.0.1:0");
    let output = command.output().expect("the binary runs");
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn founded() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let (code, err) = run(folder.path(), &["init", "--name", "home", "--label", "test"], Stdio::null());
    assert_eq!(code, 0, "{err}");
    folder
}

#[test]
fn a_pipe_that_nobody_writes_to_is_waited_for_no_longer_than_the_timeout() {
    let home = founded();
    let made = Command::new("mkfifo").arg(home.path().join("pipe")).status().expect("mkfifo runs");
    assert!(made.success());
    for arguments in [
        &["deploy", "pipe", "--name", "f", "--timeout", "300ms"][..],
        &["call", "f", "@pipe", "--timeout", "300ms"],
        &["join", "@pipe", "--timeout", "300ms"],
        &["recover", "--recovery-file", "pipe", "--timeout", "300ms"],
        &["user", "add", "isis", "--passphrase-file", "pipe", "--timeout", "300ms"],
    ] {
        let (code, err) = run(home.path(), arguments, Stdio::null());
        assert!(
            code == 6 && err.contains("within 300 ms") && err.contains("next: "),
            "{arguments:?}: {code} {err}"
        );
    }
}

#[test]
fn standard_input_that_stays_open_is_waited_for_no_longer_than_the_timeout() {
    let home = founded();
    for arguments in [&["call", "f", "-", "--timeout", "300ms"][..], &["join", "-", "--timeout", "300ms"]] {
        // Both ends stay open while the command runs.
        let (read, write) = std::io::pipe().expect("a pipe");
        let (code, err) = run(home.path(), arguments, read.into());
        assert!(code == 6 && err.contains("within 300 ms"), "{arguments:?}: {code} {err}");
        drop(write);
    }
}

#[test]
fn a_pipe_that_is_written_to_is_read_to_its_end() {
    let home = founded();
    let pipe = home.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs").success());
    let writer = std::thread::spawn(move || std::fs::write(pipe, osiris_examples::SUMMARY));
    let (code, err) = run(home.path(), &["deploy", "pipe", "--name", "f"], Stdio::null());
    assert_eq!(code, 0, "{err}");
    writer.join().expect("a writer").expect("written");
}
