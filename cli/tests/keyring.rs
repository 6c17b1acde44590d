//! The passphrase of a user's key in the system's keyrings: the kernel's, and a desktop's.

use std::process::{Command, Stdio};

use tempfile::TempDir;

const WORDS: &str = "correct horse battery";
/// Set where the test runs in a session with a keyring of its own.
const UP: &str = "OSIRIS_TEST_KEYRING_IS_UP";

struct Home(TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    /// Runs a command that must end with this code; its output, and what it said beside.
    fn ends(&self, arguments: &[&str], code: i32) -> (String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_osiris"));
        command.args(arguments).env_clear().current_dir(self.0.path()).stdin(Stdio::null());
        command.env("HOME", self.0.path()).env("PATH", std::env::var_os("PATH").unwrap_or_default());
        if std::env::var_os(UP).is_some() {
            let bus = std::env::var_os("DBUS_SESSION_BUS_ADDRESS").expect("the address of a bus");
            command.env("DBUS_SESSION_BUS_ADDRESS", bus);
        }
        let output = command.output().expect("the binary runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {out}{err}");
        (out, err)
    }

    fn fails(&self, arguments: &[&str], code: i32, words: &str) {
        let (_, err) = self.ends(arguments, code);
        assert!(err.contains(words), "{arguments:?}: {err}");
    }
}

/// A key, and the file with its passphrase.
fn key(home: &Home) -> String {
    let words = home.0.path().join("words");
    std::fs::write(&words, format!("{WORDS}\n")).expect("written");
    let words = words.to_str().expect("a path").to_owned();
    home.ends(&["user", "key", "new", "--passphrase-file", &words], 0);
    words
}

/// A passphrase goes into a keyring, opens the key from there, follows a change, and is forgotten.
fn goes_in_and_out(place: &str, named: &str) {
    let home = Home::new();
    let words = key(&home);
    home.fails(&["user", "key", "forget"], 3, "No keyring");
    let (wrong, other) = (home.0.path().join("wrong"), home.0.path().join("other"));
    std::fs::write(&wrong, "not the words\n").expect("written");
    std::fs::write(&other, "entirely other words\n").expect("written");
    let (wrong, other) = (wrong.to_str().expect("a path"), other.to_str().expect("a path"));

    // What does not open the key is not kept.
    let remember = ["user", "key", "remember", "--in", place, "--passphrase-file"];
    home.fails(&[&remember[..], &[wrong]].concat(), 4, "the passphrase is wrong");
    home.fails(&["user", "key", "forget"], 3, "No keyring");

    let (out, err) = home.ends(&[&remember[..], &[&words]].concat(), 0);
    assert!(err.contains(named), "{err}");
    // It opens the key where nobody is there to be asked, and the keyring learns of a new passphrase.
    let change = ["user", "key", "passphrase", "--new-passphrase-file", other];
    let (changed, told) = home.ends(&change, 0);
    assert!(told.contains("The new one is in") && told.contains(named), "{told}");
    assert_eq!(changed, out, "the same key");
    home.ends(&["user", "key", "passphrase", "--new-passphrase-file", &words], 0);
    for said in [out, err, changed, told] {
        assert!(!said.contains(WORDS) && !said.contains("other words"), "a passphrase is told: {said}");
    }

    // A copy that was given another passphrase elsewhere.
    let file = home.0.path().join(".config/osiris/user.key");
    let before = std::fs::read(&file).expect("the key file");
    home.ends(&["user", "key", "passphrase", "--new-passphrase-file", other], 0);
    std::fs::write(&file, before).expect("put back");
    home.fails(&change, 4, "is not the key file's");

    let (_, err) = home.ends(&["user", "key", "forget"], 0);
    assert!(err.contains(named), "{err}");
    home.fails(&["user", "key", "forget"], 3, "No keyring");
    home.fails(&change, 2, "nobody is here to be asked");
}

#[test]
#[ignore = "needs a kernel keyring"]
fn the_kernel_keeps_a_passphrase_until_it_is_told_to_forget_it() {
    goes_in_and_out("kernel", "the kernel's keyring");
}

/// Where `dbus-run-session` and a keyring's daemon are: it runs itself in a session of its own.
#[test]
#[ignore = "needs a desktop keyring"]
fn a_desktop_keeps_a_passphrase_until_it_is_told_to_forget_it() {
    if std::env::var_os(UP).is_some() {
        return goes_in_and_out("desktop", "the desktop's keyring");
    }
    let folder = tempfile::tempdir().expect("a folder");
    // The daemon keeps its files in the home folder, and is unlocked by a password on its input.
    let begin = "printf words | gnome-keyring-daemon --unlock --components=secrets >/dev/null && exec \"$@\"";
    let mut session = Command::new("dbus-run-session");
    session.args(["--", "sh", "-c", begin, "sh"]).arg(std::env::current_exe().expect("this test"));
    session.args(["--exact", "a_desktop_keeps_a_passphrase_until_it_is_told_to_forget_it"]);
    session.args(["--ignored", "--nocapture"]);
    session.env(UP, "yes").env("HOME", folder.path());
    session.env("XDG_RUNTIME_DIR", folder.path()).env_remove("XDG_DATA_HOME");
    let ended = session.output().expect("dbus-run-session runs");
    let said = String::from_utf8_lossy(&ended.stdout).into_owned();
    assert!(
        ended.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&ended.stderr)
    );
}

/// Without either, it says so, and what to do instead.
#[test]
fn where_there_is_no_desktop_that_is_said() {
    let home = Home::new();
    let words = key(&home);
    let remember = ["user", "key", "remember", "--in", "desktop", "--passphrase-file", &words];
    home.fails(&remember, 1, "no D-Bus");
}
