//! Where the node listens for people and programs: a TCP address and a Unix socket.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::{TcpListener, TcpSocket, UnixListener, UnixStream};

use super::token::Token;
use crate::driver::limits::LISTEN_BACKLOG;

/// Why a listener cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// Anyone on the network could call functions.
    #[error(
        "The HTTP interface will not listen on {addr} without a token: anyone who can reach this device could \
         call its functions."
    )]
    Unprotected {
        /// The address.
        addr: SocketAddr,
    },
    /// The address cannot be listened on.
    #[error("The HTTP interface cannot listen on {addr}: {source}.")]
    Tcp {
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A node answers on the socket.
    #[error("Another node answers on {path}.")]
    Taken {
        /// The socket.
        path: PathBuf,
    },
    /// Something that is not a socket is in its place.
    #[error("{path} is not a socket and is left alone.")]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The socket cannot be made.
    #[error("The socket {path} cannot be made: {source}.")]
    Unix {
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl ListenError {
    /// What to do next.
    #[must_use]
    pub fn next(&self) -> &'static str {
        match self {
            Self::Unprotected { .. } => {
                "Listen on 127.0.0.1, or name a file with a token by `--token-file FILE`."
            }
            Self::Tcp { source, .. } if source.kind() == io::ErrorKind::AddrInUse => {
                "Something else listens there: stop it, or choose another port with `--http PORT`; 0 takes any free one."
            }
            Self::Tcp { .. } => "Choose another address or port with `--http ADDR`.",
            Self::Taken { .. } => {
                "Stop it with `osiris down`, or give this one its own folder with `--data DIR`."
            }
            Self::NotASocket { .. } => "Move it away, or choose another folder with `--data DIR`.",
            Self::Unix { .. } => {
                "Check the folder's permissions and free space, or choose one with a shorter path by `--data DIR`: a \
                 socket's path has at most 107 characters."
            }
        }
    }
}

/// Whether the HTTP interface may listen there.
///
/// # Errors
/// [`ListenError::Unprotected`]: an address that other devices can reach needs a token.
pub fn validate_listen(addr: SocketAddr, token: Option<&Token>) -> Result<(), ListenError> {
    match token {
        None if !addr.ip().to_canonical().is_loopback() => Err(ListenError::Unprotected { addr }),
        _ => Ok(()),
    }
}

pub(super) fn tcp(addr: SocketAddr) -> Result<TcpListener, ListenError> {
    let listen = || {
        let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(addr)?;
        socket.listen(LISTEN_BACKLOG)
    };
    listen().map_err(|source| ListenError::Tcp { addr, source })
}

/// A bound Unix socket. Its file is removed with it, unless another took its place.
#[derive(Debug)]
pub(super) struct UnixSocket {
    pub(super) listener: UnixListener,
    path: PathBuf,
    inode: (u64, u64),
}

impl UnixSocket {
    /// Binds, with mode 0600 from the first moment at which the path exists.
    pub(super) async fn bind(path: &Path) -> Result<Self, ListenError> {
        clear_stale(path).await?;
        let made = bind_hidden(path).and_then(|listener| Ok((listener, inode(path)?)));
        let (listener, inode) = made.map_err(|source| ListenError::Unix { path: path.to_owned(), source })?;
        Ok(Self { listener, path: path.to_owned(), inode })
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        if inode(&self.path).is_ok_and(|inode| inode == self.inode) {
            // A file that stays is taken for stale at the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|meta| (meta.dev(), meta.ino()))
}

/// Removes a socket on which nobody answers.
async fn clear_stale(path: &Path) -> Result<(), ListenError> {
    let failed = |source| ListenError::Unix { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(meta) if !meta.file_type().is_socket() => {
            return Err(ListenError::NotASocket { path: path.to_owned() });
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path).await {
        Ok(_) => Err(ListenError::Taken { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed)
        }
        Err(error) => Err(failed(error)),
    }
}

/// Binds inside a folder that only this user may enter, and moves the socket out when its mode is set.
fn bind_hidden(path: &Path) -> io::Result<UnixListener> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let hidden = parent.join(format!(".{}", std::process::id()));
    // Left by a process of the same number that was killed in between.
    let _ = fs::remove_dir_all(&hidden);
    DirBuilder::new().mode(0o700).create(&hidden)?;
    let inside = hidden.join("s");
    let bound = UnixListener::bind(&inside).and_then(|listener| {
        fs::set_permissions(&inside, Permissions::from_mode(0o600))?;
        fs::rename(&inside, path)?;
        Ok(listener)
    });
    let _ = fs::remove_dir_all(&hidden);
    bound
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_others_reach_needs_a_token() {
        let token = Token::new("0123456789abcdef").expect("a token");
        for local in ["127.0.0.1:80", "[::1]:80", "127.9.9.9:0", "[::ffff:127.0.0.1]:1"] {
            assert!(validate_listen(local.parse().expect(local), None).is_ok(), "{local}");
        }
        for open in ["0.0.0.0:80", "[::]:80", "192.168.1.2:80", "[fe80::1]:80"] {
            let open = open.parse().expect(open);
            let refused = validate_listen(open, None).expect_err("no token");
            assert!(refused.next().contains("--token-file"), "{refused}");
            assert!(validate_listen(open, Some(&token)).is_ok(), "{open}");
        }
    }

    #[tokio::test]
    async fn the_socket_is_private_and_replaces_only_a_dead_one() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("osiris.sock");
        let first = UnixSocket::bind(&path).await.expect("bound");
        assert_eq!(fs::metadata(&path).expect("there").mode() & 0o777, 0o600);
        assert!(matches!(UnixSocket::bind(&path).await, Err(ListenError::Taken { .. })));
        drop(first);
        assert!(!path.exists());
        drop(std::os::unix::net::UnixListener::bind(&path).expect("a socket that nobody serves"));
        let second = UnixSocket::bind(&path).await.expect("the stale one is replaced");
        assert_eq!(fs::read_dir(dir.path()).expect("the folder").count(), 1, "nothing is left behind");
        fs::remove_file(&path).expect("removed");
        fs::write(&path, "mine").expect("a file");
        drop(second);
        assert!(matches!(UnixSocket::bind(&path).await, Err(ListenError::NotASocket { .. })));
        assert_eq!(fs::read_to_string(&path).expect("kept"), "mine");
    }
}
