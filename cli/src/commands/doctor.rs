//! `osiris doctor`: the machine, the folder and the node, and what a node costs while it idles.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use osiris_fleet::api::{Doctor, Problem};
use osiris_runtime::{Monitor, Runtime, RuntimeConfig};
use rustix::process::{Resource, getrlimit};
use serde::Serialize;

use crate::args::DoctorArgs;
use crate::backend::{self, Backend};
use crate::client::{Client, QUICK};
use crate::config::Settings;
use crate::exit::{Exit, Failure};
use crate::output::table::{self, Cell, Tone};
use crate::output::{Format, Out, human, progress::Progress};

/// Free space below which a disk counts as nearly full.
const DISK_FREE_MIN: u64 = 256 << 20;
/// Open files below which connections and instances run out first.
const FILES_MIN: u64 = 1024;
/// 2025-01-01: a clock before this is not set.
const CLOCK_MIN: Duration = Duration::from_secs(1_735_689_600);

/// `osiris doctor`.
pub(crate) async fn run(args: &DoctorArgs, settings: &Settings, out: Out) -> Result<Exit, Failure> {
    if args.idle {
        return idle(args.seconds, settings, out).await;
    }
    let mut doctor = match Client::find(&settings.socket).await {
        Ok(Some(client)) => running(&client, settings).await?,
        Ok(None) => {
            let mut doctor = Doctor::default();
            replica(settings, &mut doctor).await;
            pool(&mut doctor);
            doctor
        }
        Err(failure) => silent(failure)?,
    };
    machine(&settings.data, &mut doctor);
    folder(&settings.data, &mut doctor);
    makes(settings, &mut doctor).await;
    print(&doctor, out)
}

async fn running(client: &Client, settings: &Settings) -> Result<Doctor, Failure> {
    match client.get::<Doctor>("/v1/doctor").await {
        Ok(mut doctor) => {
            doctor.facts.insert("node".to_owned(), format!("runs, at {}", settings.socket.display()));
            Ok(doctor)
        }
        Err(failure) => silent(failure),
    }
}

/// A node that hangs is what a doctor is asked about; the rest is looked at all the same.
fn silent(failure: Failure) -> Result<Doctor, Failure> {
    if failure.exit != Exit::TimedOut {
        return Err(failure);
    }
    let mut doctor = Doctor::default();
    fact(&mut doctor, "node", "does not answer");
    doctor.problems.push(format!(
        "{} It was stopped, hangs or has too much to do. Look at its log; continue a stopped process with SIGCONT, or end it with SIGKILL and start it again with `osiris up`: what was acknowledged is kept.",
        failure.message
    ));
    Ok(doctor)
}

fn print(doctor: &Doctor, out: Out) -> Result<Exit, Failure> {
    if out.format != Format::Table {
        out.document(doctor)?;
    } else {
        let mut facts: Vec<(&str, Cell)> =
            doctor.facts.iter().map(|(name, value)| (name.as_str(), Cell::new(value))).collect();
        if doctor.memory_bytes > 0 {
            let written = human::bytes(doctor.written_bytes);
            facts.push(("memory of the node", Cell::new(human::bytes(doctor.memory_bytes))));
            facts
                .push(("CPU time of the node", Cell::new(human::micros(doctor.cpu_ms.saturating_mul(1000)))));
            facts.push(("written by the node", Cell::new(written)));
            facts.push(("up for", Cell::new(human::seconds(doctor.uptime_s))));
        }
        for problem in &doctor.problems {
            facts.push(("problem", Cell::new(problem).tone(Tone::Bad)));
        }
        if doctor.problems.is_empty() {
            facts.push(("result", Cell::new("all is well").tone(Tone::Good)));
        }
        out.raw(table::facts(facts, out).as_bytes())?;
    }
    Ok(if doctor.problems.is_empty() { Exit::Done } else { Exit::Failed })
}

fn fact(doctor: &mut Doctor, name: &str, value: impl Into<String>) {
    // What the node itself found is nearer to the truth.
    doctor.facts.entry(name.to_owned()).or_insert_with(|| value.into());
}

/// What the machine offers.
fn machine(data: &Path, doctor: &mut Doctor) {
    let system = rustix::system::uname();
    let (kernel, release) = (system.sysname().to_string_lossy(), system.release().to_string_lossy());
    fact(doctor, "version", env!("CARGO_PKG_VERSION"));
    fact(doctor, "machine", format!("{}, {kernel} {release}", system.machine().to_string_lossy()));
    let sample = Monitor::new(nearest(data)).sample();
    fact(
        doctor,
        "memory",
        format!("{} of {} in use", human::bytes(sample.memory_used), human::bytes(sample.memory_total)),
    );
    fact(
        doctor,
        "cores",
        format!("{}, load {:.2} {:.2} {:.2}", sample.cores, sample.load1, sample.load5, sample.load15),
    );
    let free = sample.disk_total.saturating_sub(sample.disk_used);
    fact(doctor, "disk", format!("{} of {} free", human::bytes(free), human::bytes(sample.disk_total)));
    if sample.disk_total > 0 && free < DISK_FREE_MIN {
        doctor.problems.push(format!(
            "The disk of the data folder has {} left; free some, or move the folder.",
            human::bytes(free)
        ));
    }
    let files = getrlimit(Resource::Nofile).current;
    fact(
        doctor,
        "open files",
        files.map_or_else(|| "no limit".to_owned(), |files| format!("at most {files}")),
    );
    if files.is_some_and(|files| files < FILES_MIN) {
        doctor
            .problems
            .push(format!("At most {} files may be open; raise it with ulimit -n 4096.", files.unwrap_or(0)));
    }
    let space = getrlimit(Resource::As).current;
    fact(doctor, "address space", space.map_or_else(|| "no limit".to_owned(), human::bytes));
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    fact(doctor, "clock", human::date(backend::millis(clock)));
    if clock < CLOCK_MIN {
        doctor
            .problems
            .push("The clock is not set; nothing depends on it but the times that are shown.".to_owned());
    }
}

