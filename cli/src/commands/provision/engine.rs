//! What `osiris demo scale` asks of Docker: a network of its own, an image of this program, and which containers are
//! there.

use std::net::{IpAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::archive;
use super::docker::{self, Docker, LABEL, PROGRAM, encoded, nothing, of_json};
use crate::exit::Failure;

/// Longest wait for Docker to take in an image.
const IMPORT_WITHIN: Duration = Duration::from_secs(120);
/// Longest wait for a container that only says the version of its program.
const TRIAL_WITHIN: Duration = Duration::from_secs(30);

/// A Docker of this machine, with what the demo made there.
#[derive(Debug)]
pub(in crate::commands) struct Engine {
    socket: PathBuf,
    /// Which Docker it is.
    version: String,
    network: String,
    /// This machine in that network.
    gateway: IpAddr,
    image: String,
    made_image: bool,
}

/// A container of a machine.
#[derive(Clone, Debug)]
pub(in crate::commands) struct Container {
    pub(in crate::commands) spawn: String,
    pub(in crate::commands) runs: bool,
}

impl Engine {
    /// Makes the network, and an image of this program unless one is named; undoes both where that fails.
    pub(in crate::commands) async fn prepare(
        socket: &Path,
        name: &str,
        image: Option<&str>,
    ) -> Result<Self, Failure> {
        let docker = Docker { socket };
        let (_, version) = docker.done(Method::GET, "/version", nothing(), &[200]).await?;
        let version = version["Version"].as_str().unwrap_or("of no version").to_owned();
        let made_image = image.is_none();
        let image = image.map_or_else(|| format!("{name}:latest"), str::to_owned);
        let gateway = IpAddr::from([127, 0, 0, 1]);
        let mut engine =
            Self { socket: socket.to_owned(), version, network: name.to_owned(), gateway, image, made_image };
        match engine.make().await {
            Ok(()) => Ok(engine),
            Err(failure) => {
                engine.end().await;
                Err(failure)
            }
        }
    }

    async fn make(&mut self) -> Result<(), Failure> {
        if self.made_image {
            self.import(archive::of_this_program()?).await?;
        }
        let network = json!({ "Name": self.network, "CheckDuplicate": true });
        self.docker().done(Method::POST, "/networks/create", of_json(&network), &[201]).await?;
        let path = format!("/networks/{}", self.network);
        let (_, network) = self.docker().done(Method::GET, &path, nothing(), &[200]).await?;
        let gateway = network["IPAM"]["Config"][0]["Gateway"].as_str().and_then(|text| text.parse().ok());
        self.gateway = gateway.ok_or_else(|| Failure::failed("Docker's networks have no address here."))?;
        // It is not where Docker runs in a machine of its own, for example.
        UdpSocket::bind((self.gateway, 0))
            .map_err(|_| Failure::failed("Docker's networks do not end on this machine."))?;
        self.tried().await
    }

    fn docker(&self) -> Docker<'_> {
        Docker { socket: &self.socket }
    }

    async fn import(&self, archive: Bytes) -> Result<(), Failure> {
        let (repository, tag) = self.image.rsplit_once(':').unwrap_or((&self.image, "latest"));
        let changes =
            [format!("ENTRYPOINT [\"{PROGRAM}\"]"), format!("ENV LD_LIBRARY_PATH=/{}", archive::LIBRARIES)];
        let changes: Vec<_> = changes.iter().map(|change| format!("&changes={}", encoded(change))).collect();
        let path = format!("/images/create?fromSrc=-&repo={repository}&tag={tag}{}", changes.concat());
        let (status, said) = self
            .docker()
            .bytes_within(Method::POST, &path, ("application/x-tar", archive), IMPORT_WITHIN)
            .await?;
        // It answers with lines of JSON, of which one may be an error.
        let said = String::from_utf8_lossy(&said).into_owned();
        if status == StatusCode::OK && !said.contains("\"error\"") {
            return Ok(());
        }
        Err(Failure::failed(format!("Docker takes no image of this program: {:.300}.", said.trim())))
    }

    /// Whether a container of the image says the version of its program.
    async fn tried(&self) -> Result<(), Failure> {
        let trial = json!({ "Image": self.image, "Cmd": ["--version"] });
        let (_, made) =
            self.docker().done(Method::POST, "/containers/create", of_json(&trial), &[201]).await?;
        let id = made["Id"].as_str().unwrap_or_default();
        let start = format!("/containers/{id}/start");
        let started = self.docker().done(Method::POST, &start, nothing(), &[204]).await;
        let wait = format!("/containers/{id}/wait");
        let ended = self.docker().ask_within(Method::POST, &wait, nothing(), TRIAL_WITHIN).await;
        docker::remove(&self.docker(), id).await?;
        started?;
        match ended?.1["StatusCode"].as_i64() {
            Some(0) => Ok(()),
            code => Err(Failure::failed(format!(
                "A container of the image {} ends at once ({}).",
                self.image,
                code.map_or("without a code".to_owned(), |code| format!("exit {code}"))
            ))),
        }
    }

    pub(in crate::commands) fn socket(&self) -> &Path {
        &self.socket
    }

    pub(in crate::commands) fn network(&self) -> &str {
        &self.network
    }

    pub(in crate::commands) fn image(&self) -> &str {
        &self.image
    }

    pub(in crate::commands) fn gateway(&self) -> IpAddr {
        self.gateway
    }

    /// Which Docker, and which image.
    pub(in crate::commands) fn says(&self) -> String {
        let image = if self.made_image { "an image of this program" } else { &self.image };
        format!("Docker {} is reached, and runs {image}", self.version)
    }

    /// The containers of machines in the network, also those that ended.
    pub(in crate::commands) async fn machines(&self) -> Result<Vec<Container>, Failure> {
        let filters = json!({ "label": [LABEL], "network": [self.network] }).to_string();
        let path = format!("/containers/json?all=true&filters={}", encoded(&filters));
        let (_, list) = self.docker().done(Method::GET, &path, nothing(), &[200]).await?;
        let of = |container: &Value| {
            let spawn = container["Labels"][LABEL].as_str()?.to_owned();
            Some(Container { spawn, runs: container["State"].as_str() == Some("running") })
        };
        Ok(list.as_array().into_iter().flatten().filter_map(of).collect())
    }

    /// Takes away all that the demo made. What is not there any more is no failure.
    pub(in crate::commands) async fn end(&self) {
        let machines = self.machines().await.unwrap_or_default();
        for machine in machines {
            let _ = docker::remove(&self.docker(), &machine.spawn).await;
        }
        let network = format!("/networks/{}", self.network);
        let _ = self.docker().ask(Method::DELETE, &network, nothing()).await;
        if self.made_image {
            let image = format!("/images/{}?force=true", self.image);
            let _ = self.docker().ask(Method::DELETE, &image, nothing()).await;
        }
    }
}
