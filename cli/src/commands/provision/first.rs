//! Nodes of a fleet that a person makes, as containers. Unlike a machine that a fleet makes, one that is stopped stays a
//! member: its data is in a volume of its name, and is taken up when it is started again.
//!
//! What has to be done to a volume before a node runs on it is done by a container that ends at once, of the same image.

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::docker::{self, DATA, Docker, PROGRAM, TICKET_FILE, USER, nothing, of_json};
use crate::args::{StartArgs, StopArgs};
use crate::exit::{Exit, Failure};
use crate::output::{Out, human};

/// The label of what belongs to such a node. It is another one than a machine's: no fleet takes it away.
const LABEL: &str = "osiris.node";
/// Says of a container that ends at once what it does.
const ERRAND: &str = "osiris.errand";
/// The port for HTTP in the container.
const HTTP_PORT: u16 = 7420;
/// The name of the token's file in the volume.
const TOKEN_FILE: &str = "token";
/// Largest token file, bytes.
const TOKEN_BYTES_MAX: u64 = 4 << 10;
/// Longest wait for a command that ends at once.
const ERRAND_WITHIN: Duration = Duration::from_secs(60);
/// Longest wait for Docker to answer, besides what was asked for.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

struct First<'a> {
    docker: Docker<'a>,
    args: &'a StartArgs,
}

pub(super) async fn start(args: &StartArgs, out: Out) -> Result<(String, bool), Failure> {
    let first = First { docker: Docker { socket: &args.network.docker }, args };
    let late =
        || Failure::timed_out(format!("{} was not ready within {}.", args.spawn, human::span(args.timeout)));
    let work = first.start(out);
    tokio::time::timeout(args.timeout, work).await.map_err(|_| late().next("run it again"))?
}

