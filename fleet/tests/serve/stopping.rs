//! The end of the servers.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::node::Node;

const BODY: &[u8] = br#"{"samples":[{"load1":1}]}"#;

/// A request whose body has begun to come.
async fn begin(node: &Node) -> TcpStream {
    let mut stream = TcpStream::connect(node.http).await.expect("connected");
    let head = format!(
        "POST /function/summary HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n",
        BODY.len()
    );
    stream.write_all(head.as_bytes()).await.expect("written");
    stream.write_all(&BODY[..5]).await.expect("written");
    tokio::time::sleep(Duration::from_millis(100)).await;
    stream
}

#[tokio::test]
async fn a_running_request_is_finished() {
    let node = Node::start().await;
    let mut running = begin(&node).await;
    let mut idle = TcpStream::connect(node.http).await.expect("connected");
    let (http, socket) = (node.http, node.socket.clone());
    let ending = tokio::spawn(node.server.shutdown(Duration::from_secs(10)));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(TcpStream::connect(http).await.is_err(), "no new connections");
    assert!(!socket.exists(), "the socket is gone");
    assert_eq!(idle.read(&mut [0; 1]).await.expect("closed"), 0, "idle connections end");
    assert!(!ending.is_finished());
    running.write_all(&BODY[5..]).await.expect("written");
    let mut answer = String::new();
    running.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    assert_eq!(ending.await.expect("ended"), 0);
}

#[tokio::test]
async fn what_does_not_end_in_time_is_cut() {
    let node = Node::start().await;
    let mut stuck = begin(&node).await;
    assert_eq!(node.server.shutdown(Duration::from_millis(100)).await, 1);
    assert_eq!(stuck.read(&mut [0; 1]).await.unwrap_or(0), 0);
}
