//! A small device after a month: how soon `osiris up` serves its first call, and how much memory it takes.
//!
//! ```sh
//! cargo bench --workspace --bench small_device              # everything
//! cargo bench --workspace --bench small_device -- 30        # of the fleet of 30 days alone
//! ```
//!
//! `fleet/examples/thirty_days.rs` makes the histories of a fleet of 100 nodes: 13 days, which are the first
//! with more than 50,000 blocks, and 30. The founding device's folder is measured in three states: with every block
//! in full, with at most 50,000 in full, and with all dropped that sealed pages list. A `wasi:http` function is
//! deployed into it by the ordinary command, and a first start compiles it, as on the device where it was deployed.
//! Then the real process is started again and again, and killed: from exec to the first answered call with status
//! 200, and the most memory it had (`VmHWM`), once at that moment and once after it had had time for the automerge
//! document. Nobody else is there: the device starts offline. `OSIRIS_HISTORY=FOLDER` measures folders that
//! `thirty_days simulate FOLDER DAYS` made instead.

use std::env;
use std::error::Error;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Starts that are measured.
const STARTS: usize = 5;
/// A start that takes longer is none.
const PATIENCE: Duration = Duration::from_secs(120);
/// Pause between two tries to call.
const PAUSE: Duration = Duration::from_millis(1);
/// No more of the document is made where the core took less than so much CPU within [`LOOK`].
const QUIET_TICKS: u64 = 5;
const LOOK: Duration = Duration::from_secs(2);
/// The function that is called.
const NAME: &str = "first-call";

fn main() -> Result<()> {
    // Cargo adds `--bench`.
    let wanted: Vec<String> = env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let dir = tempfile::tempdir()?;
    println!(
        "days  state  first start   call after, median of {STARTS} (range)   memory then   later, at most"
    );
    // Folders that somebody made before.
    if let Some(made) = env::var_os("OSIRIS_HISTORY") {
        for state in ["all", "small", "least"] {
            let data = dir.path().join(state);
            copy(&Path::new(&made).join(state), &data)?;
            deploy(&data, dir.path())?;
            println!("made  {state:5}  {}", measure(&data)?);
        }
        return Ok(());
    }
    for days in ["13", "30"] {
        if !wanted.is_empty() && wanted.iter().all(|wanted| wanted != days) {
            continue;
        }
        let folder = dir.path().join(days);
        print!("{}", make(&folder, days)?);
        for state in ["all", "small", "least"] {
            let data = folder.join(state);
            deploy(&data, dir.path())?;
            println!("{days:4}  {state:5}  {}", measure(&data)?);
        }
        fs::remove_dir_all(&folder)?;
    }
    Ok(())
}

fn make(folder: &Path, days: &str) -> Result<String> {
    // Built with the features that all else has: in parts of the workspace dependencies would be built again.
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--locked", "--release", "--workspace", "--example", "thirty_days"]);
    if !build.status()?.success() {
        return Err("the example thirty_days cannot be built".into());
    }
    let built = Path::new(env!("CARGO_BIN_EXE_osiris")).with_file_name("examples").join("thirty_days");
    let mut command = Command::new(built);
    let made = command.arg("make").arg(folder).args([days, "50000"]).stderr(Stdio::inherit()).output()?;
    if made.status.success() {
        Ok(String::from_utf8(made.stdout)?)
    } else {
        Err("no history was made".into())
    }
}

/// Copies a folder of files and folders.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name()))?,
            false => fs::copy(entry.path(), to.join(entry.file_name())).map(drop)?,
        }
    }
    Ok(())
}

fn osiris(data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_osiris"));
    command.env_clear().env("HOME", data).arg("--data").arg(data).args(["--mesh", "127.0.0.1:0"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn deploy(data: &Path, beside: &Path) -> Result<()> {
    let component = beside.join("chart.wasm");
    fs::write(&component, osiris_examples::CHART)?;
    let mut command = osiris(data);
    command.arg("deploy").arg(&component).args(["--name", NAME, "--replicas", "all"]);
    let said = command.stderr(Stdio::piped()).output()?;
    // 5: it is durable here, and no other member has confirmed it.
    match said.status.code() {
        Some(0 | 5) => Ok(()),
        code => Err(format!("deploy ended with {code:?}: {}", String::from_utf8_lossy(&said.stderr)).into()),
    }
}

fn measure(data: &Path) -> Result<String> {
    let first = Running::start(data)?;
    let first_call = first.called;
    // What the first start has to do once is done before the others are measured.
    first.settle()?;
    drop(first);
    let (mut calls, mut then, mut later) = (Vec::new(), 0, 0);
    for start in 0..STARTS {
        let running = Running::start(data)?;
        calls.push(running.called);
        then = then.max(running.peak()?);
        if start == 0 {
            running.settle()?;
            later = running.peak()?;
        }
    }
    calls.sort();
    let [least, median, most] = [0, STARTS / 2, STARTS - 1].map(|at| calls[at].as_millis());
    let mib = |kib: u64| format!("{:.0} MB", kib as f64 * 1024.0 / 1e6);
    let first = first_call.as_millis();
    Ok(format!("{first:8} ms   {median:8} ms ({least} to {most})   {:>20}   {:>8}", mib(then), mib(later)))
}

/// A node that answered its first call.
struct Running {
    process: Child,
    called: Duration,
}

impl Running {
    fn start(data: &Path) -> Result<Self> {
        // Free a moment ago; nobody else is here to take it.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let mut command = osiris(data);
        command.args(["up", "--http", &address.to_string()]);
        let start = Instant::now();
        let mut running = Self { process: command.spawn()?, called: Duration::ZERO };
        while !answers(address) {
            if let Some(status) = running.process.try_wait()? {
                return Err(format!("osiris up ended with {status}").into());
            }
            if start.elapsed() > PATIENCE {
                return Err("no call was answered".into());
            }
            sleep(PAUSE);
        }
        running.called = start.elapsed();
        Ok(running)
    }

    /// Waits until it has nothing to do.
    fn settle(&self) -> Result<()> {
        let start = Instant::now();
        let mut before = self.ticks()?;
        loop {
            sleep(LOOK);
            let now = self.ticks()?;
            if now - before <= QUIET_TICKS {
                return Ok(());
            }
            if start.elapsed() > PATIENCE {
                return Err("the node is at work without end".into());
            }
            before = now;
        }
    }

    /// The most memory that it had, in KiB, as Linux says it.
    fn peak(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line =
            status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("Linux says no VmHWM")?;
        Ok(line.trim().trim_end_matches(" kB").trim().parse()?)
    }

    /// CPU time that it took, in ticks of 10 ms.
    fn ticks(&self) -> Result<u64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let field = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
        field(11)
            .zip(field(12))
            .map(|(user, system)| user + system)
            .ok_or_else(|| "Linux says no CPU time".into())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// One call, on a connection of its own.
fn answers(address: SocketAddr) -> bool {
    let call = || {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
        write!(stream, "GET /function/{NAME}/ HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")
            .ok()?;
        let mut head = [0; 12];
        stream.read_exact(&mut head).ok()?;
        Some(head == *b"HTTP/1.1 200")
    };
    call().unwrap_or(false)
}
