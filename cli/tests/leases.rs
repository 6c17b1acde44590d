//! `osiris lease`: with a node and without one.

use std::process::{Command, Output};

use tempfile::TempDir;

fn osiris(home: &TempDir, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_osiris"));
    command.args(arguments).env_clear().current_dir(home.path());
    command.env("HOME", home.path()).env("OSIRIS_DATA", home.path().join("data"));
    command.env("OSIRIS_MESH", "127.0.0.1:0").output().expect("the binary runs")
}

fn done(home: &TempDir, arguments: &[&str]) -> (String, String) {
    let Output { status, stdout, stderr } = osiris(home, arguments);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    let (out, err) = (text(stdout), text(stderr));
    assert!(status.success(), "{arguments:?}: {out}{err}");
    (out, err)
}

#[test]
fn an_admin_says_how_many_machines_the_fleet_may_make_and_everybody_sees_it() {
    let home = tempfile::tempdir().expect("a folder");
    done(&home, &["init", "--name", "home", "--label", "test"]);
    let (_, said) = done(&home, &["lease", "ls"]);
    assert!(said.contains("no slot was claimed yet") && said.contains("at most 0 machines"), "{said}");
    let (out, _) = done(&home, &["lease", "limit", "--machines", "3", "--minority", "allow"]);
    assert!(out.contains("the fleet may make 3 machines"), "{out}");
    let (out, _) = done(&home, &["lease", "ls", "-o", "json"]);
    let leases: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((&leases["machines_max"], &leases["minority"]), (&3.into(), &true.into()), "{leases}");
    assert_eq!((&leases["machines_here"], &leases["voters"]), (&0.into(), &1.into()), "{leases}");
    let (log, _) = done(&home, &["ledger", "log"]);
    assert!(log.contains("allows the fleet 3 machine(s)"), "{log}");
    let refused = osiris(&home, &["lease", "limit", "--machines", "1001"]);
    assert_eq!(refused.status.code(), Some(2));
}
