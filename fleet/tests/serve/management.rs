//! `/v1` and the document that describes it.

use std::time::Duration;

use osiris_fleet::api::LogRow;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use super::client::{error, request, tcp, unix};
use super::node::Node;

const ID: &str = "abababababababababababababababababababababababababababababababab";

async fn ask(node: &Node, method: &str, path: &str, body: &str) -> (u16, Value) {
    let response = unix(&node.socket, request(method, path, body.to_owned())).await;
    (response.status().as_u16(), serde_json::from_slice(response.body()).unwrap_or(Value::Null))
}

#[tokio::test]
async fn every_route_reaches_its_method() {
    let node = Node::start().await;
    let deploy = json!({"component": ID, "manifest": {"name": "a"}, "timeout_ms": 5}).to_string();
    let invite = json!({"uses": 3, "roles": ["node"], "note": "", "timeout_ms": 5}).to_string();
    for (method, path, body, asked) in [
        ("GET", "/v1/status", "", "status"),
        ("GET", "/v1/nodes", "", "nodes"),
        ("GET", "/v1/functions", "", "functions"),
        ("GET", "/v1/functions/a", "", "function a"),
        ("POST", "/v1/blobs", "xyz", "store Component 3"),
        ("POST", "/v1/blobs?kind=manifest", "{}", "store Manifest 2"),
        ("POST", "/v1/functions", deploy.as_str(), "deploy a"),
        ("DELETE", "/v1/functions/a?timeout_ms=7", "", "remove a 7ms"),
        ("DELETE", "/v1/functions/a", "", "remove a 5s"),
        ("GET", "/v1/functions/a/logs", "", "logs a 100 false"),
        ("GET", "/v1/functions/a/logs?lines=3&follow=true", "", "logs a 3 true"),
        ("POST", "/v1/invitations", invite.as_str(), "invite 3"),
        ("GET", "/v1/invitations", "", "invitations"),
        ("DELETE", &format!("/v1/invitations/{ID}"), "", "withdraw abababab 5s"),
        ("GET", "/v1/ticket", "", "ticket"),
        ("POST", "/v1/sync", r#"{"timeout_ms":9}"#, "sync 9"),
        ("POST", "/v1/drain", "", "drain"),
        ("POST", "/v1/leave", "{}", "leave"),
        ("POST", "/v1/shutdown", "", "shutdown"),
        ("POST", "/v1/ledger/log", r#"{"limit":2,"author":"a"}"#, "log 2 Some(\"a\")"),
        ("GET", "/v1/ledger/verify", "", "verify"),
        ("GET", "/v1/doctor", "", "doctor"),
        ("POST", "/v1/members/revoke", r#"{"device":"ab","timeout_ms":5}"#, "revoke ab false"),
        (
            "POST",
            "/v1/roles/grant",
            r#"{"device":"ab","roles":["admin"],"timeout_ms":5}"#,
            "grant ab [\"admin\"]",
        ),
        (
            "POST",
            "/v1/roles/revoke",
            r#"{"device":"ab","roles":["admin"],"timeout_ms":5}"#,
            "take ab [\"admin\"]",
        ),
        ("GET", "/v1/leases", "", "leases"),
        ("POST", "/v1/leases/limit", r#"{"machines":3,"timeout_ms":5}"#, "limit leases 3 false"),
        ("GET", "/v1/voters", "", "voters"),
        ("POST", "/v1/voters", r#"{"devices":["ab"],"timeout_ms":5}"#, "name voters [\"ab\"]"),
        ("GET", "/v1/scale", "", "scale None"),
        ("GET", "/v1/scale?min=1&max=4", "", "scale Some((1, 4))"),
        ("POST", "/v1/scale", r#"{"name":"a","max":3,"timeout_ms":5}"#, "bound Some(\"a\") None Some(3)"),
        (
            "POST",
            "/v1/members/labels",
            r#"{"device":"ab","labels":["gpu"],"timeout_ms":5}"#,
            "label ab [\"gpu\"]",
        ),
        ("POST", "/v1/leases/want", r#"{"gone":"ab","vouched":true}"#, "want lease \"ab\" true"),
        ("GET", "/v1/recovery", "", "recovery"),
        (
            "POST",
            "/v1/recovery",
            r#"{"device":"ab","generation":2,"certificate":"","timeout_ms":5}"#,
            "recover ab 2",
        ),
    ] {
        let (status, answer) = ask(&node, method, path, body).await;
        assert_eq!((status, node.desk.last().as_str()), (200, asked), "{method} {path}: {answer}");
        assert!(!answer.is_null(), "{method} {path} answers JSON");
    }
    assert_eq!(ask(&node, "GET", "/v1/functions/none", "").await.0, 404);
}

#[tokio::test]
async fn what_is_not_understood_is_refused() {
    let node = Node::start().await;
    for (method, path, body, says) in [
        ("GET", "/v1/status?x=1", "", "unknown key `x`"),
        ("GET", "/v1/functions/chart/logs?lines=-1", "", "a whole number from 0"),
        ("GET", "/v1/functions/chart/logs?lines=1&lines=2", "", "twice"),
        ("GET", "/v1/functions/a/logs?follow=yes", "", "`true` or `false`"),
        ("GET", "/v1/scale?min=3", "", "without `max`"),
        ("POST", "/v1/blobs?kind=other", "x", "component or manifest"),
        ("POST", "/v1/sync", r#"{"timeout_ms":1,"force":true}"#, "unknown field `force`"),
        ("POST", "/v1/sync", r#"{"timeout_ms":"1"}"#, "line 1 column"),
        ("POST", "/v1/sync", r#"{"timeout_ms":999999999}"#, "at most 600000"),
        ("POST", "/v1/sync", "{", "not JSON"),
        ("POST", "/v1/sync", "[]", "a JSON object"),
        (
            "POST",
            "/v1/functions",
            r#"{"component":"","manifest":{"name":"a","x":1},"timeout_ms":1}"#,
            "unknown field `x`",
        ),
        ("POST", "/v1/drain", r#"{"now":true}"#, "takes no body"),
        ("DELETE", "/v1/invitations/abc", "", "does not name an invitation"),
    ] {
        let (status, answer) = ask(&node, method, path, body).await;
        assert_eq!(status, 400, "{method} {path} {body}: {answer}");
        assert!(answer["message"].as_str().is_some_and(|message| message.contains(says)), "{answer}");
    }
    assert_eq!(node.desk.last(), "", "nothing of it was done");
    let put = unix(&node.socket, request("PUT", "/v1/functions", "")).await;
    assert_eq!((put.status().as_u16(), put.headers()["allow"].as_bytes()), (405, &b"GET, POST"[..]));
    assert_eq!(error(&unix(&node.socket, request("GET", "/v1/nothing", "")).await).error, "not-found");
    let large = request("POST", "/v1/sync", vec![b' '; (1 << 20) + 1]);
    assert_eq!(unix(&node.socket, large).await.status(), 413);
}

#[tokio::test]
async fn logs_follow_line_by_line_and_end_with_the_server() {
    let node = Node::start().await;
    let (sender, rows) = mpsc::channel(4);
    *node.desk.follow.lock().expect("whole") = Some(rows);
    let mut stream = UnixStream::connect(&node.socket).await.expect("connected");
    let asked = b"GET /v1/functions/a/logs?follow=true HTTP/1.1\r\nhost: x\r\n\r\n";
    stream.write_all(asked).await.expect("written");
    let mut seen = String::new();
    for text in ["first", "second"] {
        let mut piece = [0; 4096];
        while !seen.contains(text) {
            let len = stream.read(&mut piece).await.expect("a piece");
            assert!(len > 0, "ended early: {seen}");
            seen.push_str(&String::from_utf8_lossy(&piece[..len]));
        }
        let row = LogRow { call: 2, stream: "stderr".to_owned(), text: "second".to_owned() };
        sender.send(row).await.expect("followed");
    }
    assert!(seen.contains("{\"call\":2,\"stream\":\"stderr\",\"text\":\"second\"}\n"), "{seen}");
    assert!(seen.contains("application/x-ndjson"));
    assert_eq!(node.server.shutdown(Duration::from_secs(5)).await, 0, "a follower does not hold the end up");
    assert!(sender.is_closed());
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.expect("closed");
}

#[tokio::test]
async fn the_document_describes_what_is_served() {
    let node = Node::start().await;
    let (_, document) = ask(&node, "GET", "/openapi.json", "").await;
    let over_tcp = tcp(node.http, request("GET", "/openapi.json", "")).await;
    assert_eq!(serde_json::from_slice::<Value>(over_tcp.body()).expect("JSON"), document);
    let mut walked = 0;
    for (template, operations) in document["paths"].as_object().expect("paths") {
        let path = template.replace("{name}", "chart").replace("{id}", ID).replace("{path}", "chart");
        for (method, operation) in operations.as_object().expect("operations") {
            let method = method.to_ascii_uppercase();
            let body = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
                .as_str()
                .map_or("", |reference| match reference.rsplit('/').next() {
                    Some("Deploy") => r#"{"component":"","manifest":{"name":"a"},"timeout_ms":1}"#,
                    Some("Invite") => r#"{"uses":1,"roles":[],"note":"","timeout_ms":1}"#,
                    Some("Revoke") => r#"{"device":"ab","timeout_ms":1}"#,
                    Some("RoleChange") => r#"{"device":"ab","roles":[],"timeout_ms":1}"#,
                    Some("MemberBudget") => r#"{"device":"ab","blocks":1,"timeout_ms":1}"#,
                    Some("MemberLabels") => r#"{"device":"ab","labels":[],"timeout_ms":1}"#,
                    Some("Log") => r#"{"limit":1}"#,
                    Some("AddUser") => r#"{"name":"isis","key":"","roles":[],"devices":1,"timeout_ms":1}"#,
                    Some("ChangeUser" | "RevokeUser") => r#"{"id":"ab","timeout_ms":1}"#,
                    Some("NameVoters") => r#"{"devices":["ab"],"timeout_ms":1}"#,
                    Some("Recover") => r#"{"device":"ab","generation":1,"certificate":"","timeout_ms":1}"#,
                    _ => r#"{"timeout_ms":1}"#,
                });
            let response = unix(&node.socket, request(&method, &path, body)).await;
            let status = response.status().as_u16();
            let described = operation["responses"].get(status.to_string()).is_some();
            assert!(described, "{method} {path} answers {status}: {:?}", response.body());
            let on_tcp = operation["x-osiris-transport"].as_array().expect("a list").contains(&json!("tcp"));
            let status = tcp(node.http, request(&method, &path, body)).await.status();
            assert_eq!(path.starts_with("/v1"), !on_tcp, "{path}");
            assert!(on_tcp || status == 404, "{method} {path} answers {status} over TCP");
            walked += 1;
        }
    }
    assert_eq!(walked, 58);
}
