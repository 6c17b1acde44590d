//! Requests a second of a `wasi:http` function over the node's TCP interface, beside a server that only
//! answers and beside the runtime without the node.
//!
//! Servers and load share the machine and the process, so the ratios say more than the figures. Run it
//! with `cargo bench -p osiris-fleet --bench http`.

#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../tests/serve/node.rs"]
mod node;

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use osiris_runtime::{Limits, PoolSize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const CONNECTIONS: usize = 32;
const WARM_UP: Duration = Duration::from_secs(1);
const MEASURED: Duration = Duration::from_secs(3);
const ROUNDS: usize = 3;
const REQUEST: &[u8] = b"GET /function/chart HTTP/1.1\r\nhost: localhost\r\n\r\n";
const BODY: &[u8] = br#"{"hello":"osiris"}"#;

/// Runs a server on an executor of its own until the process ends.
fn start<F>(server: impl FnOnce(std::sync::mpsc::Sender<SocketAddr>) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()>,
{
    let (ready, address) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let tokio = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("an executor");
        tokio.block_on(server(ready));
    });
    address.recv().expect("the server started")
}

async fn plain<F>(
    ready: std::sync::mpsc::Sender<SocketAddr>,
    answer: impl Fn(hyper::Request<Incoming>) -> F + Clone + Send + 'static,
) where
    F: Future<Output = hyper::Response<Full<Bytes>>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    ready.send(listener.local_addr().expect("an address")).expect("the bench waits");
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        stream.set_nodelay(true).expect("no delay");
        let answer = answer.clone();
        let service = service_fn(move |request| {
            let answer = answer(request);
            async move { Ok::<_, Infallible>(answer.await) }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn ask(address: SocketAddr, until: Instant, count: Arc<AtomicU64>) {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    stream.set_nodelay(true).expect("no delay");
    let mut buffer = vec![0; 4096];
    while Instant::now() < until {
        stream.write_all(REQUEST).await.expect("sent");
        let mut filled = 0;
        while !buffer[..filled].ends_with(BODY) {
            let read = stream.read(&mut buffer[filled..]).await.expect("received");
            assert!(read > 0, "the server closed: {}", String::from_utf8_lossy(&buffer[..filled]));
            filled += read;
        }
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// Processor time of the whole process, in microseconds.
fn processor_us() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}

/// Requests a second, and processor microseconds a request, the load's own included.
fn load(address: SocketAddr, span: Duration) -> (f64, f64) {
    let before = processor_us();
    let tokio = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("an executor");
    let count = Arc::<AtomicU64>::default();
    tokio.block_on(async {
        let until = Instant::now() + span;
        let askers: Vec<_> =
            (0..CONNECTIONS).map(|_| tokio::spawn(ask(address, until, Arc::clone(&count)))).collect();
        for asker in askers {
            asker.await.expect("no panic");
        }
    });
    let count = count.load(Ordering::Relaxed) as f64;
    (count / span.as_secs_f64(), (processor_us() - before) / count)
}

fn main() {
    node::POOL.set(PoolSize::Auto).expect("set once");
    let raw = start(|ready| {
        plain(ready, |_| async {
            let builder = hyper::Response::builder().header("content-type", "application/json");
            builder.body(Full::new(Bytes::from_static(BODY))).expect("a response")
        })
    });
    let direct = start(|ready| async move {
        let chart = node::prepare("chart", osiris_examples::CHART, Limits::default()).await;
        plain(ready, move |request: hyper::Request<Incoming>| {
            let chart = Arc::clone(&chart);
            async move {
                let (mut parts, body) = request.into_parts();
                parts.uri = http::Uri::from_static("/");
                let body = body.collect().await.expect("a body").to_bytes();
                let outcome = chart.call_http(hyper::Request::from_parts(parts, body)).await;
                outcome.result.expect("a response").map(Full::new)
            }
        })
        .await;
    });
    let whole = start(|ready| async move {
        let node = node::Node::start().await;
        ready.send(node.http).expect("the bench waits");
        std::future::pending::<()>().await;
    });
    for round in 1..=ROUNDS {
        let mut first = None;
        for (name, address) in [("raw hyper", raw), ("runtime", direct), ("node", whole)] {
            load(address, WARM_UP);
            let (rate, processor) = load(address, MEASURED);
            let ratio = rate / *first.get_or_insert(rate);
            println!(
                "round {round}, {CONNECTIONS} connections, {name:10} {rate:8.0} requests/s, ratio {ratio:.2}, \
                 {processor:6.1} us of processor a request"
            );
        }
    }
}
