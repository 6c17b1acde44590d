//! Every route of the two interfaces, once: requests are matched against this table and the OpenAPI
//! document is made of it.

use osiris_ledger::limits::REPLICAS_MAX;

use crate::api::codes;
use crate::driver::limits::{CONFIRM_TIMEOUT, CONFIRM_TIMEOUT_MAX, LOG_LINES, LOG_LINES_MAX};

/// What a route does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Op {
    Call,
    CallPath,
    Health,
    Ready,
    Metrics,
    OpenApi,
    Status,
    Nodes,
    Functions,
    Backlog,
    Function,
    Store,
    Deploy,
    Remove,
    Logs,
    Invite,
    Invitations,
    Withdraw,
    Ticket,
    Sync,
    Drain,
    Leave,
    Shutdown,
    Ledger,
    Verify,
    Doctor,
    Revoke,
    GrantRoles,
    RevokeRoles,
    Leases,
    LeaseLimit,
    Voters,
    NameVoters,
    Scale,
    ScaleBounds,
    MemberLabels,
    MemberBudget,
    LeaseWant,
    Recovery,
    Recover,
    Whoami,
    Users,
    AddUser,
    ChangeUser,
    RevokeUser,
    UserTicket,
}

/// Where a route is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum On {
    /// TCP and the Unix socket.
    Both,
    /// The Unix socket only.
    Unix,
}

/// A key of a query.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) says: &'static str,
    pub(super) value: Value,
}

/// What a key of a query takes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value {
    /// A whole number up to `max`.
    Number { default: u64, max: u64 },
    /// `true` or `false`, by default `false`.
    Flag,
    /// One of these words, by default the first.
    Word(&'static [&'static str]),
}

/// What a request or an answer carries.
#[derive(Clone, Copy, Debug)]
pub(super) enum Carries {
    /// Nothing; an empty JSON object does no harm.
    Nothing,
    /// An empty JSON object.
    EmptyObject,
    /// JSON of a type of the interface.
    Json(&'static str),
    /// A JSON array of them.
    Rows(&'static str),
    /// One JSON object a line.
    Lines(&'static str),
    /// Plain text.
    Text,
    /// Bytes as they are.
    Bytes,
    /// A JSON document of any shape.
    AnyJson,
    /// What the function takes or gives.
    Function,
}

/// A route.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) op: Op,
    /// `*`: any method.
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) on: On,
    pub(super) says: &'static str,
    pub(super) query: &'static [Key],
    pub(super) takes: Carries,
    pub(super) gives: Carries,
    pub(super) errors: &'static [(&'static str, u16)],
}

const BAD: (&str, u16) = codes::BAD_REQUEST;
const MISSING: (&str, u16) = codes::NOT_FOUND;
const LARGE: (&str, u16) = codes::TOO_LARGE;
const BUSY: (&str, u16) = codes::UNAVAILABLE;
const FAULT: (&str, u16) = codes::INTERNAL;
const STATE: (&str, u16) = codes::CONFLICT;
const FULL: (&str, u16) = codes::STORAGE;
const DENIED: (&str, u16) = codes::DENIED;

const READ: &[(&str, u16)] = &[BAD, FAULT];
const FIND: &[(&str, u16)] = &[BAD, MISSING, FAULT];
const WRITE: &[(&str, u16)] = &[BAD, DENIED, MISSING, STATE, LARGE, FAULT, BUSY, FULL];
const CALLS: &[(&str, u16)] =
    &[BAD, MISSING, codes::METHOD, LARGE, codes::FUNCTION_ERROR, codes::FAILED, BUSY, codes::TIMEOUT];

