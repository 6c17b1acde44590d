//! Machines that are containers, by Docker's HTTP API over its Unix socket. Whoever may use that socket is root on its
//! machine.
//!
//! The container joins by itself, with the ticket in a file that is put into it before it starts: the environment and
//! the arguments of a container can be read by whoever may inspect it.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::UnixStream;

use super::archive::Archive;
use super::{DRAIN_WITHIN, HEARD_WITHIN, LEAVE_WITHIN, LOOK, Row};
use crate::args::{PlaceArgs, ProvisionUpArgs};
use crate::exit::{Exit, Failure};

/// The label, which the API takes and gives back.
pub(super) const LABEL: &str = "osiris.spawn";
/// The API of Docker 20.10, which later ones still speak.
const API: &str = "/v1.41";
/// Longest wait for one answer, apart from waiting for a container to stop.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Largest answer that is read, bytes.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Folder in the container with the device's data, a volume of the container's own.
pub(super) const DATA: &str = "/data";
/// The binary in the image.
pub(super) const PROGRAM: &str = "/osiris";
/// The user of the image's node.
pub(super) const USER: &str = "65532:65532";
/// Memory that a container may take, bytes; processors, in parts of 10^9; and processes.
const MEMORY_BYTES: u64 = 1 << 30;
const NANO_CPUS: u64 = 1_000_000_000;
const PROCESSES: u64 = 256;

pub(super) struct Docker<'a> {
    pub(super) socket: &'a Path,
}

impl Docker<'_> {
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: (&str, Bytes),
    ) -> Result<(StatusCode, Value), Failure> {
        self.ask_within(method, path, body, ANSWER_WITHIN).await
    }

    pub(super) async fn ask_within(
        &self,
        method: Method,
        path: &str,
        body: (&str, Bytes),
        wait: Duration,
    ) -> Result<(StatusCode, Value), Failure> {
        let (status, body) = self.bytes_within(method, path, body, wait).await?;
        Ok((status, serde_json::from_slice(&body).unwrap_or(Value::Null)))
    }

    /// What is answered, whatever it is.
    pub(super) async fn bytes_within(
        &self,
        method: Method,
        path: &str,
        (kind, body): (&str, Bytes),
        wait: Duration,
    ) -> Result<(StatusCode, Bytes), Failure> {
        let wrong = |error: &dyn std::fmt::Display| {
            Failure::failed(format!("Docker at {} does not answer: {error}.", self.socket.display()))
                .next("check that it runs, and that this user may use its socket")
        };
        let asking = async {
            let stream = UnixStream::connect(self.socket).await.map_err(|error| wrong(&error))?;
            let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
                .await
                .map_err(|error| wrong(&error))?;
            tokio::spawn(connection);
            let request = Request::builder()
                .method(method)
                .uri(format!("{API}{path}"))
                .header(header::HOST, "docker")
                .header(header::CONTENT_TYPE, kind)
                .body(Full::new(body))
                .map_err(|error| wrong(&error))?;
            let answer = sender.send_request(request).await.map_err(|error| wrong(&error))?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|error| wrong(&error))?.to_bytes();
            Ok((status, body))
        };
        tokio::time::timeout(wait, asking).await.map_err(|_| wrong(&"it takes too long"))?
    }

    /// Asks, and takes any status but these for a failure.
    pub(super) async fn done(
        &self,
        method: Method,
        path: &str,
        body: (&str, Bytes),
        well: &[u16],
    ) -> Result<(StatusCode, Value), Failure> {
        let (status, value) = self.ask(method, path, body).await?;
        if well.contains(&status.as_u16()) {
            return Ok((status, value));
        }
        Err(Failure::failed(format!("Docker refuses: {}.", said(&value).trim_end_matches('.'))))
    }

    /// Has the node take no more calls and end those that run, the fleet hear of it while it is a member (calls that
    /// were on their way are turned away as not started, and made elsewhere), and the device leave. One that cannot
    /// goes all the same.
    async fn leave(&self, id: &str) {
        let heard = format!("{}s", HEARD_WITHIN.as_secs());
        for command in
            [&[PROGRAM, "drain"][..], &[PROGRAM, "sync", "--timeout", &heard], &[PROGRAM, "leave", "--yes"]]
        {
            self.exec(id, command).await;
        }
    }

    /// Runs a command in a container, and waits for its end.
    async fn exec(&self, id: &str, command: &[&str]) {
        let command = of_json(&json!({ "Cmd": command }));
        let (_, made) = match self.ask(Method::POST, &format!("/containers/{id}/exec"), command).await {
            Ok(made) => made,
            Err(_) => return,
        };
        let Some(exec) = made["Id"].as_str() else { return };
        let detached = of_json(&json!({ "Detach": true }));
        if self.ask(Method::POST, &format!("/exec/{exec}/start"), detached).await.is_err() {
            return;
        }
        loop {
            match self.ask(Method::GET, &format!("/exec/{exec}/json"), nothing()).await {
                Ok((_, state)) if state["Running"].as_bool() == Some(true) => tokio::time::sleep(LOOK).await,
                _ => return,
            }
        }
    }

    /// The containers with this label; all labelled ones where no machine is given.
    pub(super) async fn labelled(&self, name: &str, spawn: Option<&str>) -> Result<Vec<Row>, Failure> {
        let label = spawn.map_or_else(|| name.to_owned(), |spawn| format!("{name}={spawn}"));
        let filters = encoded(&json!({ "label": [label] }).to_string());
        let path = format!("/containers/json?all=true&filters={filters}");
        let (_, list) = self.done(Method::GET, &path, nothing(), &[200]).await?;
        let row = |container: &Value| {
            let text = |value: &Value| value.as_str().map(str::to_owned);
            let running = container["State"].as_str() == Some("running");
            Some(Row {
                spawn: text(&container["Labels"][name])?,
                state: if running { "running" } else { "stopped" },
                id: text(&container["Id"])?,
                place: text(&container["Names"][0])?.trim_start_matches('/').to_owned(),
            })
        };
        Ok(list.as_array().into_iter().flatten().filter_map(row).collect())
    }
}

