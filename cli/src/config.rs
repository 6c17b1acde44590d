//! Settings: flags over environment over `DATA/config.toml` over defaults.
//!
//! clap already puts flags over the environment, so what arrives here is one layer above the file.

mod terms;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use osiris_fleet::node::Retain;
use osiris_fleet::policy::Terms;

use crate::args::{Global, LogFormat, NodeArgs, RetainWord};
use crate::backend::driver::ProvisionOptions;
use crate::exit::Failure;
use crate::output::Format;

/// Where function calls are taken unless told otherwise.
const HTTP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7420);
/// Largest configuration or project file, bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What applies to every command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// The data folder, absolute.
    pub(crate) data: PathBuf,
    /// The node's socket.
    pub(crate) socket: PathBuf,
    /// How data is written.
    pub(crate) output: Format,
    /// Where to listen for other members.
    pub(crate) mesh: Option<SocketAddr>,
    /// Where the person's key is kept; none where there is no home folder.
    pub(crate) user_key: Option<PathBuf>,
    file: File,
}

/// What applies to a running node besides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeSettings {
    /// Where function calls are taken.
    pub(crate) http: SocketAddr,
    /// Addresses told to other members.
    pub(crate) advertise: Vec<SocketAddr>,
    /// File with the token of HTTP callers.
    pub(crate) token_file: Option<PathBuf>,
    /// What is kept of blocks that sealed pages list.
    pub(crate) retain: Retain,
    /// Machines that the fleet may have made for this node to make another.
    pub(crate) machines: u32,
    /// What is logged.
    pub(crate) log: String,
    /// How it is logged.
    pub(crate) log_format: LogFormat,
}

/// `DATA/config.toml`: the flags' names as keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct File {
    http: Option<String>,
    mesh: Option<String>,
    #[serde(deserialize_with = "one_or_more")]
    advertise: Vec<SocketAddr>,
    token_file: Option<PathBuf>,
    output: Option<Format>,
    retain: Option<RetainWord>,
    machines: Option<u32>,
    label: Option<String>,
    log: Option<String>,
    log_format: Option<LogFormat>,
    provision: Option<ProvisionFile>,
    scale: terms::ScaleFile,
}

/// `[provision]`: what this node makes machines with.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct ProvisionFile {
    /// Name of the target, as the fleet knows it.
    target: String,
    /// Which target of `osiris provision` it is. Default: the target's name, where there is one of that name.
    kind: Option<String>,
    /// Folder of the Terraform module; beside the configuration file, where it is relative.
    module: PathBuf,
    /// Whether this node reaches what other members made by the same target.
    #[serde(default)]
    shared: Option<bool>,
    /// Terraform or OpenTofu. Default: the first of both that PATH has.
    terraform: Option<PathBuf>,
    /// Names of variables of this process's environment that Terraform is given, credentials for example.
    #[serde(default)]
    pass: Vec<String>,
    /// The module's variables.
    #[serde(default)]
    variables: BTreeMap<String, String>,
}

/// What the environment says about folders.
#[derive(Clone, Debug, Default)]
pub(crate) struct Folders {
    /// `XDG_DATA_HOME`.
    pub(crate) xdg_data: Option<PathBuf>,
    /// `XDG_CONFIG_HOME`.
    pub(crate) xdg_config: Option<PathBuf>,
    /// `XDG_RUNTIME_DIR`.
    pub(crate) xdg_runtime: Option<PathBuf>,
    /// `HOME`.
    pub(crate) home: Option<PathBuf>,
}

impl Folders {
    /// Those of this process. The XDG base directory specification has relative ones ignored.
    pub(crate) fn here() -> Self {
        let folder = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        Self {
            xdg_data: folder("XDG_DATA_HOME"),
            xdg_config: folder("XDG_CONFIG_HOME"),
            xdg_runtime: folder("XDG_RUNTIME_DIR"),
            home: folder("HOME"),
        }
    }
}