const CONFIRM: &[Key] = &[Key {
    name: "timeout_ms",
    says: "How long to wait for another member to confirm, in milliseconds.",
    value: Value::Number {
        default: CONFIRM_TIMEOUT.as_millis() as u64,
        max: CONFIRM_TIMEOUT_MAX.as_millis() as u64,
    },
}];
const LOGS: &[Key] = &[
    Key {
        name: "lines",
        says: "How many of the last lines.",
        value: Value::Number { default: LOG_LINES as u64, max: LOG_LINES_MAX as u64 },
    },
    Key { name: "follow", says: "Also those that follow, until the caller goes away.", value: Value::Flag },
];
const TRIAL: &[Key] = &[
    Key {
        name: "min",
        says: "As if each function by itself had at least so many replicas; with `max`.",
        value: Value::Number { default: 0, max: REPLICAS_MAX as u64 },
    },
    Key {
        name: "max",
        says: "As if each function by itself had at most so many; 0: the bounds that there are.",
        value: Value::Number { default: 0, max: REPLICAS_MAX as u64 },
    },
];
const KIND: &[Key] =
    &[Key { name: "kind", says: "What the bytes are.", value: Value::Word(&["component", "manifest"]) }];

const fn row(
    op: Op,
    method: &'static str,
    path: &'static str,
    says: &'static str,
    gives: Carries,
    errors: &'static [(&'static str, u16)],
) -> Row {
    Row { op, method, path, on: On::Unix, says, query: &[], takes: Carries::Nothing, gives, errors }
}

const fn both(row: Row) -> Row {
    Row { on: On::Both, ..row }
}

const fn takes(takes: Carries, row: Row) -> Row {
    Row { takes, ..row }
}

const fn query(query: &'static [Key], row: Row) -> Row {
    Row { query, ..row }
}

use Carries::{AnyJson, Bytes, EmptyObject, Function, Json, Lines, Rows, Text};