pub(super) fn nothing() -> (&'static str, Bytes) {
    ("application/json", Bytes::new())
}

pub(super) fn said(value: &Value) -> String {
    value["message"].as_str().unwrap_or("it does not say why").to_owned()
}

pub(super) fn of_json(value: &Value) -> (&'static str, Bytes) {
    ("application/json", Bytes::from(value.to_string()))
}

/// A file for a container's volume, that only its node may read.
pub(super) fn archived(name: &str, content: &[u8]) -> (&'static str, Bytes) {
    let mut archive = Archive::default();
    archive.secret(name, content);
    ("application/x-tar", archive.done())
}

/// RFC 3986, section 2.1.
pub(super) fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte.is_ascii_alphanumeric() {
            true => encoded.push(char::from(byte)),
            false => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// The name of the ticket's file.
pub(super) const TICKET_FILE: &str = "ticket";

fn description(args: &ProvisionUpArgs) -> Value {
    let label = args.label.clone().unwrap_or_else(|| args.spawn.clone());
    json!({
        "Image": args.image,
        "User": USER,
        "Cmd": ["up", "--join", format!("@{DATA}/{TICKET_FILE}")],
        "Env": [
            format!("OSIRIS_SPAWN={}", args.spawn), format!("OSIRIS_DATA={DATA}/node"),
            format!("OSIRIS_LABEL={label}"), format!("OSIRIS_HTTP={}", args.http),
        ],
        "Healthcheck": health(),
        "Labels": { LABEL: args.spawn },
        "Volumes": { DATA: {} },
        "HostConfig": limits(&args.network),
    })
}

/// What a node's container may take, and do: little.
pub(super) fn limits(network: &str) -> Value {
    json!({
        "NetworkMode": network,
        "ReadonlyRootfs": true,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        "Memory": MEMORY_BYTES,
        "NanoCpus": NANO_CPUS,
        "PidsLimit": PROCESSES,
        "RestartPolicy": { "Name": "unless-stopped" },
    })
}

/// How Docker sees that a node serves. In nanoseconds.
pub(super) fn health() -> Value {
    json!({
        "Test": ["CMD", PROGRAM, "status", "--ready"],
        "Interval": 2_000_000_000_u64, "Timeout": 5_000_000_000_u64, "Retries": 3,
    })
}

pub(super) async fn up(args: &ProvisionUpArgs, ticket: &str) -> Result<(String, bool), Failure> {
    let docker = Docker { socket: &args.at.docker };
    let there = docker.labelled(LABEL, Some(&args.spawn)).await?;
    let changed = !there.iter().any(|row| row.state == "running");
    let id = match there.into_iter().next() {
        Some(row) if !changed => row.id,
        // One that was made in part, or has ended, is begun again: its ticket may be for another device by now.
        Some(row) => {
            remove(&docker, &row.id).await?;
            create(&docker, args, ticket).await?
        }
        None => create(&docker, args, ticket).await?,
    };
    healthy(&docker, &args.spawn, &id).await?;
    Ok((id, changed))
}

/// Waits until a container's node serves, or has ended.
pub(super) async fn healthy(docker: &Docker<'_>, spawn: &str, id: &str) -> Result<(), Failure> {
    loop {
        let (_, state) =
            docker.done(Method::GET, &format!("/containers/{id}/json"), nothing(), &[200]).await?;
        match (state["State"]["Status"].as_str(), state["State"]["Health"]["Status"].as_str()) {
            (Some("running"), Some("healthy")) => return Ok(()),
            (Some("running" | "created" | "restarting"), _) => tokio::time::sleep(LOOK * 5).await,
            (other, _) => {
                let other = other.unwrap_or("gone").to_owned();
                return Err(Failure::failed(format!("The container of {spawn} is {other}."))
                    .next(format!("`docker logs {spawn}` says more")));
            }
        }
    }
}

async fn create(docker: &Docker<'_>, args: &ProvisionUpArgs, ticket: &str) -> Result<String, Failure> {
    let body = of_json(&description(args));
    // Two containers cannot have one name: so two commands at once make one.
    let path = format!("/containers/create?name={}", args.spawn);
    let (status, made) = docker.ask(Method::POST, &path, body).await?;
    if status == StatusCode::CONFLICT {
        return Err(Failure::new(
            Exit::Denied,
            format!("There is a container {} that does not carry its label: it is left alone.", args.spawn),
        )
        .next("see what it is, and remove it yourself"));
    }
    let Some(id) = made["Id"].as_str().filter(|_| status == StatusCode::CREATED).map(str::to_owned) else {
        return Err(Failure::failed(format!(
            "The container cannot be made: {}.",
            said(&made).trim_end_matches('.')
        )));
    };
    let put = archived(TICKET_FILE, ticket.trim().as_bytes());
    docker.done(Method::PUT, &format!("/containers/{id}/archive?path={DATA}"), put, &[200]).await?;
    docker.done(Method::POST, &format!("/containers/{id}/start"), nothing(), &[204, 304]).await?;
    Ok(id)
}

pub(super) async fn down(args: &PlaceArgs, spawn: &str, patience: Duration) -> Result<bool, Failure> {
    let docker = Docker { socket: &args.docker };
    let there = docker.labelled(LABEL, Some(spawn)).await?;
    for row in &there {
        let patience_to_leave = DRAIN_WITHIN + 2 * HEARD_WITHIN + LEAVE_WITHIN;
        if row.state == "running"
            && tokio::time::timeout(patience_to_leave, docker.leave(&row.id)).await.is_err()
        {
            eprintln!("warning: the machine {spawn} did not leave the fleet in time");
        }
        // SIGTERM, and SIGKILL after that time.
        let path = format!("/containers/{}/stop?t={}", row.id, patience.as_secs());
        docker.ask_within(Method::POST, &path, nothing(), patience + ANSWER_WITHIN).await?;
        remove(&docker, &row.id).await?;
    }
    Ok(!there.is_empty())
}

/// With the volumes that have no name.
pub(super) async fn remove(docker: &Docker<'_>, id: &str) -> Result<(), Failure> {
    let path = format!("/containers/{id}?v=true&force=true");
    docker.done(Method::DELETE, &path, nothing(), &[204, 404]).await.map(|_| ())
}

pub(super) async fn rows(args: &PlaceArgs) -> Result<Vec<Row>, Failure> {
    Docker { socket: &args.docker }.labelled(LABEL, None).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_encoded_whole() {
        assert_eq!(encoded(r#"{"a":"b c"}"#), "%7B%22a%22%3A%22b%20c%22%7D");
    }
}