impl First<'_> {
    async fn start(&self, out: Out) -> Result<(String, bool), Failure> {
        let spawn = &self.args.spawn;
        let there = self.docker.labelled(LABEL, Some(spawn)).await?;
        if let Some(row) = there.iter().find(|row| row.state == "running") {
            docker::healthy(&self.docker, spawn, &row.id).await?;
            return Ok((row.id.clone(), false));
        }
        for row in &there {
            docker::remove(&self.docker, &row.id).await?;
        }
        self.volume_is_ours().await?;
        self.network().await?;
        self.left(out).await?;
        let ticket = match (self.is_member(out).await?, &self.args.founder) {
            (true, _) => None,
            (false, None) => {
                self.found(out).await?;
                None
            }
            (false, Some(founder)) => Some(self.invited(founder).await?),
        };
        let id = self.create(ticket.is_some()).await?;
        let put = async |name: &str, content: &[u8]| {
            let path = format!("/containers/{id}/archive?path={DATA}");
            self.docker.done(Method::PUT, &path, docker::archived(name, content), &[200]).await
        };
        if let Some(ticket) = ticket {
            put(TICKET_FILE, ticket.as_bytes()).await?;
        }
        if let Some(file) = &self.args.token_file {
            let token = crate::input::file(file, TOKEN_BYTES_MAX, ERRAND_WITHIN);
            put(TOKEN_FILE, &token.map_err(|error| Failure::unread("token file", file, &error))?).await?;
        }
        self.docker.done(Method::POST, &format!("/containers/{id}/start"), nothing(), &[204, 304]).await?;
        docker::healthy(&self.docker, spawn, &id).await?;
        Ok((id, true))
    }

    /// A volume of this name without the label is someone else's.
    async fn volume_is_ours(&self) -> Result<(), Failure> {
        let spawn = &self.args.spawn;
        let (status, volume) = self.docker.ask(Method::GET, &format!("/volumes/{spawn}"), nothing()).await?;
        if status == StatusCode::NOT_FOUND || volume["Labels"][LABEL].as_str() == Some(spawn) {
            return Ok(());
        }
        Err(Failure::new(
            Exit::Denied,
            format!("There is a volume {spawn} that does not carry its label: it is left alone."),
        )
        .next("give the node another name, or remove the volume yourself"))
    }

    /// Makes the network, where that was asked for and there is none.
    async fn network(&self) -> Result<(), Failure> {
        let (name, Some(subnet)) = (&self.args.network.network, &self.args.network.subnet) else {
            return Ok(());
        };
        let there = async || {
            let (status, _) = self.docker.ask(Method::GET, &format!("/networks/{name}"), nothing()).await?;
            Ok::<_, Failure>(status == StatusCode::OK)
        };
        if there().await? {
            return Ok(());
        }
        let network = json!({
            "Name": name, "CheckDuplicate": true, "Labels": { LABEL: name },
            "IPAM": { "Config": [{ "Subnet": subnet }] },
        });
        let (status, said) = self.docker.ask(Method::POST, "/networks/create", of_json(&network)).await?;
        // Another node of the fleet may have made it just now.
        if status == StatusCode::CREATED || there().await? {
            return Ok(());
        }
        let why = docker::said(&said);
        Err(Failure::failed(format!("The network {name} cannot be made: {}.", why.trim_end_matches('.')))
            .next("give it other addresses with --subnet"))
    }

    /// What containers of this node have in common.
    fn description(&self, command: &Value, labels: &Value) -> Value {
        let args = self.args;
        let label = args.label.as_ref().unwrap_or(&args.spawn);
        let mut environment = vec![format!("OSIRIS_DATA={DATA}/node"), format!("OSIRIS_LABEL={label}")];
        environment.push(format!("OSIRIS_MESH={}", args.listen));
        let mut host = docker::limits(&args.network.network);
        let volume = json!({ "Labels": { LABEL: args.spawn } });
        host["Mounts"] =
            json!([{ "Type": "volume", "Source": args.spawn, "Target": DATA, "VolumeOptions": volume }]);
        json!({
            "Image": args.image, "User": USER, "Cmd": command, "Env": environment, "Labels": labels,
            "HostConfig": host,
        })
    }

    async fn create(&self, joins: bool) -> Result<String, Failure> {
        let args = self.args;
        let join: &[_] = if joins { &["--join", "@/data/ticket"] } else { &[] };
        let command = json!([&["up"], join].concat());
        let mut node = self.description(&command, &json!({ LABEL: args.spawn }));
        node["Healthcheck"] = docker::health();
        let mut environment = vec![];
        if args.token_file.is_some() {
            environment.push(format!("OSIRIS_TOKEN_FILE={DATA}/{TOKEN_FILE}"));
        }
        if let Some(publish) = args.publish {
            environment.push(format!("OSIRIS_HTTP=0.0.0.0:{HTTP_PORT}"));
            let port = format!("{HTTP_PORT}/tcp");
            let at = json!([{ "HostIp": publish.ip().to_string(), "HostPort": publish.port().to_string() }]);
            node["ExposedPorts"] = json!({ &port: {} });
            node["HostConfig"]["PortBindings"] = json!({ &port: at });
        }
        if let Some(list) = node["Env"].as_array_mut() {
            list.extend(environment.into_iter().map(Value::from));
        }
        if let Some(address) = args.network.address {
            let fixed = json!({ "IPAMConfig": { "IPv4Address": address.to_string() } });
            node["NetworkingConfig"] = json!({ "EndpointsConfig": { &args.network.network: fixed } });
        }
        self.made(&args.spawn, &node).await
    }

    async fn made(&self, name: &str, description: &Value) -> Result<String, Failure> {
        let path = format!("/containers/create?name={name}");
        let (status, made) = self.docker.ask(Method::POST, &path, of_json(description)).await?;
        let id = made["Id"].as_str().filter(|_| status == StatusCode::CREATED).map(str::to_owned);
        id.ok_or_else(|| {
            let why = docker::said(&made);
            Failure::failed(format!("The container {name} cannot be made: {}.", why.trim_end_matches('.')))
                .next("see what Docker has of that name and image")
        })
    }

    /// The name of a container that ends at once. One of each node at a time.
    fn errand(&self) -> String {
        format!("{}-errand", self.args.spawn)
    }

    /// Runs a command on the volume to its end, and gives its exit code and what it wrote.
    async fn once(&self, command: &[&str], out: Out) -> Result<(i64, String, String), Failure> {
        let name = self.errand();
        let mut description = self
            .description(&json!(command), &json!({ ERRAND: command.first(), "osiris.of": self.args.spawn }));
        description["HostConfig"]["RestartPolicy"] = json!({ "Name": "no" });
        description["Healthcheck"] = json!({ "Test": ["NONE"] });
        let id = self.made(&name, &description).await?;
        self.docker.done(Method::POST, &format!("/containers/{id}/start"), nothing(), &[204, 304]).await?;
        let wait = format!("/containers/{id}/wait");
        let (_, ended) = self.docker.ask_within(Method::POST, &wait, nothing(), ERRAND_WITHIN).await?;
        let (said, errors) = self.wrote(&id).await?;
        if command.first() == Some(&"init") {
            told(out, &said)?;
        }
        docker::remove(&self.docker, &id).await?;
        Ok((ended["StatusCode"].as_i64().unwrap_or(-1), said, errors))
    }

    async fn wrote(&self, id: &str) -> Result<(String, String), Failure> {
        let path = format!("/containers/{id}/logs?stdout=true&stderr=true");
        let (_, bytes) = self.docker.bytes_within(Method::GET, &path, nothing(), ANSWER_WITHIN).await?;
        Ok(streams(&bytes))
    }

    /// A command of before that was ended by force is ended, and what it said of a fleet that it founded is said now.
    async fn left(&self, out: Out) -> Result<(), Failure> {
        let path = format!("/containers/{}/json", self.errand());
        let (status, container) = self.docker.ask(Method::GET, &path, nothing()).await?;
        let labels = &container["Config"]["Labels"];
        let Some(id) = container["Id"].as_str().filter(|_| status == StatusCode::OK) else { return Ok(()) };
        if labels["osiris.of"].as_str() != Some(&self.args.spawn) {
            return Err(Failure::new(
                Exit::Denied,
                format!("There is a container {} that is not of this node: it is left alone.", self.errand()),
            )
            .next("see what it is, and remove it yourself"));
        }
        let wait = format!("/containers/{id}/wait");
        if container["State"]["Running"].as_bool() == Some(true) {
            self.docker.ask_within(Method::POST, &wait, nothing(), ERRAND_WITHIN).await?;
        }
        if labels[ERRAND].as_str() == Some("init") {
            told(out, &self.wrote(id).await?.0)?;
        }
        docker::remove(&self.docker, id).await
    }

    async fn is_member(&self, out: Out) -> Result<bool, Failure> {
        match self.once(&["nodes", "-o", "json"], out).await? {
            (0, ..) => Ok(true),
            (code, ..) if code == Exit::NotFound as i64 => Ok(false),
            (code, _, errors) => Err(self.failed("be looked into", code, &errors)),
        }
    }

    /// Founds the fleet; the recovery key is printed, and kept nowhere.
    async fn found(&self, out: Out) -> Result<(), Failure> {
        let label = self.args.label.as_ref().unwrap_or(&self.args.spawn);
        let command = ["init", "--name", &self.args.name, "--label", label];
        match self.once(&command, out).await? {
            (0, ..) => Ok(()),
            (code, _, errors) => Err(self.failed("be made the folder of a fleet", code, &errors)),
        }
    }

    fn failed(&self, what: &str, code: i64, errors: &str) -> Failure {
        let last = errors.lines().find_map(|line| line.strip_prefix("error:"));
        let last = last.or(errors.lines().next_back()).unwrap_or("it does not say why").trim();
        let last = last.trim_end_matches('.');
        Failure::failed(format!("The volume {} cannot {what} (exit {code}): {last}.", self.args.spawn))
    }

    /// A ticket that admits one device, from a node of the fleet.
    async fn invited(&self, founder: &str) -> Result<Zeroizing<String>, Failure> {
        let there = self.docker.labelled(LABEL, Some(founder)).await?;
        let Some(row) = there.into_iter().find(|row| row.state == "running") else {
            return Err(
                Failure::not_found(format!("The node {founder} does not run here.")).next("start it first")
            );
        };
        docker::healthy(&self.docker, founder, &row.id).await?;
        let ask = json!({
            "Cmd": [PROGRAM, "invite", "-o", "json", "--timeout", "2s", "--note", self.args.spawn],
            "AttachStdout": true, "AttachStderr": true,
        });
        let (_, exec) = self
            .docker
            .done(Method::POST, &format!("/containers/{}/exec", row.id), of_json(&ask), &[201])
            .await?;
        let exec = exec["Id"].as_str().unwrap_or_default().to_owned();
        let attached = of_json(&json!({ "Detach": false }));
        let start = format!("/exec/{exec}/start");
        let (_, bytes) = self.docker.bytes_within(Method::POST, &start, attached, ERRAND_WITHIN).await?;
        let (said, errors) = streams(&bytes);
        let invited: Value = serde_json::from_str(&said).unwrap_or_default();
        let ticket = invited["ticket"].as_str().map(|ticket| Zeroizing::new(ticket.to_owned()));
        ticket.ok_or_else(|| {
            let why = errors.lines().next().unwrap_or("it does not say why");
            Failure::failed(format!("The node {founder} invites nobody: {}.", why.trim_end_matches('.')))
                .next("an admin of the fleet invites; that is who founded it")
        })
    }
}

