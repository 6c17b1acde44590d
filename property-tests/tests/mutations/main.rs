//! Whether the tests notice that a safeguard is gone: it is taken out of a copy of the tree, and the test
//! that names it must go red. `property-tests/mutations/run` does so; here, each change still has to fit.

mod table;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use table::{ALL, Mutation, Test};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace").to_owned()
}

impl Mutation {
    /// The file without the safeguard.
    fn apply(&self, root: &Path) -> Result<String, String> {
        let text =
            fs::read_to_string(root.join(self.file)).map_err(|error| format!("{}: {error}", self.file))?;
        match text.matches(self.find).count() {
            1 => Ok(text.replacen(self.find, self.replace, 1)),
            found => {
                Err(format!("{}: the text to replace in {} stands there {found} times", self.name, self.file))
            }
        }
    }
}

/// Whether a test's source has a test of that name.
fn exists(root: &Path, Test(package, file, name): Test) -> bool {
    let folder = match package {
        "osiris-ledger" => "crdt-ledger/tests",
        "osiris-fleet" => "fleet/tests",
        "osiris-property-tests" => "property-tests/tests",
        _ => return false,
    };
    let folder = root.join(folder).join(file);
    let has =
        |path: PathBuf| fs::read_to_string(path).is_ok_and(|text| text.contains(&format!("fn {name}(")));
    has(folder.with_extension("rs")) || has(folder.join("main.rs"))
}

#[test]
fn every_mutation_still_fits_and_names_a_test() {
    let root = root();
    let wrong: Vec<_> = ALL.iter().filter_map(|mutation| mutation.apply(&root).err()).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    let missing: Vec<_> = ALL.iter().filter(|mutation| !exists(&root, mutation.test)).collect();
    assert!(missing.is_empty(), "no such test: {missing:#?}");
    let names: BTreeSet<_> = ALL.iter().map(|mutation| mutation.name).collect();
    assert_eq!(names.len(), ALL.len(), "a name twice");
}

/// A copy of what git tracks of the tree. Files that are the same keep their times, so that little is
/// built again.
fn copy_tree(root: &Path, copy: &Path) {
    let listed =
        Command::new("git").args(["ls-files", "-z", "-co", "--exclude-standard"]).current_dir(root).output();
    let listed = listed.expect("git runs");
    assert!(listed.status.success(), "git lists the tree's files");
    for name in String::from_utf8(listed.stdout).expect("names in UTF-8").split_terminator('\0') {
        let Ok(bytes) = fs::read(root.join(name)) else { continue };
        let target = copy.join(name);
        if fs::read(&target).is_ok_and(|held| held == bytes) {
            continue;
        }
        fs::create_dir_all(target.parent().expect("below the copy")).expect("made");
        fs::write(target, bytes).expect("written");
    }
}

/// What a test says.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Green,
    Red,
    /// It did not run at all, and why.
    NotRun(String),
}

fn run(copy: &Path, Test(_, file, name): Test) -> Outcome {
    let mut command = Command::new(env!("CARGO"));
    command.args(["test", "--locked", "--quiet", "--workspace", "--test", file, "--", "--exact", name]);
    command.env("CARGO_TERM_COLOR", "never").current_dir(copy);
    let ran = command.output().expect("cargo runs");
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    if said.contains("test result: ok. 1 passed") {
        Outcome::Green
    } else if said.contains("test result: FAILED. 0 passed; 1 failed") {
        Outcome::Red
    } else {
        Outcome::NotRun(format!("{said}{}", String::from_utf8_lossy(&ran.stderr)))
    }
}

#[test]
#[ignore = "it is run by property-tests/mutations/run"]
fn every_mutation_turns_its_test_red() {
    let root = root();
    let copy = root.join("target/mutations/tree");
    copy_tree(&root, &copy);
    let wanted = std::env::var("OSIRIS_MUTATIONS").unwrap_or_default();
    let is_chosen = |mutation: &&Mutation| mutation.name.contains(&wanted) || mutation.test.1 == wanted;
    let chosen: Vec<_> = ALL.iter().filter(is_chosen).collect();
    assert!(!chosen.is_empty(), "no mutation's name contains {wanted:?}");
    for test in chosen.iter().map(|mutation| mutation.test).collect::<BTreeSet<_>>() {
        assert_eq!(run(&copy, test), Outcome::Green, "{test:?} must be green before anything is taken out");
    }
    println!("{:66} {:9} test", "taken out", "outcome");
    let mut wrong = 0;
    for mutation in chosen {
        let path = copy.join(mutation.file);
        let mutated = mutation.apply(&copy).expect("it fits");
        let whole = fs::read(&path).expect("read");
        fs::write(&path, mutated).expect("written");
        let outcome = run(&copy, mutation.test);
        fs::write(&path, whole).expect("written back");
        let Test(_, file, name) = mutation.test;
        let word = match &outcome {
            Outcome::Red => "red",
            Outcome::Green => "SURVIVED",
            Outcome::NotRun(_) => "NOT RUN",
        };
        println!("{:66} {word:9} {file}: {name}", mutation.name);
        if let Outcome::NotRun(why) = &outcome {
            println!("{why}");
        }
        wrong += u32::from(outcome != Outcome::Red);
    }
    assert_eq!(wrong, 0, "so many safeguards can go without a test that notices");
}