/// The routes.
pub(super) const TABLE: &[Row] = &[
    both(takes(
        Function,
        row(
            Op::Call,
            "*",
            "/function/{name}",
            "Calls a function; a native one by POST with JSON.",
            Function,
            CALLS,
        ),
    )),
    both(takes(
        Function,
        row(
            Op::CallPath,
            "*",
            "/function/{name}/{path}",
            "Calls a function below its path.",
            Function,
            CALLS,
        ),
    )),
    both(row(Op::Health, "GET", "/healthz", "Whether the process is alive. It needs no token.", Text, &[])),
    both(row(Op::Ready, "GET", "/readyz", "Whether the node takes calls.", Text, &[BUSY])),
    both(row(Op::Metrics, "GET", "/metrics", "Figures for Prometheus.", Text, &[])),
    both(row(Op::OpenApi, "GET", "/openapi.json", "This document.", AnyJson, &[])),
    row(Op::Status, "GET", "/v1/status", "The node and its replica.", Json("Status"), READ),
    row(Op::Nodes, "GET", "/v1/nodes", "The members.", Rows("NodeRow"), READ),
    row(Op::Functions, "GET", "/v1/functions", "The functions.", Rows("FunctionRow"), READ),
    row(Op::Backlog, "GET", "/v1/backlog", "What waits and runs on all members.", Rows("BacklogRow"), READ),
    row(Op::Function, "GET", "/v1/functions/{name}", "One function.", Json("FunctionDetail"), FIND),
    query(
        KIND,
        takes(
            Bytes,
            row(
                Op::Store,
                "POST",
                "/v1/blobs",
                "Stores a component or a manifest.",
                Json("BlobStored"),
                WRITE,
            ),
        ),
    ),
    takes(
        Json("Deploy"),
        row(Op::Deploy, "POST", "/v1/functions", "Deploys stored bytes.", Json("Deployed"), WRITE),
    ),
    query(
        CONFIRM,
        row(Op::Remove, "DELETE", "/v1/functions/{name}", "Removes a function.", Json("Written"), WRITE),
    ),
    query(
        LOGS,
        row(
            Op::Logs,
            "GET",
            "/v1/functions/{name}/logs",
            "What a function printed here.",
            Lines("LogRow"),
            FIND,
        ),
    ),
    takes(
        Json("Invite"),
        row(Op::Invite, "POST", "/v1/invitations", "Invites devices.", Json("Invited"), WRITE),
    ),
    row(Op::Invitations, "GET", "/v1/invitations", "The invitations.", Rows("InvitationRow"), READ),
    query(
        CONFIRM,
        row(
            Op::Withdraw,
            "DELETE",
            "/v1/invitations/{id}",
            "Withdraws an invitation.",
            Json("Written"),
            WRITE,
        ),
    ),
    row(Op::Ticket, "GET", "/v1/ticket", "A ticket to dial this node with.", Json("TicketReply"), READ),
    takes(
        Json("Sync"),
        row(Op::Sync, "POST", "/v1/sync", "Asks for contact with other members.", Json("Synced"), READ),
    ),
    row(
        Op::Drain,
        "POST",
        "/v1/drain",
        "Has other nodes take over what this one serves; answers when nothing runs here.",
        Json("Drained"),
        READ,
    ),
    row(Op::Leave, "POST", "/v1/leave", "Leaves the fleet.", Json("Written"), WRITE),
    row(Op::Shutdown, "POST", "/v1/shutdown", "Drains and ends the node.", EmptyObject, READ),
    takes(
        Json("Log"),
        row(Op::Ledger, "POST", "/v1/ledger/log", "The newest blocks that fit.", Rows("BlockRow"), FIND),
    ),
    row(Op::Verify, "GET", "/v1/ledger/verify", "Checks everything again.", Json("Verified"), READ),
    row(Op::Doctor, "GET", "/v1/doctor", "What the node finds out about itself.", Json("Doctor"), READ),
    takes(
        Json("Revoke"),
        row(
            Op::Revoke,
            "POST",
            "/v1/members/revoke",
            "Ends another device's membership.",
            Json("Revoked"),
            WRITE,
        ),
    ),
    takes(
        Json("RoleChange"),
        row(
            Op::GrantRoles,
            "POST",
            "/v1/roles/grant",
            "Gives roles to a member.",
            Json("RolesChanged"),
            WRITE,
        ),
    ),
    takes(
        Json("RoleChange"),
        row(
            Op::RevokeRoles,
            "POST",
            "/v1/roles/revoke",
            "Takes roles from a member.",
            Json("RolesChanged"),
            WRITE,
        ),
    ),
    row(Op::Leases, "GET", "/v1/leases", "Slots for machines.", Json("Leases"), READ),
    takes(
        Json("LeaseLimit"),
        row(
            Op::LeaseLimit,
            "POST",
            "/v1/leases/limit",
            "Says how many machines the fleet may make.",
            Json("Written"),
            WRITE,
        ),
    ),
    row(Op::Voters, "GET", "/v1/voters", "Who seals pages of summaries.", Json("Voters"), READ),
    takes(
        Json("NameVoters"),
        row(
            Op::NameVoters,
            "POST",
            "/v1/voters",
            "Says who seals pages from now on.",
            Json("Written"),
            WRITE,
        ),
    ),
    query(
        TRIAL,
        row(Op::Scale, "GET", "/v1/scale", "Replicas of scaled functions, and why.", Json("Scale"), READ),
    ),
    takes(
        Json("ScaleBounds"),
        row(
            Op::ScaleBounds,
            "POST",
            "/v1/scale",
            "Says how many replicas a function may have.",
            Json("Written"),
            WRITE,
        ),
    ),
    takes(
        Json("MemberLabels"),
        row(
            Op::MemberLabels,
            "POST",
            "/v1/members/labels",
            "Says which labels a member bears.",
            Json("Written"),
            WRITE,
        ),
    ),
    takes(
        Json("MemberBudget"),
        row(
            Op::MemberBudget,
            "POST",
            "/v1/members/budget",
            "Says how many blocks a member may write.",
            Json("Written"),
            WRITE,
        ),
    ),
    takes(
        Json("LeaseWant"),
        row(
            Op::LeaseWant,
            "POST",
            "/v1/leases/want",
            "Asks for one more machine, or for one to be gone.",
            Json("Leases"),
            WRITE,
        ),
    ),
    row(Op::Recovery, "GET", "/v1/recovery", "What the recovery key has to sign.", Json("Recovery"), WRITE),
    takes(
        Json("Recover"),
        row(
            Op::Recover,
            "POST",
            "/v1/recovery",
            "Makes a device an admin by the recovery key's word.",
            Json("Recovered"),
            WRITE,
        ),
    ),
    row(Op::Whoami, "GET", "/v1/whoami", "This device, as the fleet knows it.", Json("Whoami"), READ),
    row(Op::Users, "GET", "/v1/users", "The users.", Rows("UserRow"), READ),
    takes(
        Json("AddUser"),
        row(Op::AddUser, "POST", "/v1/users", "Makes a person known.", Json("UserKnown"), WRITE),
    ),
    takes(
        Json("ChangeUser"),
        row(
            Op::ChangeUser,
            "POST",
            "/v1/users/change",
            "Makes a person known again, by the same key.",
            Json("UserKnown"),
            WRITE,
        ),
    ),
    takes(
        Json("RevokeUser"),
        row(Op::RevokeUser, "POST", "/v1/users/revoke", "Ends a user.", Json("UserRevoked"), WRITE),
    ),
    row(
        Op::UserTicket,
        "GET",
        "/v1/users/{id}/ticket",
        "A ticket to join with as this user.",
        Json("TicketReply"),
        WRITE,
    ),
];

