//! Who may speak over TCP.

use http::{HeaderValue, Request};
use osiris_fleet::driver::serve::{ListenError, ServeConfig, Token};

use super::client::{error, request, tcp, unix};
use super::node::Node;

fn with(path: &str, name: &'static str, value: &'static str) -> Request<http_body_util::Full<bytes::Bytes>> {
    let mut request = request("GET", path, "");
    request.headers_mut().insert(name, HeaderValue::from_static(value));
    request
}

#[tokio::test]
async fn web_sites_are_kept_out_and_the_socket_is_not_guarded() {
    let node = Node::start().await;
    for (name, value, why) in [
        ("host", "evil.example", "DNS rebinding"),
        ("origin", "http://evil.example", "Origin"),
        ("sec-fetch-site", "cross-site", "Sec-Fetch-Site"),
    ] {
        for path in ["/function/chart", "/healthz", "/metrics"] {
            let refused = tcp(node.http, with(path, name, value)).await;
            assert_eq!(refused.status(), 403, "{name}: {value}");
            assert!(error(&refused).message.contains(why));
        }
        assert_eq!(unix(&node.socket, with("/function/chart", name, value)).await.status(), 200);
    }
    assert_eq!(node.metrics.http().refused, 9);
    assert_eq!(tcp(node.http, with("/function/chart", "sec-fetch-site", "none")).await.status(), 200);
}

#[tokio::test]
async fn a_token_is_asked_for_over_tcp() {
    let token = Token::new("0123456789abcdef").expect("a token");
    let node = Node::with(ServeConfig { token: Some(token), ..ServeConfig::default() }).await;
    for path in ["/function/chart", "/readyz", "/metrics", "/openapi.json", "/v1/status", "/nothing"] {
        let refused = tcp(node.http, request("GET", path, "")).await;
        assert_eq!(refused.status(), 401, "{path}");
        assert_eq!(refused.headers()["www-authenticate"], "Bearer");
        assert_eq!(
            tcp(node.http, with(path, "authorization", "Bearer 0123456789abcdeX")).await.status(),
            401
        );
    }
    assert_eq!(tcp(node.http, request("GET", "/healthz", "")).await.status(), 200);
    let bearer = "Bearer 0123456789abcdef";
    assert_eq!(tcp(node.http, with("/function/chart", "authorization", bearer)).await.status(), 200);
    assert_eq!(tcp(node.http, with("/v1/status", "authorization", bearer)).await.status(), 404);
    assert_eq!(unix(&node.socket, request("GET", "/v1/status", "")).await.status(), 200);
}

#[tokio::test]
async fn an_open_address_without_a_token_is_not_listened_on() {
    let open = "0.0.0.0:0".parse().expect("an address");
    let refused = osiris_fleet::driver::serve::validate_listen(open, None);
    assert!(matches!(refused, Err(ListenError::Unprotected { .. })));
    let token = Token::new("0123456789abcdef").expect("a token");
    let config = ServeConfig { http: Some(open), token: Some(token), ..ServeConfig::default() };
    let node = Node::with(config).await;
    let addr = ([127, 0, 0, 1], node.http.port()).into();
    let mut any = with("/function/chart", "authorization", "Bearer 0123456789abcdef");
    any.headers_mut().insert("host", HeaderValue::from_static("edge.example"));
    assert_eq!(tcp(addr, any).await.status(), 200);
}
