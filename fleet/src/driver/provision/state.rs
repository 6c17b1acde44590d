//! Terraform's state of one machine, served to the one run that works on it.
//!
//! Terraform's HTTP backend: `GET`, `POST`, `LOCK` and `UNLOCK` on one address. The listener is on the loopback
//! interface, has a password of its own, and ends with the run. What it keeps is a file of the machine's folder, written
//! whole and renamed. Correctness never rests on the lock: see `docs/provisioning.md`.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use subtle::ConstantTimeEq as _;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use super::share::Sharer;
use crate::{
    disk::replace,
    driver::{
        disk::FolderDisk,
        limits::{HEAD_TIMEOUT, STATE_BYTES_MAX},
    },
};

/// The file in a machine's folder.
pub(super) const FILE: &str = "terraform.tfstate";
/// Who Terraform says it is.
const USER: &str = "osiris";
const PATH: &str = "/state";
/// Largest description of a lock, bytes.
const LOCK_BYTES_MAX: usize = 16 << 10;

/// A listener with the state of one machine. It ends when it is dropped.
#[derive(Debug)]
pub(super) struct StateServer {
    address: SocketAddr,
    password: String,
    _task: AbortOnDropHandle<()>,
}

struct Shared {
    folder: PathBuf,
    /// Whom each state is handed to that is kept.
    sharer: Option<Arc<Sharer>>,
    /// `Basic …`, as the header says it.
    expected: String,
    /// What the holder of the lock said of it.
    lock: Mutex<Option<Bytes>>,
}

impl StateServer {
    /// Listens on a free port of the loopback interface. `secret` makes the password.
    pub(super) async fn start(
        folder: &Path,
        secret: [u8; 32],
        sharer: Option<Arc<Sharer>>,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let address = listener.local_addr()?;
        let password = blake3::hash(&secret).to_hex().to_string();
        let expected = format!("Basic {}", base64(format!("{USER}:{password}").as_bytes()));
        let shared = Arc::new(Shared { folder: folder.to_owned(), sharer, expected, lock: Mutex::default() });
        let task = AbortOnDropHandle::new(tokio::spawn(accept(listener, shared)));
        Ok(Self { address, password, _task: task })
    }

    /// What tells Terraform of it. By the environment, so that no file holds the password.
    pub(super) fn environment(&self) -> Vec<(&'static str, String)> {
        let address = format!("http://{}{PATH}", self.address);
        vec![
            ("TF_HTTP_ADDRESS", address.clone()),
            ("TF_HTTP_LOCK_ADDRESS", address.clone()),
            ("TF_HTTP_UNLOCK_ADDRESS", address),
            ("TF_HTTP_USERNAME", USER.to_owned()),
            ("TF_HTTP_PASSWORD", self.password.clone()),
            ("TF_HTTP_RETRY_MAX", "2".to_owned()),
        ]
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        while connections.try_join_next().is_some() {}
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let shared = Arc::clone(&shared);
                async move { Ok::<_, Infallible>(shared.answer(request).await) }
            });
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
            let _ = http.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

type Answer = Response<Full<Bytes>>;

fn plain(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer
}

impl Shared {
    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let said = request.headers().get(header::AUTHORIZATION).map(|value| value.as_bytes());
        if !said.is_some_and(|said| bool::from(said.ct_eq(self.expected.as_bytes()))) {
            let mut answer = plain(StatusCode::UNAUTHORIZED, "");
            let basic = http::HeaderValue::from_static("Basic realm=\"osiris\"");
            answer.headers_mut().insert(header::WWW_AUTHENTICATE, basic);
            return answer;
        }
        if request.uri().path() != PATH {
            return plain(StatusCode::NOT_FOUND, "");
        }
        let (head, body) = request.into_parts();
        match head.method.as_str() {
            "LOCK" => match read(body, LOCK_BYTES_MAX).await {
                Some(info) => self.lock(info),
                None => plain(StatusCode::PAYLOAD_TOO_LARGE, ""),
            },
            "UNLOCK" => {
                *self.held() = None;
                plain(StatusCode::OK, "")
            }
            _ if head.method == Method::GET => match std::fs::read(self.folder.join(FILE)) {
                Ok(state) => plain(StatusCode::OK, state),
                Err(error) if error.kind() == io::ErrorKind::NotFound => plain(StatusCode::NOT_FOUND, ""),
                Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
            },
            _ if head.method == Method::POST => self.keep(head.uri.query(), body).await,
            _ => plain(StatusCode::METHOD_NOT_ALLOWED, ""),
        }
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Option<Bytes>> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self, info: Bytes) -> Answer {
        let mut held = self.held();
        match &*held {
            Some(other) => plain(StatusCode::LOCKED, other.clone()),
            None => {
                *held = Some(info);
                plain(StatusCode::OK, "")
            }
        }
    }

    /// Whoever writes names the lock that is held.
    async fn keep(&self, query: Option<&str>, body: Incoming) -> Answer {
        let named = query.and_then(|query| query.strip_prefix("ID=")).unwrap_or_default();
        let id = self.held().as_ref().and_then(|info| lock_id(info));
        if id.is_some_and(|id| id != named) {
            return plain(StatusCode::CONFLICT, "");
        }
        let Some(state) = read(body, STATE_BYTES_MAX).await else {
            return plain(StatusCode::PAYLOAD_TOO_LARGE, "");
        };
        match replace(&mut FolderDisk::new(&self.folder), FILE, &state) {
            Ok(()) => {
                if let Some(sharer) = &self.sharer {
                    sharer.share(&state).await;
                }
                plain(StatusCode::OK, "")
            }
            Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        }
    }
}

