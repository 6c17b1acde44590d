//! Every limit of the client, in one place. Those of calls are in [`osiris_protocol::limits`].

use std::time::Duration;

/// Most nodes that one client uses.
pub const NODES_MAX: usize = 16;
/// Connections kept: the nearest, and others to fall over to.
pub const CONNECTIONS_KEPT: usize = 3;
/// How long connecting to one node may take.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(4);
/// After the first node has answered, the others get as long again, and at least this long.
pub const OTHERS_WAIT_MIN: Duration = Duration::from_millis(20);
/// Time between keep-alives on an idle connection.
pub const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// Silence after which a node counts as gone.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long closing may take.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
