//! The bytes of a user's key file: all of it that needs no passphrase. The cipher is the command's affair.
//!
//! ```text
//! "OSIRISU1" | memory KiB u32 LE | passes u32 LE | lanes u32 LE | public key 32 | salt 16 | nonce 24
//! | secret key 32, encrypted | tag 16 | check 8
//! ```
//!
//! The cipher is XChaCha20-Poly1305 under a key that Argon2id (RFC 9106, version 0x13) makes of the passphrase; all
//! that comes before is authenticated with it. The check is the start of the BLAKE3 hash of all before it: it tells a
//! damaged file from a wrong passphrase, and proves nothing else.

const MAGIC: &[u8; 8] = b"OSIRISU1";
const COST_AT: usize = 8;
const PUBLIC_AT: usize = COST_AT + 3 * 4;
const SALT_AT: usize = PUBLIC_AT + 32;
const NONCE_AT: usize = SALT_AT + 16;
/// Bytes before the ciphertext.
const HEADER_BYTES: usize = NONCE_AT + NONCE_BYTES;
const CHECK_BYTES: usize = 8;
/// Bytes of the nonce.
pub const NONCE_BYTES: usize = 24;
/// Bytes of a key file.
pub const FILE_BYTES: usize = HEADER_BYTES + 32 + 16 + CHECK_BYTES;
/// The most that a file may ask for, KiB, passes and lanes: 256 MiB, and some seconds on a small board.
pub const COST_MAX: [u32; 3] = [256 * 1024, 16, 4];

/// Why bytes are no key file that can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// It is no key file, or its bytes changed.
    #[error("it is damaged or no user's key: {0}")]
    Damaged(&'static str),
    /// Made by a later program.
    #[error("its version is not known to this program; update it")]
    Version,
    /// It asks for more memory or time than any sound one.
    #[error("it asks for {memory_kib} KiB, {passes} passes and {lanes} lanes, more than is allowed")]
    TooCostly {
        /// Memory, KiB.
        memory_kib: u32,
        /// Passes over it.
        passes: u32,
        /// Lanes.
        lanes: u32,
    },
}

/// What comes before the ciphertext, and is authenticated with it.
#[derive(Clone, Copy, Debug)]
pub struct Header<'a>(&'a [u8]);

/// The header of a new file. `random` is fresh: the salt and the nonce.
#[must_use]
pub fn header(cost: [u32; 3], public: &[u8; 32], random: &[u8; 16 + NONCE_BYTES]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    cost.iter().for_each(|cost| bytes.extend(cost.to_le_bytes()));
    bytes.extend(public);
    bytes.extend(random);
    bytes
}

impl<'a> Header<'a> {
    /// A header, as [`header`] makes it.
    ///
    /// # Panics
    /// If it has another length.
    #[must_use]
    pub fn of(bytes: &'a [u8]) -> Self {
        assert_eq!(bytes.len(), HEADER_BYTES, "a whole header");
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(self) -> &'a [u8] {
        self.0
    }

    /// What a passphrase costs to try: KiB, passes, lanes.
    #[must_use]
    pub fn cost(self) -> [u32; 3] {
        let at = |n: usize| {
            let place = COST_AT + 4 * n;
            u32::from_le_bytes([self.0[place], self.0[place + 1], self.0[place + 2], self.0[place + 3]])
        };
        [at(0), at(1), at(2)]
    }

    /// Public half of the key.
    #[must_use]
    pub fn public(self) -> &'a [u8] {
        &self.0[PUBLIC_AT..SALT_AT]
    }

    /// The salt.
    #[must_use]
    pub fn salt(self) -> &'a [u8] {
        &self.0[SALT_AT..NONCE_AT]
    }

    /// The nonce.
    #[must_use]
    pub fn nonce(self) -> &'a [u8] {
        &self.0[NONCE_AT..]
    }
}

/// A key file's bytes, checked as far as that goes without the passphrase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyBytes(Vec<u8>);

impl KeyBytes {
    /// A new file of a header and what was encrypted under it.
    #[must_use]
    pub fn close(header: Vec<u8>, sealed: &[u8]) -> Self {
        let mut bytes = header;
        bytes.extend(sealed);
        let check = blake3::hash(&bytes);
        bytes.extend(&check.as_bytes()[..CHECK_BYTES]);
        Self(bytes)
    }

    /// Checks all that needs no passphrase.
    ///
    /// # Errors
    /// [`LayoutError`], the first thing that does not hold.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, LayoutError> {
        match bytes.get(..8) {
            Some(magic) if magic == MAGIC => {}
            Some(magic) if magic.starts_with(&MAGIC[..7]) => return Err(LayoutError::Version),
            _ => return Err(LayoutError::Damaged("it does not begin as one")),
        }
        if bytes.len() != FILE_BYTES {
            return Err(LayoutError::Damaged("it has another length"));
        }
        let [memory_kib, passes, lanes] = Header(&bytes[..HEADER_BYTES]).cost();
        if [memory_kib, passes, lanes].iter().zip(COST_MAX).any(|(asked, max)| *asked > max) {
            return Err(LayoutError::TooCostly { memory_kib, passes, lanes });
        }
        let (body, check) = bytes.split_at(FILE_BYTES - CHECK_BYTES);
        if blake3::hash(body).as_bytes()[..CHECK_BYTES] != *check {
            return Err(LayoutError::Damaged("its check does not fit"));
        }
        Ok(Self(bytes))
    }

    /// All of them.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// What comes before the ciphertext.
    #[must_use]
    pub fn header(&self) -> Header<'_> {
        Header(&self.0[..HEADER_BYTES])
    }

    /// The ciphertext with its tag.
    #[must_use]
    pub fn sealed(&self) -> &[u8] {
        &self.0[HEADER_BYTES..self.0.len() - CHECK_BYTES]
    }
}
