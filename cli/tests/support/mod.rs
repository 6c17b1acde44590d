//! Folders to damage, and what `osiris ledger verify` says of them.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Header and frame of the journal's format (`osiris_ledger::journal`).
pub(crate) const HEADER: usize = 44;
const FRAME: usize = 36;
/// Longer than any command here takes, unless it hangs.
const HANGS: Duration = Duration::from_secs(120);

/// A folder of its own for the data and for everything else that a home folder holds.
pub(crate) struct Home(tempfile::TempDir);

/// What was found.
pub(crate) struct Found {
    pub(crate) code: i32,
    pub(crate) problems: Vec<Problem>,
    /// All that was printed.
    pub(crate) text: String,
}

#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) what: String,
    pub(crate) file: String,
    pub(crate) record: Option<u64>,
    pub(crate) byte: Option<u64>,
    pub(crate) next: String,
}

impl Home {
    /// A folder with a fleet and so many deploys more, of which only the files are left that say something.
    pub(crate) fn founded(deploys: usize) -> Self {
        let home = Self(tempfile::tempdir().expect("a folder"));
        home.done(&["init", "--name", "home", "--label", "test"]);
        for n in 0..deploys {
            home.deploy(&format!("f-{n}"));
        }
        // Where there is no lock file, none is made by looking.
        std::fs::remove_file(home.file("lock")).expect("removed");
        home
    }

    pub(crate) fn deploy(&self, name: &str) {
        let wasm = self.0.path().join("summary.wasm");
        std::fs::write(&wasm, osiris_examples::SUMMARY).expect("written");
        self.done(&["deploy", wasm.to_str().expect("UTF-8"), "--name", name]);
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.path().join("data").join(name)
    }

    pub(crate) fn put(&self, file: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.file(file), bytes).expect("written");
    }

    pub(crate) fn journal(&self) -> Vec<u8> {
        std::fs::read(self.file("journal")).expect("the journal")
    }

    /// The same files in another place.
    pub(crate) fn copied(&self) -> Self {
        let copy = Self(tempfile::tempdir().expect("a folder"));
        copy_folder(&self.file(""), &copy.file(""));
        copy
    }

    /// The component that all functions have, and one of the manifests, below the data folder.
    pub(crate) fn blobs(&self) -> (String, String) {
        let blobs = std::fs::read_dir(self.file("library")).expect("the library");
        let mut blobs: Vec<_> = blobs
            .map(|entry| entry.expect("an entry"))
            .map(|entry| (entry.metadata().expect("there").len(), entry.file_name()))
            .collect();
        blobs.sort();
        let name =
            |(_, name): &(u64, std::ffi::OsString)| format!("library/{}", name.to_str().expect("UTF-8"));
        (name(blobs.last().expect("a component")), name(blobs.first().expect("a manifest")))
    }

    /// Exit code, stdout and stderr.
    pub(crate) fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_osiris"));
        command.args(arguments).env_clear().current_dir(self.0.path());
        command.env("HOME", self.0.path()).env("OSIRIS_DATA", self.file(""));
        command.env("OSIRIS_MESH", "127.0.0.1:0").env("OSIRIS_HTTP", "127.0.0.1:0");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary runs");
        let [mut out, mut err] = [String::new(), String::new()];
        let (mut stdout, mut stderr) =
            (child.stdout.take().expect("a pipe"), child.stderr.take().expect("one"));
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            stderr.read_to_string(&mut text).map(|_| text)
        });
        let start = Instant::now();
        let watched = std::thread::spawn(move || {
            loop {
                if let Some(status) = child.try_wait().expect("a child") {
                    return Some(status);
                }
                if start.elapsed() > HANGS {
                    child.kill().expect("ended");
                    child.wait().expect("ended");
                    return None;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        stdout.read_to_string(&mut out).expect("text");
        err.push_str(&reader.join().expect("read").expect("text"));
        let status = watched.join().expect("watched");
        let status = status.unwrap_or_else(|| panic!("{arguments:?} hangs: {out} {err}"));
        (status.code().unwrap_or(-1), out, err)
    }

    fn done(&self, arguments: &[&str]) {
        let (code, _, err) = self.run(arguments);
        assert!(code == 0 || code == 5, "{arguments:?}: {err}");
    }

    /// What verify finds; the same for people and for programs.
    pub(crate) fn verified(&self) -> Found {
        let (code, out, err) = self.run(&["ledger", "verify", "-o", "json"]);
        let said: serde_json::Value =
            serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {code} {out} {err}"));
        let problem = |said: &serde_json::Value| {
            let text = |said: &serde_json::Value| said.as_str().expect("text").to_owned();
            let place = &said["place"];
            Problem {
                what: text(&said["what"]),
                file: text(&place["file"]),
                record: place["record"].as_u64(),
                byte: place["byte"].as_u64(),
                next: text(&said["next"]),
            }
        };
        let problems: Vec<_> = said["problems"].as_array().expect("a list").iter().map(problem).collect();
        for problem in &problems {
            assert!(problem.what.ends_with('.') && problem.next.ends_with('.'), "no sentences: {problem:?}");
            assert!(err.contains(&problem.what) && err.contains(&format!("next: {}", problem.next)), "{err}");
        }
        Found { code, problems, text: format!("{out}{err}") }
    }
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("made");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copied");
        }
    }
}