/// What a path and a method stand for.
#[derive(Debug)]
pub(super) enum Found<'a> {
    /// A route, and what stands in the place of its `{…}`.
    Route(&'static Row, &'a str),
    /// The path is known by other methods.
    Method(&'static str),
    /// Neither.
    Nothing,
}

/// Finds the route of a request. Calls of functions are told by their prefix before.
pub(super) fn find<'a>(method: &str, path: &'a str) -> Found<'a> {
    let mut other = None;
    for row in TABLE {
        let Some(place) = matches(row.path, path) else { continue };
        if row.method == "*" || row.method == method {
            return Found::Route(row, place);
        }
        other = Some(match other {
            None => row.method,
            Some(_) if path.starts_with("/v1/functions/") => "GET, DELETE",
            Some(_) => "GET, POST",
        });
    }
    other.map_or(Found::Nothing, Found::Method)
}

/// What stands in the place of the template's `{…}`, `""` where it has none.
fn matches<'a>(template: &str, path: &'a str) -> Option<&'a str> {
    let Some((before, rest)) = template.split_once('{') else {
        return (template == path).then_some("");
    };
    let (_, after) = rest.split_once('}')?;
    let place = path.strip_prefix(before)?.strip_suffix(after)?;
    (!place.is_empty() && !place.contains('/')).then_some(place)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_route_is_found_by_its_own_path() {
        let mut ops = BTreeSet::new();
        for row in TABLE {
            assert!(ops.insert(row.op), "{:?} stands twice", row.op);
            if matches!(row.op, Op::Call | Op::CallPath) {
                continue;
            }
            let path = row.path.replace("{name}", "a-1").replace("{id}", "a-1");
            let Found::Route(found, place) = find(row.method, &path) else { panic!("{path} is not found") };
            assert_eq!(found.op, row.op);
            assert_eq!(place, if path == row.path { "" } else { "a-1" });
            assert!(matches!(find("PATCH", &path), Found::Method(_)));
        }
        assert_eq!(ops.last(), Some(&Op::UserTicket));
        assert_eq!(ops.len(), Op::UserTicket as usize + 1, "a route is missing in the table");
        for unknown in
            ["/", "/v1", "/v1/", "/v1/functions/", "/v1/functions/a/b", "/v1/functions/a/b/logs", "/metrics/"]
        {
            assert!(matches!(find("GET", unknown), Found::Nothing), "{unknown}");
        }
        assert!(matches!(find("PUT", "/v1/functions"), Found::Method("GET, POST")));
        assert!(matches!(find("PUT", "/v1/functions/a"), Found::Method("GET, DELETE")));
    }
}
