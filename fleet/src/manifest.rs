//! A function's manifest: what travels beside its component, as a blob of canonical JSON.

pub use osiris_ledger::limits::PLACE_LABELS_MAX;
use osiris_ledger::limits::REPLICAS_MAX;
pub use osiris_ledger::op::is_place_label;
use serde::{Deserialize, Serialize};

/// How many members serve a function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Replicas {
    /// Every member.
    #[default]
    All,
    /// So many: those with the highest rendezvous hash.
    Count(u32),
}

impl Serialize for Replicas {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::All => serializer.serialize_str("all"),
            Self::Count(count) => serializer.serialize_u32(*count),
        }
    }
}

impl<'de> Deserialize<'de> for Replicas {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Replicas;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a number of nodes above zero, or \"all\"")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Replicas, E> {
                text.parse().map_err(E::custom)
            }
            fn visit_u64<E: serde::de::Error>(self, count: u64) -> Result<Replicas, E> {
                let count = u32::try_from(count).ok().filter(|count| *count > 0);
                count
                    .map(Replicas::Count)
                    .ok_or_else(|| E::custom("replicas are a number above zero, or \"all\""))
            }
            fn visit_i64<E: serde::de::Error>(self, count: i64) -> Result<Replicas, E> {
                self.visit_u64(u64::try_from(count).unwrap_or(0))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl std::str::FromStr for Replicas {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "all" => Ok(Self::All),
            _ => match text.parse() {
                Ok(0) | Err(_) => {
                    Err(format!("`{text}` is no number of replicas; give a number above zero, or `all`"))
                }
                Ok(count) => Ok(Self::Count(count)),
            },
        }
    }
}

impl std::fmt::Display for Replicas {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Count(count) => write!(f, "{count}"),
        }
    }
}

/// The limits of one function. Each has a default; a node may hold a function to less.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitKeys {
    /// MiB of linear memory a call may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u64>,
    /// Milliseconds a call may take, waiting not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Calls side by side on one node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// Calls that may wait on one node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<u32>,
}

/// How a function is scaled: between how many members serve it, and when more or fewer do. What an operator says
/// with `osiris scale` stands above `min` and `max`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScaleKeys {
    /// Replicas, at least; 0: none while nobody calls it. Default 1.
    #[serde(default = "one")]
    pub min: u32,
    /// Replicas, at most.
    pub max: u32,
    /// Calls that may wait for each replica before one more is added. Default [`SCALE_BACKLOG`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backlog: Option<u32>,
    /// Seconds for which there must be too many replicas before one goes. Default [`SCALE_IDLE_S`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_s: Option<u64>,
    /// Calls that a replica runs side by side at first: twice as many where some wait and the machine has room, up to
    /// `limits.concurrency`. Default: that many from the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
}

/// Calls that may wait for each replica of a scaled function, where its manifest does not say.
pub const SCALE_BACKLOG: u32 = 4;
/// Seconds for which there must be too many replicas before one goes, where the manifest does not say.
pub const SCALE_IDLE_S: u64 = 60;

fn one() -> u32 {
    1
}

/// Which members may serve a function.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlaceKeys {
    /// Labels that a member must bear, all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// The key of a label by whose values replicas are spread.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spread: Option<String>,
}

impl PlaceKeys {
    /// Whether any member may serve it, whatever it bears.
    #[must_use]
    pub fn is_anywhere(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a member that bears these labels, ascending, may serve it.
    #[must_use]
    pub fn fits(&self, labels: &[String]) -> bool {
        self.labels.iter().all(|label| labels.binary_search(label).is_ok())
    }

    /// The value by which a member with these labels is told apart, where replicas are spread.
    #[must_use]
    pub fn zone<'a>(&self, labels: &'a [String]) -> Option<&'a str> {
        let key = self.spread.as_deref()?;
        labels.iter().find_map(|label| label.split_once('=').filter(|(name, _)| *name == key)).map(|(_, v)| v)
    }
}

/// The manifest of a revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The function's name.
    pub name: String,
    /// The author's version, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// How many members serve it.
    #[serde(default)]
    pub replicas: Replicas,
    /// Its limits.
    #[serde(default)]
    pub limits: LimitKeys,
    /// How it is scaled; none: it is not, and `replicas` says how many members serve it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<ScaleKeys>,
    /// Which members may serve it.
    #[serde(default, skip_serializing_if = "PlaceKeys::is_anywhere")]
    pub place: PlaceKeys,
}