impl Settings {
    /// The settings that result.
    pub(crate) fn new(flags: &Global, folders: &Folders) -> Result<Self, Failure> {
        let data = match (&flags.data, &folders.xdg_data, &folders.home) {
            (Some(data), ..) if data.as_os_str().is_empty() => {
                return Err(Failure::usage("The data folder's name is empty.").next("give --data DIR"));
            }
            (Some(data), ..) => std::path::absolute(data).map_err(|e| {
                Failure::usage(format!("The data folder {} has no place: {e}.", data.display()))
            })?,
            (None, Some(xdg), _) => xdg.join("osiris"),
            (None, None, Some(home)) => home.join(".local/share/osiris"),
            (None, None, None) => {
                return Err(Failure::usage("There is no home folder to keep data in.")
                    .next("give --data DIR, or set OSIRIS_DATA"));
            }
        };
        let path = data.join("config.toml");
        let file: File = read_toml(&path)?.unwrap_or_default();
        let mesh = match (flags.mesh, &file.mesh) {
            (None, Some(text)) => Some(parse_mesh(text).map_err(|e| bad_key(&path, "mesh", &e))?),
            (flag, _) => flag,
        };
        if let Some(text) = &file.http {
            parse_http(text).map_err(|e| bad_key(&path, "http", &e))?;
        }
        if let Some(label) = &file.label {
            crate::args::parse_label(label).map_err(|e| bad_key(&path, "label", &e))?;
        }
        file.scale.terms().map_err(|e| bad_key(&path, "scale", &e))?;
        let socket = crate::backend::socket_path(&data, folders.xdg_runtime.as_deref());
        let output = flags.output.or(file.output).unwrap_or_default();
        let config = folders.xdg_config.clone();
        let config = config.or_else(|| folders.home.as_ref().map(|home| home.join(".config")));
        let user_key = config.map(|config| config.join("osiris/user.key"));
        Ok(Self { data, socket, output, mesh, user_key, file })
    }

    /// The settings of a node.
    pub(crate) fn node(&self, flags: &NodeArgs) -> Result<NodeSettings, Failure> {
        let from_file = self.file.http.as_deref().and_then(|text| parse_http(text).ok());
        let advertise = match flags.advertise.as_slice() {
            [] => self.file.advertise.clone(),
            flags => flags.to_vec(),
        };
        let token_file = match (&flags.token_file, &self.file.token_file) {
            (Some(flag), _) => Some(std::path::absolute(flag).map_err(|e| {
                Failure::usage(format!("The token file {} has no place: {e}.", flag.display()))
            })?),
            // Beside the configuration file, where it is relative.
            (None, Some(file)) => Some(self.data.join(file)),
            (None, None) => None,
        };
        let retain = flags.retain.or(self.file.retain).map_or(Retain::All, RetainWord::retain);
        let log = flags.log.clone().or_else(|| self.file.log.clone());
        Ok(NodeSettings {
            http: flags.http.or(from_file).unwrap_or(HTTP),
            advertise,
            token_file,
            retain,
            machines: flags.machines.or(self.file.machines).unwrap_or(0),
            log: log.unwrap_or_else(|| "info".to_owned()),
            log_format: flags.log_format.or(self.file.log_format).unwrap_or_default(),
        })
    }

    /// What people are to call this device, where somebody said so.
    pub(crate) fn label<'a>(&'a self, flag: Option<&'a str>) -> Option<&'a str> {
        flag.or(self.file.label.as_deref())
    }
}

/// Variables of the environment that every program is given.
const PASSED: [&str; 4] = ["PATH", "HOME", "TMPDIR", "SSL_CERT_FILE"];

impl Settings {
    /// By what this node decides about replicas and machines.
    pub(crate) fn terms(&self) -> Result<Terms, Failure> {
        self.file.scale.terms().map_err(|e| bad_key(&self.data.join("config.toml"), "scale", &e))
    }

