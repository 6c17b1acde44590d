//! Every limit of the driver, in one place.

use std::time::Duration;

use osiris_ledger::limits as ledger;
use osiris_mesh::{limits as mesh, proto::sync::PAGES_MAX};
use osiris_protocol::limits as protocol;

use super::metrics::HeldNow;

/// Connections that one listener keeps open. For one more, the one idle for longest is closed; where
/// none is idle, the new one may only ask for `/healthz` or `/readyz`.
pub const CONNECTIONS_MAX: usize = 1_024;
/// Connections beyond that, of each listener, for one question about health each. Of them too the one
/// that waits for longest gives way.
pub const RESERVED_CONNECTIONS_MAX: usize = 16;
/// Longest wait for the whole head of such a question.
pub const RESERVED_HEAD_TIMEOUT: Duration = Duration::from_secs(2);
/// Connections that wait in the kernel to be accepted.
pub const LISTEN_BACKLOG: u32 = 1_024;
/// Longest wait for a request's whole head, and for the next request on an idle connection.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest head of a request: request line and headers, bytes.
pub const HEAD_BYTES_MAX: usize = 64 << 10;
/// Longest wait for a request's whole body.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// Bodies up to this size are read without asking the budget, bytes. All connections together hold
/// 64 MiB of them at most.
pub const BODY_FREE_BYTES: usize = 64 << 10;
/// Bytes that all larger bodies may take together while they are read and worked on; a request that
/// finds no room is answered with 503.
pub const BODIES_BYTES_MAX: usize = 192 << 20;
/// Largest body of a management request, stored bytes apart, bytes.
pub const MANAGE_BODY_BYTES_MAX: u64 = 1 << 20;
/// Largest body of `POST /v1/blobs`, bytes.
pub const BLOB_BYTES_MAX: u64 = osiris_runtime::limits::COMPONENT_BYTES_MAX;

/// Longest wait for another member's confirmation that a request may ask for.
pub const CONFIRM_TIMEOUT_MAX: Duration = Duration::from_secs(600);
/// The wait where a request does not say.
pub const CONFIRM_TIMEOUT: Duration = Duration::from_secs(5);
/// Log lines given where a request does not say.
pub const LOG_LINES: usize = 100;
/// Most log lines that are given at once.
pub const LOG_LINES_MAX: usize = osiris_runtime::limits::LOG_RING_LINES;
/// Most blocks that are listed at once.
pub const LEDGER_ROWS_MAX: usize = 2_000;

/// Members that one call may try, one after the other; only one of them may start it.
pub const RELAY_TRIES_MAX: usize = 3;
/// How long a call that none of those was reached for or had ready, and none is full, looks for one that it did not know,
/// in all: as long as it takes to hear who took over from a member that drains.
pub const RELAY_LOOK_AGAIN: Duration = Duration::from_millis(500);
/// Round trip that a member is ranked with while none has been measured.
pub const RTT_UNKNOWN: Duration = Duration::from_secs(10);
/// How long a call may take from end to end where its caller does not say. The function's own limit is
/// shorter by default.
pub const CALL_DEADLINE: Duration =
    Duration::from_millis(osiris_protocol::limits::CALL_DEADLINE_MS_MAX as u64);

/// Longest wait of a call for the first replica of a function that is scaled to none. Its caller may give it less.
pub const WAKE_TIMEOUT: Duration = Duration::from_secs(20);
/// Pause between two looks of such a call at the routes.
pub const WAKE_LOOK: Duration = Duration::from_millis(10);
/// Calls of one function that may wait so on one node.
pub const WAKE_CALLS_MAX: u64 = 256;

/// Shortest token that is accepted, characters.
pub const TOKEN_CHARS_MIN: usize = 16;
/// Longest token that is accepted, characters.
pub const TOKEN_CHARS_MAX: usize = 1_024;

/// Pause after a connection could not be accepted, for example because no file descriptor was left.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Bytes of frames that wait for a write to be durable before no more of the mesh is listened to. One event
/// may still add a batch and its answers.
pub const HELD_BYTES_MAX: usize = 16 << 20;

/// Bytes that all components and manifests of a node may take.
pub const LIBRARY_QUOTA_BYTES: u64 = 4 << 30;
/// Largest file of a data folder beside the journal and the library: keys, addresses, confirmed blocks; bytes.
pub const SMALL_FILE_BYTES_MAX: u64 = 16 << 20;
/// Revisions of a function whose bytes are kept to go back to, the newest included.
pub const REVISIONS_KEPT: usize = 3;
/// How long components and manifests that no revision uses any more are kept.
pub const UNUSED_KEPT: Duration = Duration::from_secs(600);
/// Longest wait for running calls when the node is stopped.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest wait for a process that is about to let go of the data folder.
pub const FOLDER_PATIENCE: Duration = Duration::from_millis(300);
/// Longest wait of a node that starts for commands that are using its folder.
pub const START_PATIENCE: Duration = Duration::from_secs(5);
/// How long a device that is given a ticket of its own fleet looks whether it is a member still.
pub const MEMBER_LOOK: Duration = Duration::from_secs(2);
/// Time from the start to the first look at what is to be kept of members' addresses, and removed from the library.
pub const UPKEEP_FIRST: Duration = Duration::from_secs(1);
/// The longest such pause; each is twice as long as the one before.
pub const UPKEEP_INTERVAL: Duration = Duration::from_secs(60);

