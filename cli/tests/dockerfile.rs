//! The `Dockerfile`, built by Docker from the static binary, and both of its stages run as docs/containers.md says.
//!
//! `OSIRIS_STATIC` names the binary. What is seen is printed, for who reads a run of CI.

mod image;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use image::{docker, run, terraform};
use serde_json::Value;

/// Longer than anything here takes, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(120);
/// What a container may do: little. The same as in compose.yaml.
const CONFINED: [&str; 10] = [
    "--read-only",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--memory=1g",
    "--cpus=1",
    "--pids-limit=256",
    "--stop-timeout=40",
    "--env=OSIRIS_HTTP=0.0.0.0:7420",
    "--env=OSIRIS_TOKEN_FILE=/run/secrets/token",
    "--publish=127.0.0.1::7420",
];
const TOKEN: &str = "0123456789abcdef0123456789abcdef";
/// What stands for the authorities that the stage spawner holds: nothing here asks them.
const AUTHORITIES: &str = "the authorities of this test\n";
/// How long the call takes that runs while the container is stopped, and when after its begin it is stopped.
const CALL: Duration = Duration::from_secs(4);
const STOPPED_AFTER: Duration = Duration::from_secs(1);

/// A container with a volume and images of its own, of which nothing is left at the end.
struct Boxed {
    dir: tempfile::TempDir,
    name: String,
}

impl Drop for Boxed {
    fn drop(&mut self) {
        for thing in [&["rm", "-f", "-v", &self.name][..], &["volume", "rm", "-f", &self.name]] {
            let _ = Command::new("docker").args(thing).output();
        }
        for image in [self.image("spawner"), self.image("node")] {
            let _ = Command::new("docker").args(["rmi", "-f", &image]).output();
        }
    }
}

fn top(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file)
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

impl Boxed {
    /// A folder with all that the Dockerfile copies.
    fn new(name: &str) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let context = dir.path().join("image");
        fs::create_dir_all(context.join("data")).expect("made");
        let binary = std::env::var("OSIRIS_STATIC").expect("OSIRIS_STATIC names the static binary");
        fs::copy(&binary, context.join("osiris")).expect("copied");
        let token = dir.path().join("token");
        fs::write(&token, TOKEN).expect("written");
        run(Command::new("chmod").arg("600").arg(&token));
        run(Command::new("chown").arg("65532").arg(&token));
        Self { dir, name: format!("{name}{}", std::process::id()) }
    }

    fn image(&self, stage: &str) -> String {
        format!("osiris-test-{stage}:{}", self.name)
    }

    fn build(&self, stage: &str) {
        let began = Instant::now();
        let mut build = Command::new("docker");
        build.args(["build", "--target", stage, "-t", &self.image(stage), "-f"]).arg(top("Dockerfile"));
        run(build.arg(self.dir.path().join("image")));
        let size = docker(&["image", "inspect", "--format", "{{.Size}}", &self.image(stage)]);
        let size = size.parse::<f64>().expect("bytes") / 1e6;
        println!("stage {stage}: built in {:.1} s, {size:.1} MB", began.elapsed().as_secs_f64());
    }

    /// Founds a fleet in the volume, and starts the stage's node there.
    fn start(&self, stage: &str, arguments: &[&str], command: &[&str], prepare: impl FnOnce()) {
        let volume = format!("--volume={}:/data", self.name);
        let token = format!("--volume={}:/run/secrets/token:ro", self.dir.path().join("token").display());
        let image = self.image(stage);
        let mut init = Command::new("docker");
        init.args(["run", "--rm", &volume]).args(&CONFINED[..3]);
        let said = run(init.args([&image, "init", "--name", "home", "--label", "boxed"]));
        assert!(said.contains("recovery key"), "{said}");
        let mut create = Command::new("docker");
        create.args(["create", "--name", &self.name, &volume, &token]).args(CONFINED).args(arguments);
        run(create.arg(&image).args(command));
        prepare();
        let began = Instant::now();
        docker(&["start", &self.name]);
        self.until("the container is healthy", || self.shows("{{.State.Health.Status}}") == "healthy");
        println!("healthy after {:.1} s", began.elapsed().as_secs_f64());
    }

    fn shows(&self, format: &str) -> String {
        docker(&["inspect", "--format", format, &self.name])
    }

    fn osiris(&self, arguments: &[&str]) -> String {
        docker(&[&["exec", &self.name, "/osiris"], arguments].concat())
    }

    fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !holds() {
            let log = || Command::new("docker").args(["logs", "--tail=9", &self.name]).output();
            assert!(Instant::now() < end, "in vain: {what}: {:?}", log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// What the function answers, with the head; or nothing, where nobody does.
    fn call(&self, body: &str) -> String {
        let port = docker(&["port", &self.name, "7420/tcp"]);
        let address = port.lines().next().expect("it is published").to_owned();
        said_by(&address, body).unwrap_or_default()
    }
}

fn said_by(address: &str, body: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = body.len();
    write!(
        stream,
        "POST /function/sensor HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {TOKEN}\r\ncontent-length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn waits(time: Duration) -> String {
    format!(r#"{{"wait_ms":{}}}"#, time.as_millis())
}

#[test]
#[ignore = "it is run by .ci/run, which builds the static binary: the step `image`"]
fn the_node_runs_confined_and_ends_its_calls_when_it_is_stopped() {
    let boxed = Boxed::new("node");
    boxed.build("node");
    boxed.start("node", &[], &["up"], || {});

    // What the kernel says of the process, not what was asked for.
    let pid = boxed.shows("{{.State.Pid}}");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("its process");
    let line = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
        line.unwrap_or_else(|| panic!("{name} is not there: {status}")).to_owned()
    };
    let (user, may, new) = (line("Uid"), line("CapEff"), line("NoNewPrivs"));
    println!("its process: user {}, capabilities {may}, no new privileges {new}", user.replace('\t', " "));
    assert_eq!(user, ["65532"; 4].join("\t"));
    assert_eq!((may.trim_start_matches('0'), new.as_str()), ("", "1"));
    let elsewhere = ["exec", &boxed.name, "/osiris", "--data", "/elsewhere", "init", "--name", "no"];
    let refused = Command::new("docker").args(elsewhere).output().expect("it runs");
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && why.to_lowercase().contains("read-only"), "{why}");

    let component = boxed.dir.path().join("sensor.wasm");
    fs::write(&component, osiris_examples::SENSOR).expect("written");
    docker(&["cp", &component.display().to_string(), &format!("{}:/data/sensor.wasm", boxed.name)]);
    boxed.osiris(&["deploy", "/data/sensor.wasm", "--name", "sensor"]);
    boxed.until("the function answers", || boxed.call(&waits(Duration::ZERO)).starts_with("HTTP/1.1 200"));
    println!("deployed, and called: {}", boxed.call(&waits(Duration::ZERO)).lines().last().expect("a body"));

    // A call runs, and the container is stopped.
    let (answer, took) = std::thread::scope(|scope| {
        let call = scope.spawn(|| boxed.call(&waits(CALL)));
        std::thread::sleep(STOPPED_AFTER);
        let began = Instant::now();
        docker(&["stop", &boxed.name]);
        (call.join().expect("it was made"), began.elapsed())
    });
    let code = boxed.shows("{{.State.ExitCode}}");
    println!(
        "stopped during a call of {} s: it took {:.1} s, exit code {code}, and the call was answered: {}",
        CALL.as_secs(),
        took.as_secs_f64(),
        answer.lines().last().unwrap_or_default()
    );
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("waited_ms"), "{answer}");
    assert_eq!(code, "0");
    assert!(took >= CALL - 2 * STOPPED_AFTER, "it did not wait for the call");
}