    /// What this node makes machines with, or a sentence why it makes none; neither where nothing is configured.
    pub(crate) fn provision(
        &self,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Option<Result<ProvisionOptions, String>>, Failure> {
        let Some(file) = &self.file.provision else { return Ok(None) };
        let terraform = match &file.terraform {
            Some(path) => Some(self.data.join(path)).filter(|path| path.is_file()),
            None => find_program(&["terraform", "tofu"], variable("PATH").as_deref()),
        };
        let kind = file.kind.clone().or_else(|| {
            let known = <crate::args::Target as clap::ValueEnum>::from_str(&file.target, false);
            known.ok().map(|_| file.target.clone())
        });
        let passed = PASSED.into_iter().chain(file.pass.iter().map(String::as_str));
        let environment = passed.filter_map(|name| Some((name.into(), variable(name)?))).collect();
        let osiris = std::env::current_exe()
            .map_err(|error| Failure::failed(format!("This program cannot be found again: {error}.")))?;
        let missing = terraform.is_none();
        let options = ProvisionOptions {
            target: file.target.clone(),
            module: self.data.join(&file.module),
            variables: file.variables.clone(),
            // What is known by its state alone can be taken away by that state alone, and only where makers share it.
            shared: file.shared.unwrap_or(kind.is_none()),
            kind,
            environment,
            terraform: terraform.unwrap_or_default(),
            osiris,
        };
        options.validate()?;
        Ok(Some(match missing {
            true => Err("Neither terraform nor tofu is here: this node makes no machines.".to_owned()),
            false => Ok(options),
        }))
    }
}

/// The first of these programs that a search path has.
pub(crate) fn find_program(names: &[&str], path: Option<&OsStr>) -> Option<PathBuf> {
    let folders: Vec<_> = std::env::split_paths(path?).filter(|folder| folder.is_absolute()).collect();
    let places = names.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    places.into_iter().find(|place| {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::metadata(place).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    })
}

fn bad_key(path: &Path, key: &str, error: &str) -> Failure {
    Failure::usage(format!("{}: `{key}` cannot be used: {error}.", path.display()))
        .next("correct it in the file")
}

/// Who keeps such files elsewhere may link to them; a pipe would have the command wait for its other end.
fn read_text(path: &Path) -> std::io::Result<String> {
    let path = std::fs::canonicalize(path)?;
    let bytes = osiris_runtime::read_regular(&path, FILE_BYTES_MAX)?;
    String::from_utf8(bytes).map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidData, error))
}

/// Reads a TOML file; `None` where there is none.
pub(crate) fn read_toml<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Failure> {
    let text = match read_text(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        // Where the data folder is no folder, whoever opens it says so better.
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => return Ok(None),
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            let message = format!("The file {} is no text: {error}.", path.display());
            return Err(Failure::usage(message).next("write it as UTF-8"));
        }
        Err(error) => return Err(Failure::unread("file", path, &error)),
    };
    toml::from_str(&text).map(Some).map_err(|error| {
        let line = error.span().map_or(1, |span| {
            text.get(..span.start.min(text.len())).map_or(1, |before| before.matches('\n').count() + 1)
        });
        Failure::usage(format!("{}, line {line}: {}.", path.display(), error.message().trim_end_matches('.')))
            .next("correct the line or remove it")
    })
}

/// `HOST:PORT`, or a port on the loopback interface.
pub(crate) fn parse_http(text: &str) -> Result<SocketAddr, String> {
    parse_address(text, Ipv4Addr::LOCALHOST)
}

/// `HOST:PORT`, or a port on all interfaces.
pub(crate) fn parse_mesh(text: &str) -> Result<SocketAddr, String> {
    parse_address(text, Ipv4Addr::UNSPECIFIED)
}

/// Addresses as the flag takes them, parted by commas, or as a list.
fn one_or_more<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<SocketAddr>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "addresses are a text such as \"203.0.113.7:7421\", or a list of such")]
    enum OneOrMore {
        One(String),
        More(Vec<String>),
    }
    let texts = match OneOrMore::deserialize(from)? {
        OneOrMore::One(text) => text.split(',').map(|one| one.trim().to_owned()).collect(),
        OneOrMore::More(texts) => texts,
    };
    texts.iter().map(|text| parse_advertise(text).map_err(serde::de::Error::custom)).collect()
}

/// `IP:PORT` at which others reach this node.
pub(crate) fn parse_advertise(text: &str) -> Result<SocketAddr, String> {
    let address = text.parse().map_err(|_| {
        format!("`{text}` is no address; write the IP address and port that others reach, such as 203.0.113.7:7421")
    })?;
    reachable(address)
}