/// What it makes machines with, and whether that is reached.
async fn makes(settings: &Settings, doctor: &mut Doctor) {
    let options = match settings.provision(|name| std::env::var_os(name)) {
        Ok(None) => return fact(doctor, "makes machines", "no: config.toml has no [provision]"),
        Ok(Some(Ok(options))) => options,
        Ok(Some(Err(why))) => {
            return doctor
                .problems
                .push(format!("{why} Install one, or take [provision] out of config.toml."));
        }
        Err(failure) => return doctor.problems.push(sentences(failure)),
    };
    fact(doctor, "makes machines", format!("with {}, on {}", options.terraform.display(), options.target));
    match osiris_fleet::driver::look(&options, nearest(&settings.data)).await {
        Ok(None) => fact(doctor, "target", "it has no labels here, so only Terraform can ask it"),
        Ok(Some(machines)) => fact(doctor, "target", format!("reached, {}", human::count(machines as u64, "machine"))),
        Err(why) => doctor.problems.push(format!(
            "The target {} is not reached, so this node claims no machine: {why}. `osiris provision status` asks it by itself.",
            options.target
        )),
    }
}

/// The folder itself, or the nearest one above it that exists.
fn nearest(path: &Path) -> &Path {
    path.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"))
}

/// The data folder as files.
fn folder(data: &Path, doctor: &mut Doctor) {
    fact(doctor, "data folder", data.display().to_string());
    let Ok(found) = fs::metadata(data) else { return };
    if !found.is_dir() {
        doctor.problems.push(format!("{} is no folder; give another --data DIR.", data.display()));
        return;
    }
    if let Err(error) = rustix::fs::access(data, rustix::fs::Access::WRITE_OK) {
        doctor.problems.push(format!(
            "The data folder cannot be written to ({}), so no node can run with it and no command can write. Mount it to be written to, or give it to the user who runs osiris.",
            std::io::Error::from(error)
        ));
    }
    let mode = found.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        doctor.problems.push(format!(
            "Other users may look into the data folder (mode {mode:o}); close it with chmod 700 {}.",
            data.display()
        ));
    }
    // What is no file is spoken of apart: its mode is not the key's.
    for (name, whose) in [("device.key", "device's"), ("admin.key", "admin's"), ("recovery-key", "recovery")]
    {
        if let Ok(key) = fs::symlink_metadata(data.join(name))
            && key.is_file()
            && key.permissions().mode() & 0o077 != 0
        {
            doctor.problems.push(format!(
                "Other users may read the {whose} key; close it with chmod 600 {}/{name}.",
                data.display()
            ));
        }
    }
    if let Ok(journal) = fs::metadata(data.join("journal")) {
        fact(doctor, "journal", human::bytes(journal.len()));
    }
}

/// The replica, where no node runs.
async fn replica(settings: &Settings, doctor: &mut Doctor) {
    fact(doctor, "node", "does not run");
    if let Err(failure) = backend::must_be_member(&settings.data) {
        fact(doctor, "fleet", format!("none: {}", failure.message));
        return;
    }
    let looked = async {
        let mut backend = Backend::open_to_examine(settings).await?;
        Ok::<_, Failure>((backend.status().await?, backend.doctor().await?))
    };
    let looked = looked.await;
    // All files are looked into, whether the journal can be used or not, and none is changed.
    let verified = backend::verify(settings, QUICK).await;
    let found = verified.as_ref().map(|verified| verified.problems.as_slice()).unwrap_or_default();
    let found: Vec<_> = found.iter().map(Problem::sentences).collect();
    match looked {
        Ok((status, mut replica)) => {
            fact(doctor, "fleet", format!("{} ({})", status.fleet_name, human::short(&status.fleet)));
            fact(doctor, "device", format!("{} ({})", status.label, human::short(&status.device)));
            fact(doctor, "ledger", human::count(status.blocks, "block"));
            fact(doctor, "unseen", human::count(status.unseen, "block"));
            for (name, value) in std::mem::take(&mut replica.facts) {
                fact(doctor, &name, value);
            }
            doctor.problems.extend(replica.problems);
        }
        // What was found in the files says the same, and where.
        Err(_) if !found.is_empty() => {}
        Err(failure) => doctor.problems.push(sentences(failure)),
    }
    doctor.problems.extend(found);
    if let Err(failure) = verified {
        doctor.problems.push(match failure.exit {
            Exit::TimedOut => {
                format!("{} `osiris ledger verify` takes the time that it needs.", failure.message)
            }
            _ => sentences(failure),
        });
    }
}

