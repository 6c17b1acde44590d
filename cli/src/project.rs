//! `osiris.toml`: what a function is, beside its source.

use std::path::{Path, PathBuf};

use osiris_fleet::manifest::{LimitKeys, Manifest, PlaceKeys, Replicas, ScaleKeys};
use serde::Deserialize;

use crate::args::DeployArgs;
use crate::config::read_toml;
use crate::exit::Failure;

/// The file's usual name.
const FILE: &str = "osiris.toml";

/// The keys that exist so far; any other is an error.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Project {
    name: Option<String>,
    component: Option<PathBuf>,
    version: Option<String>,
    replicas: Option<Replicas>,
    #[serde(default)]
    limits: LimitKeys,
    scale: Option<ScaleKeys>,
    #[serde(default)]
    place: PlaceKeys,
}

/// The component's file and the manifest that result from flags over `osiris.toml`.
pub(crate) fn resolve(args: &DeployArgs, folder: &Path) -> Result<(PathBuf, Manifest), Failure> {
    let (project, base) = match (&args.manifest, &args.file) {
        (Some(path), _) => {
            let path = folder.join(path);
            let project = read_toml::<Project>(&path)?.ok_or_else(|| {
                Failure::unread(
                    "manifest",
                    &path,
                    &std::io::Error::new(std::io::ErrorKind::NotFound, "there is no such file"),
                )
            })?;
            (project, path.parent().unwrap_or(folder).to_owned())
        }
        // A component and a name say all there is to say, wherever the command runs.
        (None, Some(_)) => (Project::default(), folder.to_owned()),
        (None, None) => {
            let project = read_toml::<Project>(&folder.join(FILE))?.ok_or_else(|| {
                Failure::usage(format!("There is neither a component to deploy nor an {FILE} here."))
                    .next("give FILE.wasm --name NAME, or write an osiris.toml")
            })?;
            (project, folder.to_owned())
        }
    };
    let component = match (&args.file, project.component) {
        (Some(file), _) => folder.join(file),
        (None, Some(file)) => base.join(file),
        (None, None) => {
            return Err(Failure::usage("The manifest does not say which file is the component.")
                .next("add component = \"FILE.wasm\", or give the file"));
        }
    };
    let name = args.name.clone().or(project.name).ok_or_else(|| {
        Failure::usage("The function has no name.").next("give --name NAME, or `name` in osiris.toml")
    })?;
    let manifest = Manifest {
        version: project.version,
        replicas: args.replicas.or(project.replicas).unwrap_or_default(),
        limits: project.limits,
        scale: project.scale,
        place: project.place,
        ..Manifest::named(&name)
    };
    manifest.to_bytes().map_err(|e| Failure::usage(format!("{e}.")).next("correct the name or the limit"))?;
    Ok((component, manifest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;

    /// Every key of a manifest, those of its tables included.
    fn keys(value: &serde_json::Value) -> Vec<String> {
        let Some(table) = value.as_object() else { return Vec::new() };
        table.iter().flat_map(|(key, value)| keys(value).into_iter().chain([key.clone()])).collect()
    }

    #[test]
    fn the_manifest_that_the_help_shows_is_one_and_has_every_key() {
        let shown = crate::args::DEPLOY_HELP.split_once("precedence.\n").expect("an example").1;
        // The help breaks longer lines, also in the middle of a comment.
        assert!(shown.lines().all(|line| line.len() < 98), "{shown}");
        let (component, manifest) = deploy(&[], Some(shown)).expect("the example can be deployed");
        assert_eq!(component, Path::new("thumbs.wasm"));
        // Written out, so that a new key does not compile until it is here, and then has to be in the help.
        let every = Manifest {
            name: "thumbs".to_owned(),
            version: Some("1.4".to_owned()),
            replicas: Replicas::Count(2),
            limits: LimitKeys {
                memory_mib: Some(64),
                timeout_ms: Some(5_000),
                concurrency: Some(8),
                queue: Some(100),
            },
            scale: Some(ScaleKeys {
                min: 0,
                max: 5,
                backlog: Some(4),
                idle_s: Some(60),
                concurrency: Some(2),
            }),
            place: PlaceKeys { labels: vec!["gpu".to_owned()], spread: Some("zone".to_owned()) },
        };
        assert_eq!(manifest, every);
        let keys = keys(&serde_json::to_value(&every).expect("JSON"));
        assert_eq!(keys.len(), 6 + 4 + 5 + 2);
        for key in keys {
            let named = shown.contains(&format!("  {key} = ")) || shown.contains(&format!("  [{key}]"));
            assert!(named, "no {key} in the help");
        }
    }

    fn deploy(arguments: &[&str], toml: Option<&str>) -> Result<(PathBuf, Manifest), Failure> {
        use clap::Parser;
        let folder = tempfile::tempdir().expect("a folder");
        if let Some(toml) = toml {
            std::fs::write(folder.path().join(FILE), toml).expect("written");
        }
        let line = ["osiris", "deploy"].iter().chain(arguments);
        let cli = crate::args::Cli::try_parse_from(line).expect("the command line parses");
        let crate::args::Command::Deploy(args) = cli.command else { panic!("it is deploy") };
        let (component, manifest) = resolve(&args, folder.path())?;
        let component = component.strip_prefix(folder.path()).map_or(component.clone(), Path::to_owned);
        Ok((component, manifest))
    }

    #[test]
    fn each_key_arrives() {
        let toml = "name = \"a\"\ncomponent = \"b.wasm\"\nversion = \"1.2\"\nreplicas = 3\n[limits]\n\
                    memory_mib = 4\ntimeout_ms = 5\nconcurrency = 6\nqueue = 7\n[scale]\nmin = 0\nmax = 8\n\
                    backlog = 9\nidle_s = 10\n[place]\nlabels = [\"gpu\"]\nspread = \"zone\"\n";
        let (component, manifest) = deploy(&[], Some(toml)).expect("resolves");
        assert_eq!(component, Path::new("b.wasm"));
        assert_eq!(
            manifest,
            Manifest {
                name: "a".to_owned(),
                version: Some("1.2".to_owned()),
                replicas: Replicas::Count(3),
                limits: LimitKeys {
                    memory_mib: Some(4),
                    timeout_ms: Some(5),
                    concurrency: Some(6),
                    queue: Some(7)
                },
                scale: Some(ScaleKeys {
                    min: 0,
                    max: 8,
                    backlog: Some(9),
                    idle_s: Some(10),
                    concurrency: None
                }),
                place: PlaceKeys { labels: vec!["gpu".to_owned()], spread: Some("zone".to_owned()) },
            }
        );
        let (_, manifest) =
            deploy(&[], Some("name = \"a\"\ncomponent = \"b\"\nreplicas = \"all\"")).expect("resolves");
        assert_eq!((manifest.replicas, manifest.version), (Replicas::All, None));
    }

    #[test]
    fn flags_win_and_a_file_alone_reads_no_manifest() {
        let toml = "name = \"a\"\ncomponent = \"b.wasm\"\nreplicas = 3";
        let (component, manifest) =
            deploy(&["--name", "c", "--replicas", "all"], Some(toml)).expect("resolves");
        assert_eq!((component.as_path(), manifest.name.as_str()), (Path::new("b.wasm"), "c"));
        assert_eq!(manifest.replicas, Replicas::All);
        let (component, manifest) = deploy(&["d.wasm", "--name", "e"], Some(toml)).expect("resolves");
        assert_eq!((component.as_path(), manifest), (Path::new("d.wasm"), Manifest::named("e")));
    }

    #[test]
    fn what_is_wrong_is_a_usage_error_that_names_it() {
        for (arguments, toml, words) in [
            (&[][..], None, "neither a component"),
            (&["a.wasm"], None, "has no name"),
            (&[], Some("name = \"a\""), "which file"),
            (&[], Some("component = \"a\""), "has no name"),
            (&[], Some("name = \"a\"\nroutes = 1"), "unknown field `routes`"),
            (&[], Some("name = \"a\"\n[limits]\nmemory = 1"), "unknown field `memory`"),
            (&[], Some("name = \"a\"\n[scale]\nmax = 1\nmost = 1"), "unknown field `most`"),
            (&[], Some("name = \"a\"\n[scale]\nmin = 1"), "missing field `max`"),
            (&[], Some("name = \"a\"\ncomponent = \"a\"\n[scale]\nmin = 3\nmax = 2"), "scale.min"),
            (&[], Some("name = \"a\"\ncomponent = \"a\"\n[place]\nlabels = [\"a b\"]"), "is no label"),
            (&[], Some("name = \"a\"\nreplicas = 0"), "above zero"),
            (&[], Some("name = \"a\"\nreplicas = \"some\""), "no number of replicas"),
            (&[], Some("name = \"A_b\"\ncomponent = \"a\""), "cannot name a function"),
            (&[], Some("name = \"a\"\ncomponent = \"a\"\n[limits]\nmemory_mib = 5000"), "limits.memory_mib"),
        ] {
            let failure = deploy(arguments, toml).expect_err(words);
            assert!(failure.message.contains(words), "{}", failure.message);
            assert_eq!(failure.exit, Exit::Usage, "{words}");
        }
        let failure = deploy(&["--manifest", "none.toml"], None).expect_err("no such file");
        assert_eq!(failure.exit, Exit::NotFound);
    }
}