fn reachable(address: SocketAddr) -> Result<SocketAddr, String> {
    if address.port() == 0 || address.ip().is_unspecified() || address.ip().is_multicast() {
        return Err(format!(
            "nobody can reach {address}; write the IP address and port that others reach, such as 203.0.113.7:7421"
        ));
    }
    Ok(address)
}

fn parse_address(text: &str, host: Ipv4Addr) -> Result<SocketAddr, String> {
    if let Ok(port) = text.parse() {
        return Ok(SocketAddr::new(IpAddr::V4(host), port));
    }
    text.parse().map_err(|_| format!("`{text}` is no address; write IP:PORT, such as {host}:7420, or a port"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(config: &str, flags: &Global) -> Result<Settings, Failure> {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("config.toml"), config).expect("written");
        let flags = Global { data: Some(folder.path().to_owned()), ..flags.clone() };
        Settings::new(&flags, &Folders::default())
    }

    #[test]
    fn a_file_that_is_no_text_is_to_be_written_anew() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("config.toml");
        std::fs::write(&path, b"http = \"\xff\"").expect("written");
        let failure = read_toml::<toml::Table>(&path).expect_err("not UTF-8");
        assert_eq!(
            (failure.exit, failure.next.as_deref()),
            (crate::exit::Exit::Usage, Some("write it as UTF-8"))
        );
    }

    #[test]
    fn the_default_folder_follows_xdg() {
        let home = Some(PathBuf::from("/home/a"));
        let folders = Folders { home: home.clone(), ..Folders::default() };
        let data = |folders: &Folders| Settings::new(&Global::default(), folders).map(|s| s.data);
        assert_eq!(data(&folders).expect("data"), Path::new("/home/a/.local/share/osiris"));
        let folders = Folders { home, xdg_data: Some(PathBuf::from("/x")), ..Folders::default() };
        assert_eq!(data(&folders).expect("data"), Path::new("/x/osiris"));
        assert!(data(&Folders::default()).is_err());
    }

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let file = "http = \"9000\"\nmesh = \"10.0.0.1:1\"\nadvertise = [\"10.0.0.2:2\"]\ntoken-file = \"token\"\noutput = \"yaml\"";
        let from_file = settings(file, &Global::default()).expect("settings");
        assert_eq!(from_file.output, Format::Yaml);
        assert_eq!(from_file.mesh, Some(SocketAddr::from(([10, 0, 0, 1], 1))));
        let node = from_file.node(&NodeArgs::default()).expect("node");
        assert_eq!(node.http, SocketAddr::from(([127, 0, 0, 1], 9000)));
        assert_eq!(node.advertise, [SocketAddr::from(([10, 0, 0, 2], 2))]);
        assert_eq!(node.token_file, Some(from_file.data.join("token")));

        let text = settings("advertise = \"10.0.0.2:2, 10.0.0.3:3\"", &Global::default()).expect("settings");
        assert_eq!(text.node(&NodeArgs::default()).expect("node").advertise.len(), 2);
        for wrong in ["advertise = 7", "advertise = \"7421\"", "advertise = [\"0.0.0.0:1\"]"] {
            let failure = settings(wrong, &Global::default()).expect_err("no address");
            assert!(
                failure.exit == crate::exit::Exit::Usage && failure.message.contains("203.0.113.7:7421"),
                "{failure}"
            );
        }

        let flags = Global { output: Some(Format::Json), mesh: parse_mesh("7").ok(), data: None };
        let from_flags = settings(file, &flags).expect("settings");
        assert_eq!(from_flags.output, Format::Json);
        assert_eq!(from_flags.mesh, Some(SocketAddr::from(([0, 0, 0, 0], 7))));
        let node =
            NodeArgs { http: parse_http("0").ok(), token_file: Some("/t".into()), ..NodeArgs::default() };
        let node = from_flags.node(&node).expect("node");
        assert_eq!(node.http, SocketAddr::from(([127, 0, 0, 1], 0)));
        assert_eq!(node.token_file, Some("/t".into()));

        let defaults = settings("", &Global::default()).expect("settings");
        assert_eq!((defaults.output, defaults.mesh), (Format::Table, None));
        let node = defaults.node(&NodeArgs::default()).expect("node");
        assert_eq!(
            (node.http, node.machines, node.log.as_str(), node.log_format),
            (HTTP, 0, "info", LogFormat::Text)
        );
        assert_eq!((defaults.label(None), defaults.label(Some("a"))), (None, Some("a")));
    }

    #[test]
    fn what_is_logged_how_many_machines_and_the_label_are_keys_as_well() {
        let file = "machines = 3\nlog = \"warn\"\nlog-format = \"json\"\nlabel = \"till-2\"";
        let settings = settings(file, &Global::default()).expect("settings");
        let node = settings.node(&NodeArgs::default()).expect("node");
        assert_eq!((node.machines, node.log.as_str(), node.log_format), (3, "warn", LogFormat::Json));
        assert_eq!((settings.label(None), settings.label(Some("till-3"))), (Some("till-2"), Some("till-3")));
        let flags = NodeArgs {
            machines: Some(0),
            log: Some("error".to_owned()),
            log_format: Some(LogFormat::Text),
            ..NodeArgs::default()
        };
        let node = settings.node(&flags).expect("node");
        assert_eq!((node.machines, node.log.as_str(), node.log_format), (0, "error", LogFormat::Text));
    }

    #[test]
    fn what_machines_are_made_with_is_read_and_every_mistake_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("main.tf"), "").expect("written");
        let module = folder.path().display();
        let plain = format!(
            "[provision]\ntarget = \"process\"\nmodule = \"{module}\"\npass = [\"TOKEN\"]\n[provision.variables]\nplace = \"/srv\""
        );
        let from = |config: &str, path: &str| {
            let settings = settings(config, &Global::default())?;
            settings.provision(|name| Some(if name == "PATH" { path.into() } else { name.into() }))
        };
        assert!(from("", "/bin").expect("settings").is_none());
        let why = from(&plain, "/nowhere").expect("settings").expect("configured").expect_err("no terraform");
        assert!(why.contains("makes no machines"), "{why}");
        let program = folder.path().join("tofu");
        std::fs::write(&program, "").expect("written");
        let path = folder.path().to_str().expect("UTF-8");
        let failed = from(&plain, path).expect("settings").expect("configured");
        assert!(failed.is_err(), "it cannot be run");
        std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("set");
        let options = from(&plain, path).expect("settings").expect("configured").expect("found");
        assert_eq!((options.terraform, options.kind.as_deref()), (program, Some("process")));
        assert!(options.environment.contains(&("TOKEN".into(), "TOKEN".into())), "{:?}", options.environment);
        for (config, words) in [
            ("[provision]\ntarget = \"process\"", "module"),
            ("[provision]\ntarget = \"No\"\nmodule = \"m\"", "`target`"),
            ("[provision]\ntarget = \"a\"\nmodule = \"m\"\nmodules = 1", "unknown field `modules`"),
        ] {
            let failure = from(config, "/bin").expect_err(config);
            assert!(failure.message.contains(words), "{config}: {}", failure.message);
        }
    }

    #[test]
    fn what_the_file_should_not_say_is_named_with_its_line() {
        for (config, words) in [
            ("http = \"1\"\nhtpp = \"2\"", "line 2: unknown field `htpp`"),
            ("output = \"xml\"", "line 1: unknown variant `xml`"),
            ("http = \"nowhere\"", "`http` cannot be used"),
            ("mesh = \"nowhere\"", "`mesh` cannot be used"),
            ("label = \" \"", "`label` cannot be used"),
            ("log-format = \"xml\"", "line 1: unknown variant `xml`"),
            ("machines = -1", "line 1"),
            ("http = ", "line 1"),
        ] {
            let failure = settings(config, &Global::default()).expect_err(config);
            assert!(failure.message.contains(words), "{config}: {}", failure.message);
            assert_eq!(failure.exit, crate::exit::Exit::Usage);
        }
    }
}