fn sentences(failure: Failure) -> String {
    let next = failure.next.map(|next| format!(" Next: {next}")).unwrap_or_default();
    format!("{}{next}", failure.message)
}

/// The pool that a node would make here. An engine is made for it and thrown away.
fn pool(doctor: &mut Doctor) {
    let cache = std::env::temp_dir().join(format!("osiris-doctor-{}", std::process::id()));
    match Runtime::new(RuntimeConfig::new(&cache)) {
        Ok(runtime) => fact(doctor, "pool", runtime.describe_pool().to_string()),
        Err(error) => doctor.problems.push(error.to_string()),
    }
    // A folder that stays behind is empty and in the folder for such things.
    let _ = fs::remove_dir_all(&cache);
}

/// What an idle node costs.
#[derive(Debug, PartialEq, Serialize)]
struct Idle {
    seconds: f64,
    memory_bytes: u64,
    cpu_ms_per_minute: f64,
    cpu_percent: f64,
    written_bytes_per_minute: f64,
}

impl Idle {
    fn between(before: &Doctor, after: &Doctor, seconds: f64) -> Self {
        let cpu_ms = after.cpu_ms.saturating_sub(before.cpu_ms) as f64;
        let written = after.written_bytes.saturating_sub(before.written_bytes) as f64;
        Self {
            seconds,
            memory_bytes: after.memory_bytes,
            cpu_ms_per_minute: cpu_ms * 60.0 / seconds,
            cpu_percent: cpu_ms / 10.0 / seconds,
            written_bytes_per_minute: written * 60.0 / seconds,
        }
    }
}

async fn idle(seconds: u64, settings: &Settings, out: Out) -> Result<Exit, Failure> {
    let client = backend::node(settings).await?;
    let before: Doctor = client.get("/v1/doctor").await?;
    let start = Instant::now();
    let progress = Progress::seconds(seconds, "measuring the idle node");
    for _ in 0..seconds {
        tokio::time::sleep(Duration::from_secs(1)).await;
        progress.advance(1);
    }
    let after: Doctor = client.get("/v1/doctor").await?;
    let measured = start.elapsed().as_secs_f64();
    drop(progress);
    if after.uptime_s < before.uptime_s {
        return Err(
            Failure::failed("The node was started again while it was measured.").next("measure again")
        );
    }
    let idle = Idle::between(&before, &after, measured);
    let facts = vec![
        ("measured over", Cell::new(format!("{:.1} s", idle.seconds))),
        ("memory", Cell::new(human::bytes(idle.memory_bytes))),
        ("CPU a minute", Cell::new(format!("{:.0} ms ({:.2} %)", idle.cpu_ms_per_minute, idle.cpu_percent))),
        ("written a minute", Cell::new(human::bytes(idle.written_bytes_per_minute.round() as u64))),
    ];
    out.facts(&idle, facts)?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_by_the_minute() {
        let before = Doctor { cpu_ms: 100, written_bytes: 10, ..Doctor::default() };
        let after = Doctor { cpu_ms: 250, written_bytes: 60, memory_bytes: 7, ..Doctor::default() };
        let idle = Idle::between(&before, &after, 30.0);
        assert_eq!(
            idle,
            Idle {
                seconds: 30.0,
                memory_bytes: 7,
                cpu_ms_per_minute: 300.0,
                cpu_percent: 0.5,
                written_bytes_per_minute: 100.0
            }
        );
    }

    #[test]
    fn an_open_folder_is_a_problem() {
        let dir = tempfile::tempdir().expect("a folder");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("opened");
        let mut doctor = Doctor::default();
        folder(dir.path(), &mut doctor);
        assert!(doctor.problems[0].contains("mode 755"), "{:?}", doctor.problems);
        fs::write(dir.path().join("admin.key"), "key").expect("written");
        fs::set_permissions(dir.path().join("admin.key"), fs::Permissions::from_mode(0o640)).expect("opened");
        folder(dir.path(), &mut doctor);
        assert!(doctor.problems.iter().any(|problem| problem.contains("admin.key")), "{:?}", doctor.problems);
        fs::remove_file(dir.path().join("admin.key")).expect("removed");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).expect("closed");
        let mut doctor = Doctor::default();
        folder(dir.path(), &mut doctor);
        assert_eq!(doctor.problems, [""; 0]);
    }

    #[test]
    fn the_machine_is_described() {
        let mut doctor = Doctor::default();
        machine(Path::new("/no/such/folder"), &mut doctor);
        for name in ["version", "machine", "memory", "cores", "disk", "open files", "clock"] {
            assert!(doctor.facts.contains_key(name), "{name}");
        }
    }
}
