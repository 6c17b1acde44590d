//! Requests a second over HTTP, with one fresh instance a call, beside a server that only answers.
//!
//! Both servers and the load share the machine and the process, so the ratio says more than the figures;
//! where others use the machine too, the processor time a request does. It includes the load's own. Run
//! it with
//! `cargo bench -p osiris-runtime --bench http`.

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
use osiris_runtime::{Library, Limits, Runtime, RuntimeConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const CONNECTIONS: usize = 32;
const WARM_UP: Duration = Duration::from_secs(1);
const MEASURED: Duration = Duration::from_secs(4);
const ROUNDS: usize = 3;
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
const BODY: &[u8] = br#"{"hello":"osiris"}"#;

type Request = hyper::Request<Incoming>;
type Response = hyper::Response<Full<Bytes>>;

/// Serves on a runtime of its own until the process ends.
fn serve<F>(answer: impl Fn(Request) -> F + Clone + Send + 'static) -> SocketAddr
where
    F: Future<Output = Response> + Send + 'static,
{
    let (ready, address) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let tokio = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("an executor");
        tokio.block_on(async move {
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
        });
    });
    address.recv().expect("the server started")
}

/// Asks over one connection until `until`; every answer must end with the known body.
async fn ask(
    address: SocketAddr,
    until: Instant,
    count: Arc<AtomicU64>,
    took: Arc<std::sync::Mutex<Vec<u32>>>,
) {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    stream.set_nodelay(true).expect("no delay");
    let (mut buffer, mut times) = (vec![0; 4096], Vec::new());
    while Instant::now() < until {
        let began = Instant::now();
        stream.write_all(REQUEST).await.expect("sent");
        let mut filled = 0;
        while !buffer[..filled].ends_with(BODY) {
            let read = stream.read(&mut buffer[filled..]).await.expect("received");
            assert!(read > 0, "the server closed: {}", String::from_utf8_lossy(&buffer[..filled]));
            filled += read;
        }
        count.fetch_add(1, Ordering::Relaxed);
        times.push(u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX));
    }
    took.lock().expect("no panic").append(&mut times);
}

/// Processor time of the whole process, in microseconds.
fn processor_us() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}

/// Requests a second, processor microseconds a request, and the median and 99th percentile in microseconds.
fn load(address: SocketAddr, connections: usize, span: Duration) -> (f64, f64, u32, u32) {
    let before = processor_us();
    let tokio = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("an executor");
    let (count, took) = (Arc::<AtomicU64>::default(), Arc::default());
    tokio.block_on(async {
        let until = Instant::now() + span;
        let askers: Vec<_> = (0..connections)
            .map(|_| tokio::spawn(ask(address, until, Arc::clone(&count), Arc::clone(&took))))
            .collect();
        for asker in askers {
            asker.await.expect("no panic");
        }
    });
    let mut took = took.lock().expect("no panic");
    took.sort_unstable();
    let count = count.load(Ordering::Relaxed) as f64;
    let processor = (processor_us() - before) / count;
    (count / span.as_secs_f64(), processor, took[took.len() / 2], took[took.len() * 99 / 100])
}

fn main() {
    let dir = tempfile::tempdir().expect("a folder");
    let library = Library::open(dir.path().join("library"), 1 << 30).expect("a library");
    let runtime = Runtime::new(RuntimeConfig::new(dir.path().join("code"))).expect("a runtime");
    let hash = library.put(osiris_examples::CHART).expect("room");
    let setup = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("an executor");
    let chart = setup
        .block_on(runtime.prepare("chart", hash, library.path(hash), Limits::default()))
        .expect("prepared");
    let raw = serve(|_| async {
        let builder = hyper::Response::builder().header("content-type", "application/json");
        builder.body(Full::new(Bytes::from_static(BODY))).expect("a response")
    });
    let function = serve(move |request: Request| {
        let chart = chart.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.expect("a body").to_bytes();
            let outcome = chart.call_http(hyper::Request::from_parts(parts, body)).await;
            outcome.result.expect("a response").map(Full::new)
        }
    });
    for connections in [1, CONNECTIONS] {
        for round in 1..=ROUNDS {
            let mut rates = [0.0; 2];
            for (place, (name, address)) in
                [("raw hyper", raw), ("function", function)].into_iter().enumerate()
            {
                load(address, connections, WARM_UP);
                let (rate, processor, p50, p99) = load(address, connections, MEASURED);
                rates[place] = rate;
                println!(
                    "{connections:3} connections, {name:10} {rate:8.0} requests/s, {processor:6.1} us of processor a request, p50 {p50} us, p99 {p99} us"
                );
            }
            println!("{connections:3} connections, round {round}, ratio {:.2}", rates[1] / rates[0]);
        }
    }
}
