//! `osiris scale`, `osiris member label` and `osiris member budget`, without a node.

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

fn code(home: &TempDir, arguments: &[&str]) -> Option<i32> {
    osiris(home, arguments).status.code()
}

fn json(home: &TempDir, arguments: &[&str]) -> serde_json::Value {
    let (out, _) = done(home, arguments);
    serde_json::from_str(&out).expect("JSON")
}

#[test]
fn bounds_and_labels_are_written_and_shown() {
    let home = tempfile::tempdir().expect("a folder");
    done(&home, &["init", "--name", "home", "--label", "test"]);
    let (_, said) = done(&home, &["scale", "explain"]);
    assert!(said.contains("nothing is measured"), "{said}");
    assert_eq!(code(&home, &["scale", "hello", "--min", "1", "--max", "3"]), Some(3), "there is none");
    std::fs::write(home.path().join("f.wasm"), osiris_examples::SUMMARY).expect("written");
    done(&home, &["deploy", "f.wasm", "--name", "hello"]);

    assert!(done(&home, &["describe", "hello"]).0.contains("replicas     all"));
    let (out, _) = done(&home, &["scale", "hello", "--min", "0", "--max", "3"]);
    assert!(out.contains("hello has 0 to 3 replicas from now on"), "{out}");
    let (out, _) = done(&home, &["describe", "hello"]);
    assert!(out.contains("replicas     0 to 3, by its calls (`osiris scale` set it)"), "{out}");
    assert_eq!(json(&home, &["ls", "-o", "json"])[0]["state"], "pending", "it starts with one");
    done(&home, &["scale", "--all", "--max", "9"]);
    let (log, _) = done(&home, &["ledger", "log"]);
    assert!(log.contains("keeps hello between 0 and 3 replica(s)"), "{log}");
    assert!(log.contains("keeps all scaled functions together at no more than 9 replica(s)"), "{log}");
    let said = json(&home, &["scale", "explain", "-o", "json"]);
    assert_eq!(said["fleet_max"], 9, "{said}");
    let (out, _) = done(&home, &["scale", "hello", "--reset"]);
    assert!(out.contains("the manifest of hello says"), "{out}");

    done(&home, &["member", "label", "test", "zone=a", "gpu"]);
    let nodes = json(&home, &["nodes", "-o", "json"]);
    assert_eq!(nodes[0]["labels"], serde_json::json!(["gpu", "zone=a"]), "{nodes}");
    done(&home, &["member", "label", "test"]);
    assert_eq!(json(&home, &["nodes", "-o", "json"])[0]["labels"], serde_json::json!([]));

    for wrong in [
        &["scale", "hello"][..],
        &["scale", "hello", "--min", "2"],
        &["scale", "hello", "--min", "3", "--max", "2"],
        &["scale", "--all", "--min", "0", "--max", "2"],
        &["member", "label", "test", "a b"],
        &["member", "label", "test", "zone=a", "zone=b"],
    ] {
        let code = code(&home, wrong);
        assert!(code.is_some_and(|code| code > 0), "{wrong:?}: {code:?}");
    }
    let manifest = "name = \"far\"\ncomponent = \"f.wasm\"\n[place]\nlabels = [\"gpu\", \"zone=a\"]\n[scale]\nmin = 2\nmax = 5\n";
    std::fs::write(home.path().join("osiris.toml"), manifest).expect("written");
    let (out, said) = done(&home, &["deploy", "--dry-run"]);
    assert!(out.contains("2 to 5, by its calls") && out.contains("on no member as it is"), "{out}");
    assert!(said.contains("no node that does not drain bears gpu zone=a"), "{said}");
    done(&home, &["deploy"]);
    let problem = || json(&home, &["describe", "far", "-o", "json"])["problem"].clone();
    let said = "No member bears all the labels that it asks for: \
                `osiris member label MEMBER gpu zone=a` gives them.";
    assert_eq!(problem(), said);
    done(&home, &["member", "label", "test", "zone=a", "gpu"]);
    assert_eq!(problem(), serde_json::Value::Null);
    let plan = json(&home, &["deploy", "--dry-run", "-o", "json"]);
    assert_eq!(plan["may_serve"], serde_json::json!(["test"]));
    assert_eq!(code(&home, &["scale", "none", "--dry-run"]), Some(3));
    assert_eq!(code(&home, &["scale", "hello", "--dry-run"]), Some(1), "it exists, and no node runs");
}

#[test]
fn a_budget_is_written_shown_and_warned_of_before_it_is_spent() {
    let home = tempfile::tempdir().expect("a folder");
    done(&home, &["init", "--name", "home", "--label", "test"]);
    let row = || json(&home, &["nodes", "-o", "json"])[0].clone();
    assert_eq!(row()["budget"], 50_000);
    let (out, _) = done(&home, &["member", "budget", "test", "100"]);
    assert!(out.contains("test may write 100 blocks from now on; 1 block of it are known here"), "{out}");
    assert_eq!((&row()["budget"], &row()["blocks"]), (&100.into(), &2.into()));
    let (log, _) = done(&home, &["ledger", "log"]);
    assert!(log.contains("allows test 100 block(s)"), "{log}");
    let warned = || String::from_utf8(osiris(&home, &["doctor"]).stdout).expect("text").contains("may write");
    assert!(!warned());
    done(&home, &["member", "budget", "test", "3"]);
    assert!(warned());
    assert!(!done(&home, &["nodes"]).0.contains("over its budget"));
    done(&home, &["member", "label", "test", "gpu"]);
    assert!(done(&home, &["nodes"]).0.contains("over its budget"));
    // It is its own admin, and may say otherwise.
    done(&home, &["member", "budget", "test", "1000"]);
    assert!(!warned() && !done(&home, &["nodes"]).0.contains("over its budget"));
    for (wrong, expected) in [
        (&["member", "budget", "test", "0"][..], 2),
        (&["member", "budget", "test", "1000000001"], 2),
        (&["member", "budget", "nobody", "9"], 3),
    ] {
        assert_eq!(code(&home, wrong), Some(expected), "{wrong:?}");
    }
}