/// A manifest that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// Not the JSON of a manifest.
    #[error("the manifest is not valid: {0}")]
    Json(#[from] serde_json::Error),
    /// The name breaks the rule.
    #[error(transparent)]
    Name(#[from] osiris_protocol::name::NameError),
    /// A limit is out of range.
    #[error("the manifest's `{key}` is {value}; it must lie between {min} and {max}")]
    Limit {
        /// The key.
        key: &'static str,
        /// What it says.
        value: u64,
        /// The smallest allowed.
        min: u64,
        /// The largest allowed.
        max: u64,
    },
    /// A label that none can be, or too many of them.
    #[error("the manifest's `{key}` {why}")]
    Label {
        /// The key.
        key: &'static str,
        /// What is wrong, to follow the key.
        why: String,
    },
    /// More than [`osiris_ledger::limits::MANIFEST_BYTES_MAX`].
    #[error("the manifest has {0} bytes; at most 65536 are allowed")]
    TooLarge(u64),
}

impl Manifest {
    /// A manifest with defaults.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            version: None,
            replicas: Replicas::All,
            limits: LimitKeys::default(),
            scale: None,
            place: PlaceKeys::default(),
        }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`ManifestError`] names the first field that is out of range.
    pub fn validate(&self) -> Result<(), ManifestError> {
        osiris_protocol::name::check_function_name(&self.name)?;
        let check = |key, value: Option<u64>, min, max| match value {
            Some(value) if value < min || value > max => Err(ManifestError::Limit { key, value, min, max }),
            _ => Ok(()),
        };
        check("limits.memory_mib", self.limits.memory_mib, 1, 4096)?;
        check("limits.timeout_ms", self.limits.timeout_ms, 1, 600_000)?;
        check("limits.concurrency", self.limits.concurrency.map(u64::from), 1, 10_000)?;
        check("limits.queue", self.limits.queue.map(u64::from), 0, 100_000)?;
        if let Some(scale) = &self.scale {
            check("scale.max", Some(scale.max.into()), 1, REPLICAS_MAX.into())?;
            check("scale.min", Some(scale.min.into()), 0, scale.max.into())?;
            check("scale.backlog", scale.backlog.map(u64::from), 0, 100_000)?;
            check("scale.idle_s", scale.idle_s, 1, 86_400)?;
            let most = self.limits.concurrency.unwrap_or(u32::MAX);
            check("scale.concurrency", scale.concurrency.map(u64::from), 1, most.into())?;
        }
        self.validate_place()
    }

    fn validate_place(&self) -> Result<(), ManifestError> {
        let PlaceKeys { labels, spread } = &self.place;
        let wrong = |key, why: String| Err(ManifestError::Label { key, why });
        if labels.len() > PLACE_LABELS_MAX {
            return wrong(
                "place.labels",
                format!("names {} labels; at most {PLACE_LABELS_MAX}", labels.len()),
            );
        }
        if let Some(label) = labels.iter().find(|label| !is_place_label(label)) {
            return wrong("place.labels", format!("has `{label}`, which is no label: KEY or KEY=VALUE"));
        }
        match spread {
            Some(key) if key.contains('=') || !is_place_label(key) => {
                wrong("place.spread", format!("is `{key}`, which is no label's key"))
            }
            _ => Ok(()),
        }
    }

    /// The bytes that travel: JSON with fields in a fixed order.
    ///
    /// # Errors
    /// As [`Manifest::validate`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, ManifestError> {
        self.validate()?;
        let bytes = serde_json::to_vec(self)?;
        match bytes.len() as u64 {
            len if len > osiris_ledger::limits::MANIFEST_BYTES_MAX => Err(ManifestError::TooLarge(len)),
            _ => Ok(bytes),
        }
    }

    /// Reads the bytes of a manifest, from a peer or from disk.
    ///
    /// # Errors
    /// [`ManifestError`] where they are not a valid manifest.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() as u64 > osiris_ledger::limits::MANIFEST_BYTES_MAX {
            return Err(ManifestError::TooLarge(bytes.len() as u64));
        }
        let manifest: Self = serde_json::from_slice(bytes)?;
        manifest.validate()?;
        Ok(manifest)
    }
}
