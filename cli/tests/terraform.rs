//! What terraform/README.md says of all modules, by their text: this needs no Terraform, and so holds for those of
//! clouds, too, which no run of it here ever saw.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn top(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../terraform").join(folder)
}

fn folders(kind: &str) -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(top(kind)).expect("modules").map(|entry| entry.expect("an entry").path());
    let name = |path: &Path| path.file_name().expect("a name").to_string_lossy().into_owned();
    let mut folders: Vec<_> = entries.map(|path| (format!("{kind}/{}", name(&path)), path)).collect();
    folders.sort();
    folders
}

/// The text of a module's files.
fn module(folder: &Path) -> String {
    let files = fs::read_dir(folder).expect("files").map(|entry| entry.expect("an entry").path());
    let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "tf"));
    files.map(|path| fs::read_to_string(path).expect("text")).collect()
}

/// The blocks of a kind, each with its name and the lines within.
fn blocks(text: &str, kind: &str) -> Vec<(String, String)> {
    let begins = format!("\n{kind} \"");
    let parts = text.split(begins.as_str()).skip(1);
    let block = |part: &str| {
        let (name, rest) = part.split_once("\" {\n").expect("a name and a block");
        let (inner, _) = rest.split_once("\n}").expect("its end");
        (name.to_owned(), inner.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    parts.map(block).collect()
}

fn names(blocks: &[(String, String)]) -> BTreeSet<&str> {
    blocks.iter().map(|(name, _)| name.as_str()).collect()
}

fn has(name: &str, blocks: &[(String, String)], kind: &str, contract: &[&str]) {
    let there = names(blocks);
    let missing: Vec<_> = contract.iter().filter(|one| !there.contains(**one)).collect();
    assert!(missing.is_empty(), "{name} has no {kind} {missing:?}, only {there:?}");
}

#[test]
fn every_machine_takes_and_gives_what_the_contract_says() {
    let machines = folders("machines");
    let known: Vec<_> = machines.iter().map(|(name, _)| name.as_str()).collect();
    for target in ["machines/docker", "machines/process", "machines/ssh"] {
        assert!(known.contains(&target), "{known:?}");
    }
    for (name, folder) in &machines {
        let text = format!("\n{}", module(folder));
        let (variables, outputs) = (blocks(&text, "variable"), blocks(&text, "output"));
        has(name, &variables, "variable", &["spawn_id", "label", "ticket", "osiris"]);
        has(name, &outputs, "output", &["target", "spawn_id", "place"]);
        for (variable, inner) in &variables {
            assert!(inner.contains("description = "), "{name}: {variable} is not described");
            assert!(inner.contains("type = string"), "{name}: {variable} is no string");
            assert!(inner.contains("validation { condition"), "{name}: {variable} may be anything");
        }
        let ticket = variables.iter().find(|(name, _)| name == "ticket").map_or("", |(_, inner)| inner);
        for said in ["sensitive = true", "ephemeral = true", "default = null"] {
            assert!(ticket.contains(said), "{name}: the ticket has no `{said}`");
        }
        let target = outputs.iter().find(|(name, _)| name == "target").map_or("", |(_, inner)| inner);
        let short = name.rsplit('/').next().expect("a name");
        assert!(
            target.contains(&format!("value = \"{short}\"")),
            "{name}: it calls itself otherwise: {target}"
        );
    }
}

#[test]
fn every_first_node_takes_and_gives_what_the_contract_says() {
    for (name, folder) in folders("modules") {
        let text = format!("\n{}", module(&folder));
        let variables = ["spawn_id", "fleet_name", "label", "http", "mesh", "token_file"];
        has(&name, &blocks(&text, "variable"), "variable", &variables);
        has(&name, &blocks(&text, "output"), "output", &["target", "spawn_id", "id", "http", "place"]);
    }
}

#[test]
fn every_module_is_in_the_list_and_says_how_it_was_tried() {
    let list = fs::read_to_string(top("README.md")).expect("text");
    for (name, folder) in folders("machines").into_iter().chain(folders("modules")) {
        assert!(list.contains(&format!("]({name})")), "{name} is in no table of terraform/README.md");
        assert!(folder.join("README.md").is_file(), "{name} has no README.md");
    }
}

#[test]
fn every_provisioner_is_run_by_the_program_itself() {
    for (name, folder) in folders("machines").into_iter().chain(folders("modules")) {
        let text = module(&folder);
        let provisioners = text.matches("provisioner \"local-exec\" {").count();
        let by_the_program = text.matches("    interpreter = [self.input.osiris").count();
        // Without an interpreter it is a shell.
        assert!(
            provisioners > 0 && by_the_program == provisioners,
            "{name}: {by_the_program} of {provisioners}"
        );
        assert!(!text.contains("provisioner \"remote-exec\""), "{name} runs a shell elsewhere");
    }
}
