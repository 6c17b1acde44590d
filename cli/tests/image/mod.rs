//! An image with the binary of this build, and the commands that tests of containers run.
#![allow(dead_code, reason = "each test file uses a part")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

pub(crate) fn run(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().expect("it runs");
    // 5: recorded, and seen by nobody yet.
    let done = matches!(status.code(), Some(0 | 5));
    assert!(done, "{command:?}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).expect("text").trim().to_owned()
}

pub(crate) fn docker(arguments: &[&str]) -> String {
    run(Command::new("docker").args(arguments))
}

/// Terraform, or OpenTofu where that alone is here.
pub(crate) fn terraform() -> PathBuf {
    let path = std::env::var_os("PATH").expect("a PATH");
    let folders: Vec<_> = std::env::split_paths(&path).collect();
    let places = ["terraform", "tofu"].iter().flat_map(|name| folders.iter().map(move |at| at.join(name)));
    places.into_iter().find(|place| place.is_file()).expect("terraform or tofu")
}

/// Makes it, with the libraries that the binary names, the entry of the Dockerfile, and what else is said of it.
pub(crate) fn image(dir: &Path, name: &str, others: &[&str]) {
    let root = dir.join("image");
    fs::create_dir_all(root.join("data")).expect("made");
    let binary = env!("CARGO_BIN_EXE_osiris");
    run(Command::new("strip").arg("-o").arg(root.join("osiris")).arg(binary));
    for word in run(Command::new("ldd").arg(binary)).split_whitespace().filter(|word| word.starts_with('/')) {
        let to = root.join(&word[1..]);
        fs::create_dir_all(to.parent().expect("a folder")).expect("made");
        fs::copy(word, to).expect("copied");
    }
    run(Command::new("chown").arg("65532:65532").arg(root.join("data")));
    let tar = dir.join("image.tar");
    run(Command::new("tar").arg("-cf").arg(&tar).arg("-C").arg(&root).arg("."));
    let changes = [&["ENTRYPOINT [\"/osiris\"]"], others].concat();
    let mut import = Command::new("docker");
    import.arg("import");
    for change in changes {
        import.args(["--change", change]);
    }
    run(import.arg(tar).arg(name));
}
