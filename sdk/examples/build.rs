//! Builds the example functions for `wasm32-wasip2` with the toolchain that builds this crate.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const TARGET: &str = "wasm32-wasip2";

/// What the outer build says about itself and the inner one must not hear: its flags, wrappers, profile,
/// target and the compiler under clippy.
const LEAKS: &[&str] = &[
    "RUSTFLAGS",
    "RUSTDOCFLAGS",
    "RUSTC",
    "RUSTDOC",
    "RUSTC_LINKER",
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
    "CLIPPY_ARGS",
    "CLIPPY_CONF_DIR",
    "MAKEFLAGS",
    "CARGO_MAKEFLAGS",
    "CARGO_INCREMENTAL",
    "HOST",
    "TARGET",
    "PROFILE",
    "OPT_LEVEL",
    "DEBUG",
    "NUM_JOBS",
    "OUT_DIR",
];
const LEAKING_PREFIXES: &[&str] = &[
    "CARGO_BUILD_",
    "CARGO_CFG_",
    "CARGO_ENCODED_",
    "CARGO_FEATURE_",
    "CARGO_MANIFEST_",
    "CARGO_PKG_",
    "CARGO_PROFILE_",
    "CARGO_TARGET_",
    "CARGO_UNSTABLE_",
    "DEP_",
];

fn main() {
    let manifest_dir = PathBuf::from(required("CARGO_MANIFEST_DIR"));
    let examples = manifest_dir.join("../../examples");
    for path in ["../../examples", "../function/src", "../function/Cargo.toml", "../protocol/wit"] {
        watch(&manifest_dir.join(path));
    }
    ensure_target();
    let out = PathBuf::from(required("OUT_DIR"));
    let target_dir = out.join("build");
    for (package, features, name) in [
        ("summary", "", "summary"),
        ("summary", "v2", "summary_v2"),
        ("chart", "", "chart"),
        ("sensor", "", "sensor"),
    ] {
        build(&examples, &target_dir, package, features);
        let built = target_dir.join(TARGET).join("release").join(format!("{package}.wasm"));
        let target = out.join(format!("{name}.wasm"));
        if let Err(error) = fs::copy(&built, &target) {
            panic!("The example {} cannot be copied to {}: {error}.", built.display(), target.display());
        }
    }
}

fn required(name: &str) -> OsString {
    env::var_os(name).unwrap_or_else(|| panic!("Cargo did not set {name}; run this build script with cargo."))
}

/// Asks cargo to run this again when a source changes, and not when a README does.
fn watch(path: &Path) {
    if path.is_dir() {
        let name = path.file_name().unwrap_or_default();
        // The folder itself changes when a source is added or removed.
        if name == "src" || name == "wit" {
            println!("cargo::rerun-if-changed={}", path.display());
        }
        // The target folder of somebody who builds the examples by hand holds no source.
        for child in fs::read_dir(path).into_iter().flatten().flatten().filter(|c| c.file_name() != "target")
        {
            watch(&child.path());
        }
    } else if path.extension().is_some_and(|e| e == "rs" || e == "toml" || e == "lock" || e == "wit") {
        println!("cargo::rerun-if-changed={}", path.display());
    }
}

/// A command that hears nothing of the outer build.
fn clean(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if LEAKS.contains(&&*text) || LEAKING_PREFIXES.iter().any(|p| text.starts_with(p)) {
            command.env_remove(&name);
        }
    }
    command
}

/// The folder of the toolchain that builds this crate.
fn sysroot() -> PathBuf {
    let rustc = required("RUSTC");
    let output = clean(&rustc).args(["--print", "sysroot"]).output();
    match output {
        Ok(output) if output.status.success() => {
            PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
        }
        _ => panic!("The compiler {} does not answer; repair the Rust toolchain.", rustc.to_string_lossy()),
    }
}

/// Adds the target to the toolchain where it is missing: rustup does not always do that by itself.
fn ensure_target() {
    let sysroot = sysroot();
    let folder = sysroot.join("lib/rustlib").join(TARGET);
    if folder.join("lib").is_dir() {
        return;
    }
    let toolchain = sysroot.file_name().unwrap_or_default().to_owned();
    let added = clean("rustup").args(["target", "add", TARGET, "--toolchain"]).arg(&toolchain).output();
    let reason = match added {
        Ok(output) if output.status.success() && folder.join("lib").is_dir() => return,
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().replace('\n', " / "),
        Err(error) => error.to_string(),
    };
    panic!(
        "The example functions need the Rust target {TARGET}, which could not be added ({reason}): run `rustup target \
         add {TARGET} --toolchain {}` with a network connection, then build again.",
        toolchain.to_string_lossy()
    );
}

fn build(examples: &Path, target_dir: &Path, package: &str, features: &str) {
    let output = clean(required("CARGO"))
        .current_dir(examples)
        .args(["build", "--release", "--locked", "--target", TARGET, "--lib", "--package", package])
        .args(["--features", features])
        .arg("--target-dir")
        .arg(target_dir)
        .output();
    match output {
        Ok(output) if output.status.success() => {}
        Ok(output) => panic!(
            "The example function {package} cannot be built; build it by hand in {} to look into it:\n{}",
            examples.display(),
            String::from_utf8_lossy(&output.stderr)
        ),
        Err(error) => panic!("Cargo cannot be started to build the example functions: {error}."),
    }
}
