//! A client of one request a connection.

use std::net::SocketAddr;
use std::path::Path;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use osiris_protocol::error::ErrorBody;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

pub(crate) async fn send<S>(stream: S, mut request: Request<Full<Bytes>>) -> Response<Bytes>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    if !request.headers().contains_key("host") {
        request.headers_mut().insert("host", http::HeaderValue::from_static("localhost"));
    }
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("a handshake");
    tokio::spawn(connection);
    let (parts, body) = sender.send_request(request).await.expect("an answer").into_parts();
    Response::from_parts(parts, body.collect().await.expect("its body").to_bytes())
}

pub(crate) async fn tcp(addr: SocketAddr, request: Request<Full<Bytes>>) -> Response<Bytes> {
    send(TcpStream::connect(addr).await.expect("connected"), request).await
}

pub(crate) async fn unix(path: &Path, request: Request<Full<Bytes>>) -> Response<Bytes> {
    send(UnixStream::connect(path).await.expect("connected"), request).await
}

pub(crate) fn request(method: &str, path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::builder().method(method).uri(path).body(Full::new(body.into())).expect("a request")
}

pub(crate) fn error(response: &Response<Bytes>) -> ErrorBody {
    assert_eq!(response.headers()["content-type"], "application/json");
    serde_json::from_slice(response.body()).expect("an error body")
}
