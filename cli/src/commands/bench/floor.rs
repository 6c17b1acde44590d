//! The floor: hyper with nothing behind it. It reads the request whole and gives one prepared answer.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};

use super::wire::Seen;

/// What a floor is told.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct FloorJob {
    /// The answer to give.
    pub(super) seen: Seen,
}

/// Where it listens.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Floor {
    pub(super) address: SocketAddr,
}

struct Answer {
    headers: HeaderMap,
    body: Bytes,
}

/// Opens the floor's listener and serves it in the background, for as long as the program runs.
pub(super) async fn start(job: FloorJob) -> Result<Floor, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in &job.seen.headers {
        let name: HeaderName = name.parse().map_err(|_| format!("`{name}` is no header"))?;
        headers.append(name, HeaderValue::from_str(value).map_err(|e| e.to_string())?);
    }
    let answer = Arc::new(Answer { headers, body: Bytes::from(job.seen.body) });
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(|e| e.to_string())?;
    let address = listener.local_addr().map_err(|e| e.to_string())?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, Arc::clone(&answer)));
        }
    });
    Ok(Floor { address })
}

async fn serve(stream: TcpStream, answer: Arc<Answer>) {
    // Without it small answers wait for the client's delayed acknowledgement.
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| give(request, &answer));
    // It ends with an error when the load generator goes away in the middle, which is no concern here.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn give(request: Request<Incoming>, answer: &Answer) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = request.into_body();
    if !body.is_end_stream() {
        // A body that breaks off ends the connection, which the load generator notices.
        let _ = body.collect().await;
    }
    let mut response = Response::new(Full::new(answer.body.clone()));
    *response.headers_mut() = answer.headers.clone();
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::super::wire::{Ask, capture};
    use super::*;

    #[tokio::test]
    async fn a_floor_gives_the_answer_it_was_told() {
        let told = Seen {
            head_bytes: 0,
            headers: vec![("content-type".into(), "application/json".into()), ("x-a".into(), "1".into())],
            body: b"{}".to_vec(),
        };
        let floor = start(FloorJob { seen: told.clone() }).await.expect("started");
        for body in [None, Some("[1]".to_owned())] {
            let ask = Ask { target: floor.address, path: "/x".to_owned(), body };
            let seen = capture(&ask).await.expect("answered");
            assert_eq!((seen.headers, seen.body), (told.headers.clone(), told.body.clone()));
        }
    }
}