/// What a container said that founded a fleet, the recovery key above all.
fn told(out: Out, said: &str) -> Result<(), Failure> {
    out.raw(said.as_bytes())
}

/// Output and errors of a stream of Docker's: frames of a head of 8 bytes, with the stream's number first and the length
/// last, and their content (Docker Engine API 1.41, ContainerAttach).
fn streams(mut bytes: &[u8]) -> (String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    while let Some((head, rest)) = bytes.split_first_chunk::<8>() {
        let [stream, _, _, _, a, b, c, d] = *head;
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        let (content, rest) = rest.split_at(length.min(rest.len()));
        if stream == 2 { &mut err } else { &mut out }.extend_from_slice(content);
        bytes = rest;
    }
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (text(out), text(err))
}

/// Ends a node, its calls first. What is in its volume stays.
pub(super) async fn stop(args: &StopArgs) -> Result<bool, Failure> {
    let docker = Docker { socket: &args.network.docker };
    let there = docker.labelled(LABEL, Some(&args.spawn)).await?;
    for row in &there {
        let path = format!("/containers/{}/stop?t={}", row.id, args.timeout.as_secs());
        docker.ask_within(Method::POST, &path, nothing(), args.timeout + ANSWER_WITHIN).await?;
        docker::remove(&docker, &row.id).await?;
    }
    let network = format!("/networks/{}", args.network.network);
    if args.network.subnet.is_some() {
        let (_, found) = docker.ask(Method::GET, &network, nothing()).await?;
        if found["Labels"][LABEL].as_str() == Some(&args.network.network) {
            // Docker refuses while another container is in it.
            docker.ask(Method::DELETE, &network, nothing()).await?;
        }
    }
    Ok(!there.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_streams_are_told_apart_and_one_that_is_cut_short_ends() {
        let bytes =
            b"\x01\0\0\0\0\0\0\x02ab\x02\0\0\0\0\0\0\x01e\x01\0\0\0\0\0\0\x01c\x01\0\0\0\xff\xff\xff\xffd";
        assert_eq!(streams(bytes), ("abcd".to_owned(), "e".to_owned()));
        assert_eq!(streams(&bytes[..5]), (String::new(), String::new()));
    }
}
