//! `/metrics`, `/healthz` and `/readyz`.

use std::collections::BTreeMap;

use osiris_fleet::driver::serve::State;

use super::client::{error, request, tcp};
use super::node::Node;

type Labels = BTreeMap<String, String>;

/// A strict reader of the text format 0.0.4: every sample follows the HELP and TYPE of its family, and
/// every family stands together.
#[derive(Debug, Default)]
struct Scrape {
    kinds: BTreeMap<String, String>,
    samples: Vec<(String, Labels, f64)>,
}

impl Scrape {
    fn parse(text: &str) -> Self {
        let mut scrape = Self::default();
        let (mut helped, mut family) = (None, String::new());
        assert!(text.ends_with('\n'));
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect("a text");
                assert!(!help.is_empty());
                helped = Some(name.to_owned());
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a type");
                assert_eq!(helped.take().as_deref(), Some(name), "HELP comes first");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{kind}");
                let before = scrape.kinds.insert(name.to_owned(), kind.to_owned());
                assert_eq!(before, None, "{name} stands twice");
                name.clone_into(&mut family);
            } else {
                let (name, labels, value) = sample(line);
                let suffix = name.strip_prefix(&family).expect("a sample of its family");
                let histogram = scrape.kinds[&family] == "histogram";
                assert!(if histogram {
                    ["_bucket", "_sum", "_count"].contains(&suffix)
                } else {
                    suffix.is_empty()
                });
                assert!(!scrape.samples.iter().any(|(n, l, _)| *n == name && *l == labels), "{line} twice");
                scrape.samples.push((name, labels, value));
            }
        }
        scrape
    }

    fn get(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let labels: Labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let found = self.samples.iter().find(|(n, l, _)| n == name && *l == labels);
        found.unwrap_or_else(|| panic!("no {name} {labels:?}")).2
    }
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn sample(line: &str) -> (String, Labels, f64) {
    let (name, mut rest) = line.split_at(line.find(['{', ' ']).expect("a value"));
    assert!(is_name(name), "{name}");
    let mut labels = Labels::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, after) = rest.split_once("=\"").expect("a label");
            assert!(is_name(label), "{label}");
            let (mut value, mut chars) = (String::new(), after.char_indices());
            let end = loop {
                match chars.next().expect("a closing quote") {
                    (at, '"') => break at,
                    (_, '\\') => match chars.next().expect("an escaped character").1 {
                        'n' => value.push('\n'),
                        c @ ('\\' | '"') => value.push(c),
                        c => panic!("\\{c} is no escape"),
                    },
                    (_, c) => value.push(c),
                }
            };
            assert_eq!(labels.insert(label.to_owned(), value), None);
            rest = &after[end + 1..];
            match rest.strip_prefix(',') {
                Some(more) => rest = more,
                None => break,
            }
        }
        rest = rest.strip_prefix('}').expect("a closing brace");
    }
    let value = rest.strip_prefix(' ').expect("a space");
    (name.to_owned(), labels, value.parse().expect("a number"))
}

#[tokio::test]
async fn metrics_can_be_scraped_and_count_calls() {
    let node = Node::start().await;
    let bodies = [r#"{"samples":[{"load1":1}]}"#, r#"{"samples":[]}"#, "{"];
    for body in bodies {
        tcp(node.http, request("POST", "/function/summary", body)).await;
    }
    tcp(node.http, request("GET", "/function/far", "")).await;
    let response = tcp(node.http, request("GET", "/metrics", "")).await;
    assert_eq!(response.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let scrape = Scrape::parse(std::str::from_utf8(response.body()).expect("UTF-8"));
    for (outcome, count) in [("ok", 1.0), ("function_error", 1.0), ("rejected", 1.0), ("failed", 0.0)] {
        let labels = [("function", "summary"), ("outcome", outcome)];
        assert_eq!(scrape.get("osiris_function_calls_total", &labels), count, "{outcome}");
    }
    let summary = [("function", "summary")];
    assert_eq!(scrape.get("osiris_function_backlog", &summary), 0.0);
    assert_eq!(scrape.get("osiris_function_in_flight", &summary), 0.0);
    let count = scrape.get("osiris_function_duration_seconds_count", &summary);
    assert_eq!(count, 2.0, "what is not started has no duration");
    let bucket =
        |le| scrape.get("osiris_function_duration_seconds_bucket", &[("function", "summary"), ("le", le)]);
    assert_eq!(bucket("+Inf"), count);
    assert_eq!(bucket("60"), count);
    assert!(bucket("0.0001") <= bucket("0.001"));
    assert!(scrape.get("osiris_function_duration_seconds_sum", &summary) > 0.0);
    for (name, value) in [
        ("osiris_ledger_blocks", 7.0),
        ("osiris_members", 3.0),
        ("osiris_connected_peers", 2.0),
        ("osiris_ready", 1.0),
    ] {
        assert_eq!(scrape.get(name, &[]), value, "{name}");
    }
    assert_eq!(scrape.get("osiris_view_info", &[("hash", &"ab".repeat(32))]), 1.0);
    assert!(scrape.get("process_resident_memory_bytes", &[]) > 1e6);
    assert!(scrape.get("process_cpu_seconds_total", &[]) > 0.0);
    assert_eq!(scrape.kinds["osiris_function_relayed_total"], "counter");
    // A function that was removed leaves the list.
    assert!(!scrape.samples.iter().any(|(_, labels, _)| labels.values().any(|value| value == "gone")));
}

#[tokio::test]
async fn a_node_says_whether_it_lives_and_is_ready() {
    let node = Node::start().await;
    for (state, ready) in
        [(State::Starting, 503), (State::Serving, 200), (State::ReadOnly, 200), (State::Draining, 503)]
    {
        node.state.set(state);
        assert_eq!(node.state.get(), state);
        assert_eq!(tcp(node.http, request("GET", "/healthz", "")).await.status(), 200);
        let response = tcp(node.http, request("GET", "/readyz", "")).await;
        assert_eq!(response.status(), ready, "{state:?}");
        if ready == 503 {
            assert!(error(&response).message.contains(state.word()));
        }
    }
}
