//! Operations about how many replicas functions have, and where they may be.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error as _, SeqAccess, Visitor},
};

use super::{array_struct, is_ascending, is_function_name, usable_key};
use crate::{id::Author, limits};

array_struct! {
    /// Least and most replicas.
    pub struct Range {
        /// At least so many; 0: it may have none while nobody calls it.
        min: u32,
        /// At most so many; above 0.
        max: u32,
    }
}

array_struct! {
    /// See [`crate::Payload::Bounded`].
    pub struct Bounded {
        /// The function; none: all functions that are scaled, together.
        name: Option<String>,
        /// Its bounds; none: what its manifest says. Of all together only the most may be given.
        range: Option<Range>,
    }
}

/// See [`crate::Payload::Scaled`]. In CBOR an array of two, and of three where members are passed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scaled {
    /// The function.
    pub name: String,
    /// Replicas, whatever the bounds say: who reads it keeps to them.
    pub replicas: u32,
    /// Members that come behind all others for it until it is scaled anew, ascending: their machines were busy.
    pub past: Vec<Author>,
}

impl Serialize for Scaled {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { name, replicas, past } = self;
        match past.as_slice() {
            [] => (name, replicas).serialize(serializer),
            past => (name, replicas, past).serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Scaled {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Scaled;

            fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
                to.write_str("a name, replicas, and the members that are passed over, if there are any")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut fields: A) -> Result<Scaled, A::Error> {
                let name = fields.next_element()?.ok_or_else(|| A::Error::invalid_length(0, &self))?;
                let replicas = fields.next_element()?.ok_or_else(|| A::Error::invalid_length(1, &self))?;
                Ok(Scaled { name, replicas, past: fields.next_element()?.unwrap_or_default() })
            }
        }
        deserializer.deserialize_seq(Fields)
    }
}

array_struct! {
    /// See [`crate::Payload::Labelled`].
    pub struct Labelled {
        /// The device.
        device: Author,
        /// All labels that it bears from now on, ascending.
        labels: Vec<String>,
    }
}

array_struct! {
    /// See [`crate::Payload::Draining`].
    pub struct Draining {
        /// Whether others are to take over what the author's device serves, and none of it is to be placed there.
        draining: bool,
    }
}

impl Range {
    fn check_fields(&self) -> Result<(), &'static str> {
        if self.max == 0 || self.max > limits::REPLICAS_MAX {
            return Err("the most replicas are out of range");
        }
        if self.min <= self.max { Ok(()) } else { Err("the least replicas are more than the most") }
    }
}

impl Bounded {
    pub(super) fn check_fields(&self) -> Result<(), &'static str> {
        match (&self.name, &self.range) {
            (Some(name), _) if !is_function_name(name) => Err("the function's name is not allowed"),
            (None, Some(Range { min: 1.., .. })) => Err("all functions together have no least replicas"),
            (_, Some(range)) => range.check_fields(),
            (_, None) => Ok(()),
        }
    }
}

impl Scaled {
    pub(super) fn check_fields(&self) -> Result<(), &'static str> {
        if !is_function_name(&self.name) {
            return Err("the function's name is not allowed");
        }
        if self.replicas > limits::REPLICAS_MAX {
            return Err("the replicas are out of range");
        }
        if self.past.len() > limits::PASSED_OVER_MAX {
            return Err("too many members are passed over");
        }
        if is_ascending(&self.past) { Ok(()) } else { Err("who is passed over is not in ascending order") }
    }
}

impl Labelled {
    pub(super) fn check_fields(&self) -> Result<(), &'static str> {
        if usable_key(&self.device).is_none() {
            return Err("the device's key is weak or no key");
        }
        if self.labels.len() > limits::PLACE_LABELS_MAX {
            return Err("too many labels are named");
        }
        if !self.labels.iter().all(|label| is_place_label(label)) {
            return Err("a label is not allowed");
        }
        if is_ascending(&self.labels) { Ok(()) } else { Err("the labels are not in ascending order") }
    }
}

/// A label that a device bears and a function may ask for: `KEY` or `KEY=VALUE`, both of `a-z A-Z 0-9 . _ -`,
/// together at most [`limits::PLACE_LABEL_BYTES_MAX`] bytes.
#[must_use]
pub fn is_place_label(text: &str) -> bool {
    let is_word = |word: &str| {
        !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    };
    text.len() <= limits::PLACE_LABEL_BYTES_MAX
        && text.split_once('=').map_or_else(|| is_word(text), |(key, value)| is_word(key) && is_word(value))
}