#[test]
#[ignore = "it is run by .ci/run, which builds the static binary: the step `image`"]
fn a_spawner_makes_a_container_by_the_terraform_that_it_holds() {
    let boxed = Boxed::new("spawner");
    let context = boxed.dir.path().join("image");
    fs::copy(terraform(), context.join("terraform")).expect("copied");
    run(Command::new("cp").arg("-r").arg(top("terraform/machines")).arg(&context));
    fs::write(context.join("ca-certificates.crt"), AUTHORITIES).expect("written");
    boxed.build("node");
    boxed.build("spawner");
    let socket = std::env::var("DOCKER_HOST").unwrap_or_else(|_| "unix:///var/run/docker.sock".to_owned());
    let socket = socket.strip_prefix("unix://").expect("a socket of this machine");
    let group = fs::metadata(socket).expect("the socket").gid();
    let may = [&format!("--volume={socket}:/var/run/docker.sock")[..], &format!("--group-add={group}")];
    boxed.start("spawner", &may, &["up", "--machines", "1"], || {
        let config = boxed.dir.path().join("config.toml");
        let text = format!(
            "[provision]\ntarget = \"docker\"\nmodule = \"/machines/docker\"\n\n[provision.variables]\nimage = \"{}\"\n",
            boxed.image("node")
        );
        fs::write(&config, text).expect("written");
        let to = format!("{}:/data/node/config.toml", boxed.name);
        docker(&["cp", &config.display().to_string(), &to]);
    });
    let authorities = boxed.dir.path().join("authorities");
    let from = format!("{}:/etc/ssl/certs/ca-certificates.crt", boxed.name);
    docker(&["cp", &from, &authorities.display().to_string()]);
    assert_eq!(fs::read_to_string(&authorities).expect("read"), AUTHORITIES);
    boxed.osiris(&["lease", "limit", "--machines", "1", "--timeout", "300ms"]);
    boxed.osiris(&["lease", "want"]);
    let machines = || {
        let leases = json(&boxed.osiris(&["lease", "ls", "-o", "json"]));
        let slots = leases["slots"].as_array().expect("slots").iter();
        slots.flat_map(|slot| slot["machines"].as_array().expect("machines").clone()).collect::<Vec<_>>()
    };
    let began = Instant::now();
    boxed.until("a machine is made", || machines().iter().any(|made| made["doing"] == "made"));
    // By the engine, not by the ledger.
    let intent = machines()[0]["intent"].as_str().expect("an id")[..16].to_owned();
    let label = format!("label=osiris.spawn=m0-1-{intent}");
    let there = || docker(&["ps", "-a", "--format", "{{.Names}} {{.Status}}", "--filter", &label]);
    println!("{:.1} s after the wish, by the engine: {}", began.elapsed().as_secs_f64(), there());
    assert!(there().lines().count() == 1 && there().contains("(healthy)"), "{}", there());
    let nodes = json(&boxed.osiris(&["nodes", "-o", "json"]));
    let machine = nodes.as_array().expect("rows").iter().find(|row| row["label"] == "m0-1");
    assert_eq!(machine.map(|row| &row["state"]), Some(&"connected".into()), "{nodes}");
    boxed.osiris(&["lease", "retire", "0-1"]);
    let began = Instant::now();
    boxed.until("nothing is left", || machines().is_empty() && there().is_empty());
    println!("gone {:.1} s after it was retired", began.elapsed().as_secs_f64());
}
