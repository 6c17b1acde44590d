//! The bearer token that protects the HTTP interface.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use http::HeaderValue;
use osiris_runtime::open_regular;
use subtle::ConstantTimeEq;

use crate::api::codes;
use crate::driver::limits::{TOKEN_CHARS_MAX, TOKEN_CHARS_MIN};

/// A token. Only its hash is kept, so that comparing takes the same time whatever was sent.
#[derive(Clone)]
pub struct Token(blake3::Hash);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(redacted)")
    }
}

/// Why a token cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The file cannot be read.
    #[error("The token file {path} cannot be read: {source}.")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others may read or write the file.
    #[error("The token file {path} has the mode {mode:o}: others than its owner may use it.")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The text breaks the rule.
    #[error(
        "The token must be one line of {TOKEN_CHARS_MIN} to {TOKEN_CHARS_MAX} printable ASCII characters without \
         spaces."
    )]
    Rule,
}

impl TokenError {
    /// One of [`codes`]: a missing file is not found, as everywhere.
    #[must_use]
    pub fn code(&self) -> (&'static str, u16) {
        match self {
            Self::File { source, .. } if source.kind() == io::ErrorKind::NotFound => codes::NOT_FOUND,
            _ => codes::BAD_REQUEST,
        }
    }

    /// What to do next.
    #[must_use]
    pub fn next(&self) -> String {
        match self {
            Self::File { .. } => "Check the path and its permissions.".to_owned(),
            Self::Exposed { path, .. } => format!("Run `chmod 600 {}`.", path.display()),
            Self::Rule => "Make one with `openssl rand -hex 32`.".to_owned(),
        }
    }
}

impl Token {
    /// The token of this text; a line break at its end does no harm.
    ///
    /// # Errors
    /// [`TokenError::Rule`].
    pub fn new(text: &str) -> Result<Self, TokenError> {
        let text = text.strip_suffix('\n').unwrap_or(text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        let sound = (TOKEN_CHARS_MIN..=TOKEN_CHARS_MAX).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_graphic());
        if sound { Ok(Self(blake3::hash(text.as_bytes()))) } else { Err(TokenError::Rule) }
    }

    /// Reads a token file. It blocks.
    ///
    /// # Errors
    /// [`TokenError`]: also where others than the owner may use the file.
    pub fn read(path: &Path) -> Result<Self, TokenError> {
        let unreadable = |source| TokenError::File { path: path.to_owned(), source };
        // Who keeps it elsewhere may link to it; a pipe would have the node wait for its other end.
        let whole = std::fs::canonicalize(path).map_err(unreadable)?;
        let file = open_regular(File::options().read(true), &whole).map_err(unreadable)?;
        let mode = file.metadata().map_err(unreadable)?.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(TokenError::Exposed { path: path.to_owned(), mode });
        }
        let mut text = String::new();
        file.take(TOKEN_CHARS_MAX as u64 + 3).read_to_string(&mut text).map_err(unreadable)?;
        Self::new(&text)
    }

    /// Whether an `Authorization` header bears it.
    pub(super) fn is_borne_by(&self, authorization: Option<&HeaderValue>) -> bool {
        let Some((scheme, rest)) = authorization.and_then(|value| value.as_bytes().split_at_checked(7))
        else {
            return false;
        };
        let given = blake3::hash(rest.trim_ascii());
        scheme.eq_ignore_ascii_case(b"bearer ") & bool::from(given.as_bytes().ct_eq(self.0.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn only_the_token_is_the_token() {
        let token = Token::new("0123456789abcdef\n").expect("16 characters");
        let bears = |text| token.is_borne_by(Some(&HeaderValue::from_static(text)));
        assert!(bears("Bearer 0123456789abcdef"));
        assert!(bears("bearer  0123456789abcdef "));
        for wrong in ["0123456789abcdef", "Basic 0123456789abcdef", "Bearer 0123456789abcdeg", "Bearer ", ""]
        {
            assert!(!bears(wrong), "{wrong}");
        }
        assert!(!token.is_borne_by(None));
        for bad in ["short", "", "0123456789 abcdef", "0123456789abcdef\n0123456789abcdef"] {
            assert!(Token::new(bad).is_err(), "{bad}");
        }
        assert_eq!(format!("{token:?}"), "Token(redacted)");
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("token");
        std::fs::write(&path, "0123456789abcdef\n").expect("written");
        for (mode, sound) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("set");
            assert_eq!(Token::read(&path).is_ok(), sound, "{mode:o}");
        }
        assert!(matches!(Token::read(&dir.path().join("none")), Err(TokenError::File { .. })));
    }
}
