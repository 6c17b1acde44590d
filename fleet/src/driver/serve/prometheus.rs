//! `/metrics`: the text format of Prometheus, version 0.0.4.

use std::fmt::{Display, Write};

use crate::driver::limits::held_terms;
use crate::driver::metrics::{BUCKETS, CallEnd, CallFigures, Metrics, NodeGauges, ProcessUse, RelayEnd};
use crate::driver::routes::Routes;

/// The content type of the format.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The text as it grows. Writing to a `String` cannot fail.
struct Text(String);

impl Text {
    /// The head of a family of samples.
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (i, (label, value)) in labels.iter().enumerate() {
            let _ = write!(self.0, "{}{label}=\"", if i == 0 { '{' } else { ',' });
            for c in value.chars() {
                match c {
                    '\\' => self.0.push_str("\\\\"),
                    '"' => self.0.push_str("\\\""),
                    '\n' => self.0.push_str("\\n"),
                    c => self.0.push(c),
                }
            }
            self.0.push('"');
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.0, "{close} {value}");
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }
}

/// Everything at this moment.
pub(super) fn render(metrics: &Metrics, routes: &Routes, node: &NodeGauges, ready: bool) -> String {
    let mut text = Text(String::with_capacity(16 << 10));
    functions(&mut text, metrics, routes);
    fleet(&mut text, node);
    text.one("osiris_ready", "gauge", "1 while the node takes calls.", u8::from(ready));
    let figures = metrics.http();
    text.one("osiris_http_connections", "gauge", "Open HTTP connections.", figures.connections);
    text.one(
        "osiris_http_refused_total",
        "counter",
        "Requests refused for their Host, Origin or token.",
        figures.refused,
    );
    text.one(
        "osiris_http_turned_away_total",
        "counter",
        "Connections turned away because too many were at work.",
        figures.turned_away,
    );
    text.one(
        "osiris_http_displaced_total",
        "counter",
        "Idle connections closed because a new one came and too many were open.",
        figures.displaced,
    );
    process(&mut text, node);
    text.0
}

fn functions(text: &mut Text, metrics: &Metrics, routes: &Routes) {
    let loads = routes.loads();
    text.family("osiris_function_backlog", "gauge", "Calls accepted here and not started.");
    for (name, (backlog, _)) in &loads {
        text.sample("osiris_function_backlog", &[("function", name)], backlog);
    }
    text.family("osiris_function_in_flight", "gauge", "Calls that run here.");
    for (name, (_, in_flight)) in &loads {
        text.sample("osiris_function_in_flight", &[("function", name)], in_flight);
    }
    let all = metrics.all();
    text.family("osiris_function_calls_total", "counter", "Calls that ended here, by how.");
    for (name, figures) in &all {
        for end in CallEnd::ALL {
            let labels = [("function", name.as_str()), ("outcome", end.label())];
            text.sample("osiris_function_calls_total", &labels, figures.ended(end));
        }
    }
    text.family(
        "osiris_function_relayed_total",
        "counter",
        "Calls passed on to another member, by how they ended.",
    );
    for (name, figures) in &all {
        for end in RelayEnd::ALL {
            let labels = [("function", name.as_str()), ("outcome", end.label())];
            text.sample("osiris_function_relayed_total", &labels, figures.relayed(end));
        }
    }
    let help = "Time that calls took here, waiting included.";
    text.family("osiris_function_duration_seconds", "histogram", help);
    for (name, figures) in &all {
        histogram(text, name, figures);
    }
}

fn histogram(text: &mut Text, name: &str, figures: &CallFigures) {
    let (counts, sum) = figures.duration().read();
    let mut total = 0;
    let bounds = BUCKETS.iter().map(|(_, bound)| *bound).chain(["+Inf"]);
    for (bound, count) in bounds.zip(counts) {
        total += count;
        let labels = [("function", name), ("le", bound)];
        text.sample("osiris_function_duration_seconds_bucket", &labels, total);
    }
    text.sample("osiris_function_duration_seconds_sum", &[("function", name)], sum.as_secs_f64());
    text.sample("osiris_function_duration_seconds_count", &[("function", name)], total);
}

fn fleet(text: &mut Text, node: &NodeGauges) {
    text.one("osiris_ledger_blocks", "gauge", "Admitted blocks.", node.blocks);
    let core = node.held.core;
    let mut gauge = |name, help, value: u64| text.one(name, "gauge", help, value);
    gauge("osiris_ledger_early_blocks", "Blocks that wait for others.", core.early);
    gauge("osiris_ledger_early_bytes", "What those hold.", core.early_bytes);
    gauge("osiris_ledger_unseen_blocks", "Own blocks that no other member has confirmed.", core.unseen);
    gauge("osiris_document_pending", "Changes that wait for the document.", core.document_pending);
    gauge(
        "osiris_signatures_unchecked",
        "Blocks from the journal whose signatures are not checked yet.",
        core.signatures_unchecked,
    );
    gauge("osiris_signatures_wrong", "Those whose signatures are wrong.", core.signatures_wrong);
    gauge("osiris_journal_groups", "Writes that are not durable yet.", node.held.journal_groups);
    gauge("osiris_journal_held_bytes", "Frames that wait for those.", node.held.journal_bytes);
    gauge(
        "osiris_peer_queued_bytes_max",
        "Bytes queued for the member for which most are.",
        node.queued_bytes_most,
    );
    text.family("osiris_held_bytes", "gauge", "What peers make this node hold beside its ledger.");
    let terms = held_terms(node.mesh.peers, &node.held, &node.mesh);
    for term in &terms {
        text.sample("osiris_held_bytes", &[("what", term.what)], term.held);
    }
    text.family("osiris_held_bytes_max", "gauge", "What its peers could make it hold at most.");
    for term in &terms {
        text.sample("osiris_held_bytes_max", &[("what", term.what)], term.max);
    }
    text.one(
        "osiris_frames_dropped_total",
        "counter",
        "Frames not queued because their peer did not keep up.",
        node.mesh.frames_dropped,
    );
    text.one(
        "osiris_document_rebuilds_total",
        "counter",
        "How often a fork made the document be built again.",
        core.document_rebuilds,
    );
    text.one("osiris_members", "gauge", "Active members of the fleet.", node.members);
    text.one("osiris_connected_peers", "gauge", "Members connected now.", node.connected);
    text.family("osiris_view_info", "gauge", "Hash of the view: equal on nodes that agree.");
    let hash = blake3::Hash::from_bytes(node.view).to_hex();
    text.sample("osiris_view_info", &[("hash", hash.as_str())], 1);
    text.family("osiris_build_info", "gauge", "Version of this build.");
    text.sample("osiris_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
}

fn process(text: &mut Text, node: &NodeGauges) {
    let used = ProcessUse::read();
    text.one("process_resident_memory_bytes", "gauge", "Resident memory of the process.", used.memory_bytes);
    text.one("process_cpu_seconds_total", "counter", "CPU time of the process.", used.cpu.as_secs_f64());
    text.one("osiris_uptime_seconds", "gauge", "Time since the process started.", node.uptime.as_secs_f64());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        let mut text = Text(String::new());
        text.sample("a", &[("l", "q\"b\\n\nü"), ("m", "")], 1.5);
        assert_eq!(text.0, "a{l=\"q\\\"b\\\\n\\nü\",m=\"\"} 1.5\n");
    }
}
