//! What is refused for what it holds or asks, through the command: the sentence, the exit code, and that nothing
//! came of it.

mod driven;

use std::net::UdpSocket;

use driven::Home;
use osiris_protocol::ticket::{InvitationSecret, Ticket};
use serde_json::json;

/// A native component that is in order, but for one interface that it imports.
fn importing(interface: &str) -> Vec<u8> {
    let text = format!(
        r#"(component
        (import "{interface}" (instance))
        (core module $m
            (memory (export "memory") 1)
            (func (export "realloc") (param i32 i32 i32 i32) (result i32) i32.const 1024)
            (func (export "call") (param i32 i32) (result i32) i32.const 0))
        (core instance $i (instantiate $m))
        (func (export "call") (param "input" string) (result (result string (error string)))
            (canon lift (core func $i "call") (memory (core memory $i "memory")) (realloc (core func $i "realloc")))))"#
    );
    wat::parse_str(text).expect("valid text")
}

#[test]
fn a_component_that_imports_what_nothing_grants_is_refused_and_not_recorded() {
    let home = Home::founded();
    let granted = home.write("granted.wasm", &importing("wasi:random/random@0.2.0"));
    home.done(&["deploy", &granted, "--name", "granted", "--dry-run"]);
    let store = home.write("store.wasm", &importing("wasi:keyvalue/store@0.2.0"));
    let held = || {
        let library = std::fs::read_dir(home.path().join("data/library"));
        (home.done(&["ledger", "log"]).out, library.map_or(0, Iterator::count))
    };
    let before = held();
    let words =
        ["store.wasm", "imports 'wasi:keyvalue/store@0.2.0'", "does not offer", "next: ", "without that"];
    for arguments in [&["--name", "a"][..], &["--name", "a", "--dry-run"]] {
        home.fails(&[&["deploy", &store], arguments].concat(), 1, &words);
    }
    // The same where a node runs.
    let node = home.up();
    home.fails(&["deploy", &store, "--name", "a", "--wait"], 1, &words);
    assert_eq!(home.done(&["ls", "-o", "json"]).json(), json!([]));
    home.fails(&["call", "a", "1"], 3, &["no function `a`"]);
    node.down();
    assert_eq!(held(), before, "something was recorded or kept");
}

#[test]
fn a_ticket_whose_invitation_was_withdrawn_admits_nobody() {
    let home = Home::founded();
    let node = home.up();
    let ticket = home.done(&["invite", "--uses", "2"]).out.trim().to_owned();
    let first = Home::new();
    first.done(&["join", &ticket, "--label", "first"]);
    let id = home.done(&["invite", "ls", "-o", "json"]).json()[0]["id"].as_str().expect("an id").to_owned();
    // The first one's node does not run, so nobody else sees it yet.
    let withdrawn = home.run(&["invite", "revoke", &id, "--timeout", "100ms"]);
    assert!(withdrawn.code == 5 && withdrawn.out.contains("withdrew the invitation"), "{withdrawn:?}");
    let guest = Home::new();
    guest.fails(&["join", &ticket, "--timeout", "30s"], 4, &["The invitation was withdrawn", "a new ticket"]);
    guest.fails(&["up"], 3, &["belongs to no fleet"]);
    let members = home.done(&["nodes", "-o", "json"]).json();
    let mut labels: Vec<_> = members.as_array().expect("rows").iter().map(|row| &row["label"]).collect();
    labels.sort_by_key(|label| label.as_str());
    assert_eq!(labels, ["first", "test"], "who had joined before stays, and nobody came");
    node.down();
}

#[test]
fn an_invitation_that_was_altered_admits_nobody() {
    let home = Home::founded();
    let node = home.up();
    let ticket = home.done(&["invite"]).out.trim().to_owned();
    let guest = Home::new();
    // One character, at places all over it: the check sum does not fit, and nobody is asked.
    for place in (0..ticket.len()).step_by(11).chain([ticket.len() - 1]) {
        let other = if &ticket[place..=place] == "a" { "b" } else { "a" };
        let altered = format!("{}{other}{}", &ticket[..place], &ticket[place + 1..]);
        let said = guest.fails(&["join", &altered], 2, &["icket", "next: "]);
        assert!(!said.err.contains(&altered), "a secret is told: {said:?}");
    }
    assert!(!guest.path().join("data").exists());
    // Altered by somebody who knows the format: another secret, and another invitation.
    let Ok(Ticket::Join(join)) = ticket.parse::<Ticket>() else { panic!("no ticket to join by: {ticket}") };
    let mut secret = join.clone();
    secret.secret = InvitationSecret::new([7; 32]);
    let mut invitation = join;
    invitation.invitation[0] ^= 1;
    for forged in [secret, invitation] {
        let forged = Ticket::Join(forged).encode().expect("encoded");
        guest.fails(&["join", &forged, "--timeout", "30s"], 4, &["refused", "a new ticket"]);
        guest.fails(&["up"], 3, &["belongs to no fleet"]);
    }
    assert_eq!(home.done(&["nodes", "-o", "json"]).json().as_array().map(Vec::len), Some(1));
    // The ticket itself was not used up by that.
    guest.done(&["join", &ticket]);
    node.down();
}

#[test]
fn a_node_whose_mesh_port_is_taken_says_so_and_ends() {
    let home = Home::founded();
    let taken = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let mesh = taken.local_addr().expect("bound").to_string();
    let up = ["up", "--http", "0", "--log", "error", "--mesh", &mesh];
    let words = ["The mesh cannot start", &mesh, "next: ", "--mesh ADDR"];
    home.fails(&up, 1, &words);
    // Also where the node was elsewhere before: an address that was asked for is not exchanged for another.
    home.up().down();
    home.fails(&up, 1, &words);
    assert_eq!(home.done(&["status", "-o", "json"]).json()["state"], "stopped");
    drop(taken);
    let node = home.up_at(&mesh);
    assert_eq!(node.addresses["mesh"][0], mesh);
    node.down();
}
