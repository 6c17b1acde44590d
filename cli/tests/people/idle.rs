//! A replica more goes to a member whose machine is not busy, with real nodes and a real load.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Home, founder, joined};

const WITHIN: Duration = Duration::from_secs(90);
/// Decides soon. Whatever else keeps the processors busy makes nobody busy here.
const QUICK: &str = "window = \"1s\"\nstagger = \"1s\"\ncool-up = \"1s\"\ncool-down = \"1s\"\n";
const NEVER: &str = "cpu-high = \"100%\"\nmemory-high = \"100%\"\n";
const BUSY: &str = "cpu-high = \"1%\"\nmemory-high = \"1%\"\n";

fn until(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < WITHIN, "{what}: not after {WITHIN:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn configure(home: &Home, more: &str) {
    std::fs::write(home.0.path().join("data/config.toml"), format!("[scale]\n{QUICK}{more}"))
        .expect("written");
}

/// Labels of those that serve it, ascending.
fn serving(home: &Home) -> Vec<String> {
    let rows = home.json(&["nodes"]);
    let serves =
        |row: &&Value| row["serving"].as_array().is_some_and(|names| names.contains(&"slow@1".into()));
    let label = |row: &Value| row["label"].as_str().expect("a label").to_owned();
    let mut labels: Vec<_> = rows.as_array().expect("rows").iter().filter(serves).map(label).collect();
    labels.sort();
    labels
}

/// One call that takes half a second, or the end of a connection.
fn call(address: &str) -> std::io::Result<()> {
    let body = r#"{"wait_ms":500}"#;
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let head = "POST /function/slow HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json";
    write!(stream, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len())?;
    stream.read_to_end(&mut Vec::new()).map(drop)
}

/// Callers that go on until this is dropped.
struct Load(Arc<AtomicBool>, Vec<JoinHandle<()>>);

impl Load {
    fn on(address: &str, callers: usize) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let caller = || {
            let (ended, address) = (Arc::clone(&ended), address.to_owned());
            std::thread::spawn(move || {
                while !ended.load(Ordering::Relaxed) {
                    // What the calls come to is another test's matter.
                    let _ = call(&address);
                }
            })
        };
        let callers = (0..callers).map(|_| caller()).collect();
        Self(ended, callers)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        self.1.drain(..).for_each(|caller| drop(caller.join()));
    }
}

#[test]
fn a_replica_more_goes_to_a_peer_that_is_not_busy() {
    let (home, node) = founder();
    let labels = ["one", "two", "three"];
    let guests = labels.map(|label| joined(&home, label));
    drop(node);
    configure(&home, NEVER);
    guests.iter().for_each(|guest| configure(guest, NEVER));
    let _node = home.up();
    let mut nodes = guests.each_ref().map(|guest| Some(guest.up()));
    // The founder is called, and serves nothing.
    labels.iter().for_each(|label| drop(home.written(&["member", "label", label, "edge"])));
    std::fs::write(home.0.path().join("slow.wasm"), osiris_examples::SENSOR).expect("written");
    let manifest = "name = \"slow\"\ncomponent = \"slow.wasm\"\nreplicas = 1\n\n[limits]\nconcurrency = 1\n\n[scale]\nmin = 1\nmax = 2\nbacklog = 1\nidle_s = 600\n\n[place]\nlabels = [\"edge\"]\n";
    std::fs::write(home.0.path().join("osiris.toml"), manifest).expect("written");
    home.done(&["deploy", "--wait", "--timeout", "60s"]);
    until("one serves", || serving(&home).len() == 1);
    let first = serving(&home);
    // Who would be the second, were nobody busy.
    home.written(&["scale", "slow", "--min", "2", "--max", "2"]);
    until("two serve", || serving(&home).len() == 2);
    let second = serving(&home).into_iter().find(|label| !first.contains(label)).expect("another");
    home.written(&["scale", "slow", "--reset"]);
    until("one serves again", || serving(&home) == first);
    let at = labels.iter().position(|label| *label == second).expect("a guest");
    nodes[at] = None;
    configure(&guests[at], BUSY);
    nodes[at] = Some(guests[at].up());
    let is_busy = |row: &Value| row["label"] == second.as_str() && row["busy"] == true;
    // Who decides is to know it, besides who is called.
    let decides = &guests[labels.iter().position(|label| *label == first[0]).expect("a guest")];
    for home in [&home, decides] {
        let rows = || home.json(&["nodes"]);
        until("it says that it is busy", || rows().as_array().expect("rows").iter().any(is_busy));
    }
    let http = home.json(&["status"])["http"].as_str().expect("an address").to_owned();
    let load = Load::on(http.trim_start_matches("http://"), 6);
    until("two serve", || serving(&home).len() == 2);
    drop(load);
    let two = serving(&home);
    assert!(two.contains(&first[0]) && !two.contains(&second), "{second} is busy: {two:?}");
    let log = home.done(&["ledger", "log"]);
    assert!(log.contains(&format!("scales slow to 2 replica(s), past {second}")), "{log}");
}
