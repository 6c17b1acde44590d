//! What functions and fleets may be called.

use crate::limits::{FLEET_NAME_BYTES_MAX, FUNCTION_NAME_BYTES_MAX};

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// The name of a function breaks the rule.
    #[error(
        "{name:?} cannot name a function: use 1 to 63 characters of a-z, 0-9 and '-', starting with \
         a letter and not ending with '-'"
    )]
    Function {
        /// The name, cut to 80 characters.
        name: String,
    },
    /// The name of a fleet breaks the rule.
    #[error(
        "{name:?} cannot name a fleet: use 1 to 64 bytes of text without control characters, not \
         starting or ending with a space"
    )]
    Fleet {
        /// The name, cut to 80 characters.
        name: String,
    },
}

fn shortened(name: &str) -> String {
    name.chars().take(80).collect()
}

/// Checks that `name` can name a function: it is used as a DNS label, a URL segment and a file name.
///
/// # Errors
/// [`NameError::Function`] says the rule.
pub fn check_function_name(name: &str) -> Result<(), NameError> {
    let bytes = name.as_bytes();
    let sound = bytes.len() <= FUNCTION_NAME_BYTES_MAX
        && bytes.first().is_some_and(u8::is_ascii_lowercase)
        && bytes.last().is_some_and(|last| *last != b'-')
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-');
    if sound { Ok(()) } else { Err(NameError::Function { name: shortened(name) }) }
}

/// Checks that `name` can name a fleet: it is shown to people and never used to find anything.
///
/// # Errors
/// [`NameError::Fleet`] says the rule.
pub fn check_fleet_name(name: &str) -> Result<(), NameError> {
    let sound = !name.is_empty()
        && name.len() <= FLEET_NAME_BYTES_MAX
        && name.trim() == name
        && !name.chars().any(char::is_control);
    if sound { Ok(()) } else { Err(NameError::Fleet { name: shortened(name) }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn function_names_follow_the_rule() {
        let longest = "a".repeat(63);
        for good in ["a", "hello", "hello-2", "a--b", longest.as_str()] {
            assert_eq!(check_function_name(good), Ok(()), "{good}");
        }
        let too_long = "a".repeat(64);
        for bad in ["", "-a", "a-", "1a", "A", "a_b", "a.b", "ä", "a/b", "..", "a b", "a\0", &too_long] {
            let error = check_function_name(bad).expect_err(bad);
            assert!(error.to_string().contains("starting with a letter"));
        }
    }

    #[test]
    fn fleet_names_follow_the_rule() {
        let longest = "é".repeat(32);
        for good in ["home", "Büro Süd 7", longest.as_str()] {
            assert_eq!(check_fleet_name(good), Ok(()), "{good}");
        }
        let too_long = "é".repeat(33);
        for bad in ["", " home", "home ", "a\nb", "a\u{1b}[2J", &too_long] {
            assert!(check_fleet_name(bad).is_err(), "{bad:?}");
        }
    }
}