/// Everything that can be seen of a folder from outside, when it was last looked at apart.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Snapshot(BTreeMap<PathBuf, (u32, u64, i64, i64, Vec<u8>)>);

impl Snapshot {
    pub(crate) fn of(home: &Home) -> Self {
        let mut all = BTreeMap::new();
        let mut folders = vec![home.0.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).expect("a folder").chain([]) {
                let path = entry.expect("an entry").path();
                let found = std::fs::symlink_metadata(&path).expect("there");
                let kind = found.file_type();
                let bytes = match (kind.is_file(), kind.is_symlink()) {
                    (true, _) => std::fs::read(&path).unwrap_or_default(),
                    (_, true) => {
                        std::fs::read_link(&path).expect("a link").into_os_string().into_encoded_bytes()
                    }
                    _ => Vec::new(),
                };
                let seen = (found.mode(), found.ino(), found.mtime(), found.mtime_nsec(), bytes);
                all.insert(path.clone(), seen);
                if kind.is_dir() {
                    folders.push(path);
                }
            }
        }
        Self(all)
    }
}

/// Where records start, and the end.
pub(crate) fn places(journal: &[u8]) -> Vec<usize> {
    let mut places = vec![HEADER];
    while let Some(length) = journal.get(places[places.len() - 1] + 4..).and_then(|rest| rest.first_chunk()) {
        places.push(places[places.len() - 1] + FRAME + u32::from_le_bytes(*length) as usize);
    }
    assert_eq!(places.last(), Some(&journal.len()));
    places
}

pub(crate) fn cut(home: &Home, file: &str, len: usize) {
    let bytes = std::fs::read(home.file(file)).expect("a file");
    std::fs::write(home.file(file), &bytes[..len]).expect("cut");
}

/// Puts something else in a file's place; a link leads to what was there.
pub(crate) fn exchange(home: &Home, file: &str, kind: &str) {
    let path = home.file(file);
    let elsewhere = home.0.path().join("elsewhere");
    if path.exists() {
        std::fs::rename(&path, &elsewhere).expect("moved");
    } else {
        std::fs::write(&elsewhere, b"").expect("written");
    }
    match kind {
        "pipe" => {
            let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
            rustix::fs::mkfifoat(rustix::fs::CWD, &path, mode).expect("a pipe");
        }
        "link" => std::os::unix::fs::symlink(elsewhere, path).expect("a link"),
        _ => std::fs::create_dir(path).expect("a folder"),
    }
}

/// Takes the right to read a file.
pub(crate) fn deny(home: &Home, file: &str) {
    let closed = std::fs::Permissions::from_mode(0o000);
    std::fs::set_permissions(home.file(file), closed).expect("closed");
}
