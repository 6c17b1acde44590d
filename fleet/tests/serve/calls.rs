//! Functions that run on the node that is asked.

use bytes::Bytes;
use osiris_fleet::driver::serve::ServeConfig;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::client::{error, request, tcp, unix};
use super::node::Node;

const SAMPLES: &str = r#"{"samples":[{"cpu_percent":10},{"cpu_percent":30}]}"#;

#[tokio::test]
async fn a_native_function_answers_json_and_says_who_ran_it() {
    let node = Node::start().await;
    for response in [
        tcp(node.http, request("POST", "/function/summary", SAMPLES)).await,
        unix(&node.socket, request("POST", "/function/summary", SAMPLES)).await,
        tcp(node.http, request("POST", "/function/%73ummar%79", SAMPLES)).await,
    ] {
        assert_eq!(response.status(), 200, "{:?}", response.body());
        assert_eq!(response.headers()["content-type"], "application/json");
        assert_eq!(response.headers()["x-osiris-node"], node.fleet.author(0).to_string());
        assert!(response.headers()["x-osiris-revision"].to_str().expect("text").starts_with("1-"));
        assert_eq!(response.headers()["x-osiris-relayed"], "false");
        let summary: Value = serde_json::from_slice(response.body()).expect("JSON");
        assert_eq!(summary["fields"]["cpu_percent"]["mean"], 20.0);
    }
}

#[tokio::test]
async fn what_a_native_function_cannot_take_is_refused_with_the_reason() {
    let node = Node::start().await;
    let call = |method, body: &'static [u8]| tcp(node.http, request(method, "/function/summary", body));
    let broken = call("POST", b"{\"samples\":\n [1,}").await;
    assert_eq!(broken.status(), 400);
    assert!(error(&broken).message.contains("line 2 column 5"), "{:?}", error(&broken));
    assert_eq!(error(&call("POST", b"").await).error, "bad-request");
    let below = tcp(node.http, request("POST", "/function/summary/below", SAMPLES)).await;
    assert_eq!(below.status(), 404, "{:?}", below.body());
    assert!(error(&call("POST", b"\"\xff\"").await).message.contains("byte 1 is not UTF-8"));
    let got = call("GET", b"").await;
    assert_eq!((got.status().as_u16(), got.headers()["allow"].as_bytes()), (405, &b"POST"[..]));
    let own = call("POST", br#"{"samples":[]}"#).await;
    assert_eq!(own.status(), 422);
    assert_eq!(error(&own).error, "function-error");
    assert_eq!(error(&own).message, "give at least one sample");
    assert_eq!(own.headers()["x-osiris-relayed"], "false");
}

#[tokio::test]
async fn an_http_function_sees_its_own_paths_and_methods() {
    let node = Node::start().await;
    for path in ["/function/chart", "/function/chart/", "/function/chart?x=1"] {
        let hello = tcp(node.http, request("GET", path, "")).await;
        assert_eq!(
            (hello.status().as_u16(), &hello.body()[..]),
            (200, &br#"{"hello":"osiris"}"#[..]),
            "{path}"
        );
        assert_eq!(hello.headers()["x-osiris-relayed"], "false");
    }
    let head = tcp(node.http, request("HEAD", "/function/chart", "")).await;
    assert_eq!((head.status().as_u16(), head.body().len()), (200, 0));
    let chart = tcp(node.http, request("POST", "/function/chart/chart?a=b", SAMPLES)).await;
    assert_eq!(chart.headers()["content-type"], "image/svg+xml");
    assert!(chart.body().starts_with(b"<svg"));
    let own = tcp(node.http, request("DELETE", "/function/chart/nothing", "")).await;
    assert_eq!(own.status(), 404);
    assert!(own.headers().contains_key("x-osiris-node"), "the function itself says 404");
}

#[tokio::test]
async fn names_that_cannot_be_called_say_why() {
    let node = Node::start().await;
    for name in ["nothing", "gone", "", "a%2Fb"] {
        let unknown = tcp(node.http, request("POST", &format!("/function/{name}"), "1")).await;
        assert_eq!(unknown.status(), 404, "{name}");
        assert!(!unknown.headers().contains_key("x-osiris-node"));
        assert_eq!(error(&unknown).error, "not-found");
    }
    let pending = tcp(node.http, request("POST", "/function/waiting", "1")).await;
    assert_eq!((pending.status().as_u16(), pending.headers()["retry-after"].as_bytes()), (503, &b"1"[..]));
    assert!(error(&pending).message.contains("no node has it ready"));
    // It is live elsewhere, and this node has no mesh.
    assert_eq!(tcp(node.http, request("GET", "/function/far", "")).await.status(), 503);
    let manage = tcp(node.http, request("GET", "/v1/status", "")).await;
    assert_eq!(manage.status(), 404);
    assert!(error(&manage).message.contains("Unix socket"));
    assert_eq!(node.desk.last(), "", "nothing reached the management");
}

async fn raw(node: &Node, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(node.http).await.expect("connected");
    stream.write_all(bytes).await.expect("written");
    let mut answer = vec![0; 64 << 10];
    let len = stream.read(&mut answer).await.expect("an answer");
    String::from_utf8_lossy(&answer[..len]).into_owned()
}

#[tokio::test]
async fn large_bodies_are_refused_before_they_are_read() {
    let node = Node::start().await;
    let declared = b"POST /function/summary HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4194305\r\n\r\n";
    let answer = raw(&node, declared).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    let body = vec![b' '; (4 << 20) + 1];
    let mut chunked =
        b"POST /function/summary HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    chunked.extend_from_slice(format!("{:x}\r\n", body.len()).as_bytes());
    chunked.extend_from_slice(&body);
    let answer = raw(&node, &chunked).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    let fits = [b"  ".repeat(1 << 20), SAMPLES.as_bytes().to_vec()].concat();
    let fits = tcp(node.http, request("POST", "/function/summary", Bytes::from(fits))).await;
    assert_eq!(fits.status(), 200);
}

#[tokio::test]
async fn heads_are_bounded_in_size_and_time() {
    let config = ServeConfig { head_timeout: std::time::Duration::from_millis(200), ..Default::default() };
    let node = Node::with(config).await;
    let large = format!("GET /healthz HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n", "y".repeat(100 << 10));
    let answer = raw(&node, large.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    let mut slow = TcpStream::connect(node.http).await.expect("connected");
    slow.write_all(b"GET /healthz HTTP/1.1\r\n").await.expect("written");
    let mut rest = Vec::new();
    let closed = tokio::time::timeout(std::time::Duration::from_secs(5), slow.read_to_end(&mut rest)).await;
    assert!(closed.is_ok(), "the slow head is given up");
}

#[tokio::test]
async fn a_kept_connection_waits_for_a_head_only_so_long_and_for_a_body_longer() {
    let head_timeout = std::time::Duration::from_millis(200);
    let node = Node::with(ServeConfig { head_timeout, ..Default::default() }).await;
    let mut kept = TcpStream::connect(node.http).await.expect("connected");
    let head = format!(
        "POST /function/summary HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n",
        SAMPLES.len()
    );
    kept.write_all(head.as_bytes()).await.expect("written");
    // The head is here, so the connection is at work; its timer runs out meanwhile.
    tokio::time::sleep(3 * head_timeout).await;
    kept.write_all(SAMPLES.as_bytes()).await.expect("written");
    let mut answer = Vec::new();
    let closed = tokio::time::timeout(std::time::Duration::from_secs(5), kept.read_to_end(&mut answer)).await;
    assert!(closed.is_ok(), "nothing follows the answer, so the connection ends");
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}
