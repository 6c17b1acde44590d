//! More connections than there is room for.

use std::time::Duration;

use osiris_fleet::driver::{limits::RESERVED_CONNECTIONS_MAX, serve::ServeConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::client::{request, tcp};
use super::node::Node;

const BODY: &[u8] = br#"{"samples":[{"load1":1}]}"#;
/// Longer than the tests take.
const LONG: Duration = Duration::from_secs(60);

/// A node with room for two connections, which waits long for heads.
async fn small() -> Node {
    Node::with(ServeConfig { connections_max: 2, head_timeout: LONG, ..ServeConfig::default() }).await
}

async fn connect(node: &Node) -> TcpStream {
    TcpStream::connect(node.http).await.expect("connected")
}

/// Sends a request without a body and reads its small answer; the connection stays open.
async fn ask(stream: &mut TcpStream, path: &str) -> String {
    let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("written");
    let mut answer = vec![0; 4096];
    let read = stream.read(&mut answer).await.expect("an answer");
    answer.truncate(read);
    String::from_utf8(answer).expect("text")
}

/// A call whose body has begun to come and that the node has taken up.
async fn begin(node: &Node) -> TcpStream {
    let mut stream = connect(node).await;
    let head = format!(
        "POST /function/summary HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n",
        BODY.len()
    );
    stream.write_all(head.as_bytes()).await.expect("written");
    // It says so when the function's limits were looked up and the body is read.
    let mut go_on = [0; 25];
    stream.read_exact(&mut go_on).await.expect("an interim answer");
    assert!(go_on.starts_with(b"HTTP/1.1 100"));
    stream
}

async fn is_closed(stream: &mut TcpStream) -> bool {
    matches!(tokio::time::timeout(LONG, stream.read(&mut [0; 1])).await, Ok(Ok(0) | Err(_)))
}

#[tokio::test]
async fn the_connection_that_is_idle_for_longest_gives_way() {
    let node = small().await;
    let mut used = connect(&node).await;
    assert!(ask(&mut used, "/healthz").await.starts_with("HTTP/1.1 200"));
    let mut half = connect(&node).await;
    half.write_all(b"GET /healthz HTTP/1.1\r\n").await.expect("written");
    // Accepted before the next request of the other.
    while node.metrics.http().connections < 2 {
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert!(ask(&mut used, "/healthz").await.starts_with("HTTP/1.1 200"));
    tokio::time::sleep(Duration::from_millis(5)).await;
    let third = tcp(node.http, request("POST", "/function/summary", BODY)).await;
    assert_eq!(third.status(), 200, "{:?}", third.body());
    assert!(is_closed(&mut half).await, "half a head is not work");
    assert!(ask(&mut used, "/function/chart").await.starts_with("HTTP/1.1 200"));
    let figures = node.metrics.http();
    assert_eq!((figures.displaced, figures.turned_away), (1, 0));
}

#[tokio::test]
async fn health_is_answered_while_every_connection_is_at_work() {
    let node = small().await;
    let mut running = [begin(&node).await, begin(&node).await];
    // More than there is room for in the reserve, each with half a head.
    let mut crowd = Vec::new();
    for _ in 0..RESERVED_CONNECTIONS_MAX + 1 {
        let mut one = connect(&node).await;
        one.write_all(b"GET /healthz HTTP/1.1\r\n").await.expect("written");
        crowd.push(one);
    }
    for path in ["/healthz", "/readyz"] {
        let answer = tcp(node.http, request("GET", path, "")).await;
        assert_eq!(answer.status(), 200, "{path}");
        assert_eq!(answer.headers()["connection"], "close");
    }
    let refused = tcp(node.http, request("GET", "/function/chart", "")).await;
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key("retry-after"));
    assert_eq!(node.metrics.http().turned_away, 1);
    for stream in &mut running {
        stream.write_all(BODY).await.expect("written");
        let mut answer = [0; 15];
        stream.read_exact(&mut answer).await.expect("an answer");
        assert_eq!(&answer, b"HTTP/1.1 200 OK", "what was begun is finished");
    }
    assert_eq!(tcp(node.http, request("GET", "/function/chart", "")).await.status(), 200);
}
