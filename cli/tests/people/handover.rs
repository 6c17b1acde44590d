//! What is deployed from a device whose node does not run is with a member before the command says so.

use super::{Home, founder, joined};

/// A component of so many MiB: the example, with a section that nobody reads.
fn padded(mib: usize, seed: u8) -> Vec<u8> {
    let mut section = vec![1, b'x'];
    section.extend((0..(mib << 20) + usize::from(seed)).map(|n| (n % 251) as u8 ^ seed));
    let mut component = osiris_examples::SUMMARY.to_vec();
    component.push(0);
    let mut length = section.len();
    while length >= 0x80 {
        component.push(length as u8 | 0x80);
        length >>= 7;
    }
    component.push(length as u8);
    component.extend(section);
    component
}

/// Whether a library holds a file of exactly so many bytes that is no half of one.
fn holds(home: &Home, bytes: usize) -> bool {
    let files = std::fs::read_dir(home.0.path().join("data/library")).expect("a library").flatten();
    let whole = |file: &std::fs::DirEntry| file.path().extension().is_some_and(|ending| ending == "blob");
    files.into_iter().any(|file| whole(&file) && file.metadata().is_ok_and(|m| m.len() == bytes as u64))
}

#[test]
fn a_component_is_with_a_member_before_a_deploy_without_a_node_is_done() {
    let (home, node) = founder();
    let guest = joined(&home, "guest");
    let _guest_node = guest.up();
    home.done(&["sync"]);
    drop(node);
    // Some have no time for it, and say so; with time it is handed over, by the deploy or by a later contact.
    for (n, timeout) in [(0, "60s"), (1, "900ms"), (2, "1500ms"), (3, "3s")] {
        let component = padded(48, n);
        std::fs::write(home.0.path().join("large.wasm"), &component).expect("written");
        let name = format!("large-{n}");
        let deploy = ["deploy", "large.wasm", "--name", &name, "--timeout", timeout];
        let output = home.command(&deploy).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        match output.status.code() {
            Some(0) => {
                assert!(holds(&guest, component.len()), "{timeout}: done, and nobody has it: {said}");
                let shown = String::from_utf8_lossy(&output.stdout);
                assert!(shown.contains("on this device, and on 1 other node"), "{shown}");
            }
            Some(5) => assert!(said.contains("next: "), "{said}"),
            other => panic!("{timeout}: {other:?} {said}"),
        }
    }
    // Whoever could not get it asks again when this device is back.
    let lengths = (0..4).map(|n| padded(48, n).len()).collect::<std::collections::BTreeSet<_>>();
    assert_eq!(lengths.len(), 4, "told apart by their lengths");
    let mut syncs = 0;
    while !lengths.iter().all(|length| holds(&guest, *length)) {
        syncs += 1;
        assert!(syncs < 20, "a member never asks again");
        home.ends(&["sync", "--timeout", "60s"], &[0, 5, 6]);
    }
}