/// Machines that are made or taken away at once.
pub const PROVISION_PARALLEL_MAX: usize = 4;
/// Longest `terraform init`.
pub const INIT_TIMEOUT: Duration = Duration::from_secs(120);
/// Longest `terraform apply` or `destroy`, and longest removal by label.
pub const APPLY_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// Longest look at what carries a label.
pub const LABEL_TIMEOUT: Duration = Duration::from_secs(20);
/// Time between two looks at which machines are there.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(30);
/// Longest wait for the output of a program that has ended.
pub const OUTPUT_GRACE: Duration = Duration::from_secs(1);
/// Longest wait after SIGTERM for what makes machines to undo itself, before SIGKILL.
pub const PROVISION_GRACE: Duration = Duration::from_secs(20);
/// Bytes of output that are kept of such a program, its last ones; while it writes, twice as many.
pub const OUTPUT_BYTES_MAX: usize = 256 << 10;
/// Largest state of one machine that Terraform may keep, bytes.
pub const STATE_BYTES_MAX: usize = 8 << 20;
/// Largest value of a module's variable, bytes.
pub const VARIABLE_BYTES_MAX: usize = 1 << 10;
/// Largest journal of a join that is taken to have been cut off near its beginning: some thousand blocks.
pub const JOIN_BEGUN_BYTES_MAX: u64 = 1 << 20;

/// One thing that peers can make a node hold in memory, beside the ledger itself: how much of it is held, bytes, and how
/// much may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldTerm {
    /// What it is; the label in `/metrics`, and the row in `docs/attacks.md`.
    pub what: &'static str,
    /// Bytes that are held. What cannot be looked at counts as if all of it were.
    pub held: u64,
    /// Bytes that may be held.
    pub max: u64,
}

/// Everything that so many peers can make a node hold, beside the ledger: admitted blocks are bounded by their authors'
/// budgets. Peers are devices with an open connection; strangers are counted apart, and functions have limits of their
/// own.
#[must_use]
pub fn held_terms(peers: u64, node: &HeldNow, held: &osiris_mesh::MeshHeld) -> [HeldTerm; 13] {
    const FRAME: u64 = mesh::FRAME_BYTES_MAX as u64;
    const WINDOWS: u64 = 2 * mesh::CONNECTION_WINDOW_BYTES as u64;
    const HEAD: u64 = protocol::CALL_HEAD_BYTES_MAX as u64;
    let (early, per_peer) = (ledger::EARLY_BYTES_MAX as u64, |bytes: u64| peers * bytes);
    let term = |what, held, max| HeldTerm { what, held, max };
    let whole = |what, max| HeldTerm { what, held: max, max };
    let connections = (mesh::CONNECTIONS_ACCEPTED_MAX + mesh::CONNECTIONS_DIALLED_MAX) as u64;
    let joins = mesh::JOINS_SERVED_MAX as u64 * (protocol::JOIN_FRAME_BYTES_MAX as u64 + WINDOWS);
    let endings = mesh::ENDED_SERVED_MAX as u64 * (2 * FRAME + WINDOWS);
    let hints = mesh::HINT_KINDS * mesh::HINTS_RECEIVED_MAX * mesh::GOSSIP_MESSAGE_BYTES_MAX;
    let piece = 2 * mesh::BLOB_PIECE_BYTES as u64;
    let states = (ledger::STATES_MAX * ledger::STATE_RECORD_BYTES_MAX) as u64;
    [
        term("early blocks", node.core.early_bytes, early),
        term("replica apart", node.apart_bytes, early + (PAGES_MAX * ledger::PAGE_BYTES_MAX) as u64),
        term("frames to send", held.send_bytes, per_peer(mesh::SEND_BYTES_QUEUED_MAX as u64)),
        term("frames received", held.event_bytes, mesh::EVENTS_BYTES_QUEUED_MAX as u64),
        // A buffer that grows has up to twice the bytes that are in it.
        term("frames being read", held.links * 2 * FRAME, per_peer(2 * FRAME)),
        term("windows of connections", held.connections * WINDOWS, per_peer(connections * WINDOWS)),
        term(
            "calls",
            held.calls * HEAD + held.call_bytes,
            mesh::CALLS_SERVED_MAX as u64 * HEAD + ((mesh::CALL_BODIES_KIB_MAX as u64) << 10),
        ),
        term("answers to calls", held.answer_bytes, (mesh::CALL_ANSWERS_KIB_MAX as u64) << 10),
        term("components being sent", held.blobs * piece, mesh::BLOBS_SERVED_MAX as u64 * piece),
        // One event may add a batch and its answers.
        term("frames behind the disk", node.journal_bytes, HELD_BYTES_MAX as u64 + 3 * FRAME),
        whole("hints received", hints as u64),
        whole("strangers and devices that were members", joins + endings),
        whole("rows of counters and states of machines", per_peer(2 * ledger::ROW_BYTES_MAX as u64) + states),
    ]
}

/// The sum of [`held_terms`]: the most bytes that so many peers can make a node hold beside its ledger.
#[must_use]
pub fn held_bytes_max(peers: u64) -> u64 {
    held_terms(peers, &HeldNow::default(), &osiris_mesh::MeshHeld::default())
        .iter()
        .map(|term| term.max)
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Peers of a small device, in the table of `docs/attacks.md`.
    const SMALL: u64 = 8;

    #[test]
    fn the_table_of_what_is_held_says_what_the_limits_say() {
        let table = include_str!("../../../docs/attacks.md");
        let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
        for term in held_terms(SMALL, &HeldNow::default(), &osiris_mesh::MeshHeld::default()) {
            let row = format!("| {} | {} |", term.what, mib(term.max));
            assert!(table.contains(&row), "docs/attacks.md lacks {row}");
        }
        let sum = format!("| together | {} |", mib(held_bytes_max(SMALL)));
        assert!(table.contains(&sum), "docs/attacks.md lacks {sum}");
        assert!(held_bytes_max(SMALL) < 850 << 20, "a device with 1 GB has room for it");
    }
}