/// The id in a lock's description.
fn lock_id(info: &[u8]) -> Option<String> {
    let info: serde_json::Value = serde_json::from_slice(info).ok()?;
    info.get("ID")?.as_str().map(str::to_owned)
}

async fn read(body: Incoming, max: usize) -> Option<Bytes> {
    Some(Limited::new(body, max).collect().await.ok()?.to_bytes())
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let [a, b, c] = [0, 1, 2].map(|at| u32::from(chunk.get(at).copied().unwrap_or_default()));
        let word = a << 16 | b << 8 | c;
        for place in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * place)) as usize & 63];
            text.push(if place > chunk.len() { '=' } else { char::from(digit) });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
    };

    use super::*;

    async fn ask(server: &StateServer, method: &str, path: &str, password: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(server.address).await.expect("it listens");
        let password = base64(format!("{USER}:{password}").as_bytes());
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nauthorization: Basic {password}\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.expect("written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        answer.strip_prefix("HTTP/1.1 ").expect("HTTP").to_owned()
    }

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (len, coded) in [(0, ""), (1, "Zg=="), (2, "Zm8="), (3, "Zm9v"), (4, "Zm9vYg=="), (6, "Zm9vYmFy")]
        {
            assert_eq!(base64(&b"foobar"[..len]), coded);
        }
    }

    #[tokio::test]
    async fn a_state_is_kept_under_its_lock_for_whoever_has_the_password_and_outlives_the_listener() {
        let folder = tempfile::tempdir().expect("a folder");
        let server = StateServer::start(folder.path(), [1; 32], None).await.expect("it listens");
        let password = server.password.clone();
        assert_eq!(server.environment()[4], ("TF_HTTP_PASSWORD", password.clone()));
        let says =
            async |method: &str, path: &str, body: &str| ask(&server, method, path, &password, body).await;
        assert!(says("GET", "/state", "").await.starts_with("404"), "there is none yet");
        assert!(ask(&server, "GET", "/state", "another", "").await.starts_with("401"));
        assert!(says("GET", "/etc/passwd", "").await.starts_with("404"));
        assert!(says("LOCK", "/state", r#"{"ID":"a"}"#).await.starts_with("200"));
        let refused = says("LOCK", "/state", r#"{"ID":"b"}"#).await;
        assert!(refused.starts_with("423") && refused.ends_with(r#"{"ID":"a"}"#), "{refused}");
        assert!(says("POST", "/state?ID=b", "theirs").await.starts_with("409"));
        assert!(says("POST", "/state?ID=a", "mine").await.starts_with("200"));
        assert!(says("GET", "/state", "").await.ends_with("\r\n\r\nmine"));
        assert!(says("UNLOCK", "/state", r#"{"ID":"a"}"#).await.starts_with("200"));
        assert!(says("LOCK", "/state", r#"{"ID":"b"}"#).await.starts_with("200"));
        assert!(says("DELETE", "/state", "").await.starts_with("405"));
        let address = server.address;
        drop(server);
        // The next run has another password, and the same state.
        let server = StateServer::start(folder.path(), [2; 32], None).await.expect("it listens");
        assert!(server.password != password && server.address != address);
        assert!(ask(&server, "GET", "/state", &password, "").await.starts_with("401"));
        assert!(ask(&server, "GET", "/state", &server.password, "").await.ends_with("mine"));
    }
}
