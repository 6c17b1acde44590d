//! The JSON types of the interface as JSON schemas, and their fields: a test holds them to the types.

use serde_json::{Map, Value, json};

/// The type of a field.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Text,
    Number,
    Flag,
    Texts,
    TextMap,
    NumberMap,
    /// `all` or a number above zero.
    Replicas,
    One(&'static str),
    Many(&'static str),
}

/// A field: its name, its type, and how it may be absent.
#[derive(Clone, Copy, Debug)]
struct Field(&'static str, Kind, Need);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// It is always there.
    Always,
    /// It may be `null`; a request may leave it out.
    Null,
    /// A request may leave it out.
    Optional,
}

use Kind::{Flag, Many, Number, NumberMap, One, Replicas, Text, TextMap, Texts};
use Need::{Always, Null, Optional};

const fn f(name: &'static str, kind: Kind) -> Field {
    Field(name, kind, Always)
}

/// A type: its name, whether it is a request, and its fields.
type Type = (&'static str, bool, &'static [Field]);

const TYPES: &[Type] = &[
    ("ErrorBody", false, &[f("error", Text), f("message", Text), Field("next", Text, Optional)]),
    (
        "Status",
        false,
        &[
            f("version", Text),
            f("fleet_name", Text),
            f("fleet", Text),
            f("device", Text),
            f("label", Text),
            f("roles", Texts),
            f("state", Text),
            f("data_dir", Text),
            f("uptime_s", Number),
            f("http", Text),
            f("mesh", Texts),
            f("view", Text),
            f("document_heads", Texts),
            f("blocks", Number),
            f("early", Number),
            f("retain", Text),
            f("summaries", Number),
            f("members", Number),
            f("connected", Number),
            f("functions", Number),
            f("unseen", Number),
            f("backlog", Number),
            f("in_flight", Number),
            f("problems", Texts),
        ],
    ),
    (
        "NodeRow",
        false,
        &[
            f("device", Text),
            f("label", Text),
            f("roles", Texts),
            f("labels", Texts),
            f("state", Text),
            Field("rtt_us", Number, Null),
            f("addresses", Texts),
            f("serving", Texts),
            f("draining", Flag),
            f("busy", Flag),
            f("rejected", Number),
            f("reasons", NumberMap),
            f("held_back", Number),
            f("blocks", Number),
            f("budget", Number),
            f("forks", Number),
            f("twin", Flag),
        ],
    ),
    (
        "FunctionRow",
        false,
        &[
            f("name", Text),
            f("state", Text),
            f("world", Text),
            f("revision", Number),
            f("newest", Number),
            f("served_by", Number),
            f("lost", Number),
            f("concurrent", Flag),
            f("backlog", Number),
            f("in_flight", Number),
            f("done", Number),
            f("failed", Number),
        ],
    ),
    (
        "BacklogRow",
        false,
        &[
            f("name", Text),
            f("backlog", Number),
            f("in_flight", Number),
            f("done", Number),
            f("failed", Number),
            f("silent", Number),
            f("nodes", Many("BacklogNodeRow")),
        ],
    ),
    (
        "BacklogNodeRow",
        false,
        &[
            f("node", Text),
            f("device", Text),
            f("backlog", Number),
            f("in_flight", Number),
            f("done", Number),
            f("failed", Number),
            f("age_ms", Number),
        ],
    ),
    (
        "RevisionRow",
        false,
        &[
            f("number", Number),
            f("id", Text),
            f("state", Text),
            f("concurrent", Flag),
            f("component", Text),
            f("size", Number),
            f("by", Text),
            f("wall_ms", Number),
            f("serving", Texts),
        ],
    ),
    (
        "FunctionDetail",
        false,
        &[
            f("function", One("FunctionRow")),
            Field("manifest", One("Manifest"), Null),
            Field("bounds", One("Bounds"), Null),
            Field("problem", Text, Null),
            f("revisions", Many("RevisionRow")),
        ],
    ),
    ("Bounds", false, &[f("min", Number), f("max", Number), f("bounded", Flag)]),
    ("BlobStored", false, &[f("hash", Text), f("size", Number), Field("world", Text, Null)]),
    (
        "LimitKeys",
        true,
        &[
            Field("memory_mib", Number, Optional),
            Field("timeout_ms", Number, Optional),
            Field("concurrency", Number, Optional),
            Field("queue", Number, Optional),
        ],
    ),
    (
        "Manifest",
        true,
        &[
            f("name", Text),
            Field("version", Text, Optional),
            Field("replicas", Replicas, Optional),
            Field("limits", One("LimitKeys"), Optional),
            Field("scale", One("ScaleKeys"), Optional),
            Field("place", One("PlaceKeys"), Optional),
        ],
    ),
    (
        "ScaleKeys",
        true,
        &[
            Field("min", Number, Optional),
            f("max", Number),
            Field("backlog", Number, Optional),
            Field("idle_s", Number, Optional),
            Field("concurrency", Number, Optional),
        ],
    ),
    ("PlaceKeys", true, &[Field("labels", Texts, Optional), Field("spread", Text, Optional)]),
    (
        "Deploy",
        true,
        &[
            f("component", Text),
            f("manifest", One("Manifest")),
            f("timeout_ms", Number),
            Field("wait", Flag, Optional),
        ],
    ),
    ("Written", false, &[f("block", Text), f("seen_by", Number), f("others", Number)]),
    (
        "Deployed",
        false,
        &[
            f("block", Text),
            f("seen_by", Number),
            f("others", Number),
            f("name", Text),
            f("revision", Number),
            f("world", Text),
            f("component_held_by", Number),
            f("live", Flag),
        ],
    ),
    ("LogRow", false, &[f("call", Number), f("stream", Text), f("text", Text)]),
    (
        "Invite",
        true,
        &[
            f("uses", Number),
            f("roles", Texts),
            Field("device", Text, Null),
            f("note", Text),
            f("timeout_ms", Number),
        ],
    ),
    ("Invited", false, &[f("block", Text), f("seen_by", Number), f("others", Number), f("ticket", Text)]),
    (
        "InvitationRow",
        false,
        &[
            f("id", Text),
            f("state", Text),
            f("used", Number),
            f("uses", Number),
            f("surplus", Number),
            f("roles", Texts),
            f("by", Text),
            f("note", Text),
        ],
    ),
    ("TicketReply", false, &[f("ticket", Text)]),
    ("Sync", true, &[f("timeout_ms", Number)]),
    (
        "Synced",
        false,
        &[
            f("others", Number),
            f("connected", Number),
            f("agreed", Number),
            f("unseen", Number),
            f("cut", Number),
            f("void", Texts),
        ],
    ),
    ("Drained", false, &[f("stopped", Number), f("left", Texts)]),
    (
        "Log",
        true,
        &[
            f("limit", Number),
            Field("author", Text, Optional),
            Field("user", Text, Optional),
            Field("function", Text, Optional),
            Field("op", Text, Optional),
            Field("since_ms", Number, Optional),
            Field("until_ms", Number, Optional),
            Field("before", Text, Optional),
            Field("entries", Flag, Optional),
            Field("summaries_only", Flag, Optional),
        ],
    ),
    (
        "BlockRow",
        false,
        &[
            f("id", Text),
            f("depth", Number),
            f("author", Text),
            f("device", Text),
            f("session", Text),
            f("seq", Number),
            f("op", Text),
            f("says", Text),
            Field("wall_ms", Number, Null),
            f("effective", Flag),
            f("void", Text),
            f("grant", Text),
            f("by", Text),
            f("user", Text),
            f("bytes", Number),
            f("entry", Text),
        ],
    ),
    (
        "Verified",
        false,
        &[
            f("blocks", Number),
            f("chains", Number),
            f("view", Text),
            f("components", Number),
            f("problems", Many("Problem")),
        ],
    ),
    ("Problem", false, &[f("what", Text), f("place", One("Place")), f("next", Text)]),
    ("Place", false, &[f("file", Text), Field("record", Number, Null), Field("byte", Number, Null)]),
    (
        "Doctor",
        false,
        &[
            f("facts", TextMap),
            f("problems", Texts),
            f("memory_bytes", Number),
            f("cpu_ms", Number),
            f("written_bytes", Number),
            f("uptime_s", Number),
        ],
    ),
    ("Revoke", true, &[f("device", Text), Field("discard", Flag, Optional), f("timeout_ms", Number)]),
    (
        "Revoked",
        false,
        &[
            f("block", Text),
            f("seen_by", Number),
            f("others", Number),
            f("device", Text),
            f("label", Text),
            f("members_ended", Texts),
            f("functions_ended", Texts),
            f("invitations_withdrawn", Texts),
            f("users_open", Texts),
        ],
    ),
    ("RoleChange", true, &[f("device", Text), f("roles", Texts), f("timeout_ms", Number)]),
    (
        "RolesChanged",
        false,
        &[
            f("block", Text),
            f("seen_by", Number),
            f("others", Number),
            f("device", Text),
            f("label", Text),
            f("roles", Texts),
        ],
    ),
    (
        "Whoami",
        false,
        &[
            f("device", Text),
            f("label", Text),
            f("fleet", Text),
            f("fleet_name", Text),
            f("member", Flag),
            f("roles", Texts),
            f("users", Texts),
            f("grants", Many("GrantRow")),
        ],
    ),
    (
        "GrantRow",
        false,
        &[f("id", Text), f("roles", Texts), f("active", Flag), f("by", Text), f("rank", Text)],
    ),
    (
        "UserRow",
        false,
        &[
            f("id", Text),
            f("name", Text),
            f("key", Text),
            f("roles", Texts),
            f("state", Text),
            f("used", Number),
            f("devices_max", Number),
            f("surplus", Number),
            f("devices", Texts),
            f("by", Text),
        ],
    ),
    (
        "AddUser",
        true,
        &[f("name", Text), f("key", Text), f("roles", Texts), f("devices", Number), f("timeout_ms", Number)],
    ),
    (
        "ChangeUser",
        true,
        &[
            f("id", Text),
            Field("roles", Texts, Optional),
            Field("devices", Number, Optional),
            f("timeout_ms", Number),
        ],
    ),
    (
        "UserKnown",
        false,
        &[
            f("block", Text),
            f("seen_by", Number),
            f("others", Number),
            f("id", Text),
            f("name", Text),
            f("roles", Texts),
            Field("ticket", Text, Null),
        ],
    ),
    (
        "RevokeUser",
        true,
        &[
            f("id", Text),
            Field("keep_devices", Flag, Optional),
            Field("discard", Flag, Optional),
            f("timeout_ms", Number),
        ],
    ),
    (
        "UserRevoked",
        false,
        &[
            f("block", Text),
            f("seen_by", Number),
            f("others", Number),
            f("name", Text),
            f("devices_ended", Texts),
            f("devices_staying", Texts),
            f("functions_ended", Texts),
        ],
    ),
    (
        "Leases",
        false,
        &[
            f("machines_max", Number),
            f("machines_here", Number),
            f("minority", Flag),
            f("voters", Number),
            f("voters_connected", Number),
            f("settle_ms", Number),
            f("expiry_ms", Number),
            f("target", Text),
            f("says", Text),
            f("slots", Many("SlotRow")),
        ],
    ),
    (
        "SlotRow",
        false,
        &[
            f("slot", Number),
            f("round", Number),
            f("state", Text),
            f("by", Texts),
            f("here", Flag),
            f("age_ms", Number),
            f("spend", Text),
            f("machines", Many("MachineRow")),
        ],
    ),
    (
        "MachineRow",
        false,
        &[
            f("intent", Text),
            f("round", Number),
            f("by", Text),
            f("target", Text),
            f("functions", Texts),
            f("counts", Flag),
            f("surplus", Flag),
            f("device", Text),
            f("doing", Text),
        ],
    ),
    ("LeaseWant", true, &[Field("gone", Text, Optional), Field("vouched", Flag, Optional)]),
    (
        "LeaseLimit",
        true,
        &[f("machines", Number), Field("minority", Flag, Optional), f("timeout_ms", Number)],
    ),
    (
        "Voters",
        false,
        &[
            f("block", Text),
            f("founder", Flag),
            f("voters", Many("VoterRow")),
            f("sealed", Number),
            f("proposed", Number),
        ],
    ),
    ("VoterRow", false, &[f("device", Text), f("label", Text), f("able", Flag), f("sealed", Number)]),
    ("NameVoters", true, &[f("devices", Texts), f("timeout_ms", Number)]),
    (
        "Scale",
        false,
        &[
            Field("cpu_percent", Number, Null),
            Field("memory_percent", Number, Null),
            Field("fleet_max", Number, Null),
            f("terms", One("ScaleTerms")),
            f("functions", Many("ScaleRow")),
            f("decisions", Many("ScaleDecision")),
        ],
    ),
    (
        "ScaleInputs",
        false,
        &[
            f("min", Number),
            f("max", Number),
            f("replicas", Number),
            f("ready", Number),
            f("candidates", Number),
            f("free", Number),
            f("backlog", Number),
            f("running", Number),
            f("per_replica", Number),
            f("target_backlog", Number),
            f("idle_s", Number),
            f("others", Number),
            f("rank", Number),
            f("backlog_here", Number),
            Field("fleet_max", Number, Null),
            f("concurrency_here", Number),
            f("concurrency_max_here", Number),
            Field("cpu_here", Number, Null),
            Field("memory_here", Number, Null),
            f("may_claim", Flag),
            Field("wished_ms", Number, Null),
            Field("spare_slot", Number, Null),
            f("waiting_ms", Number),
            f("pressed_ms", Number),
            Field("slack_ms", Number, Null),
            Field("quiet_ms", Number, Null),
            f("unchanged_ms", Number),
            f("patience", Number),
        ],
    ),
    (
        "ScaleTerms",
        false,
        &[
            f("window_ms", Number),
            f("stagger_ms", Number),
            f("age_ms", Number),
            f("cool_up_ms", Number),
            f("cool_down_ms", Number),
            f("start_max_ms", Number),
            f("cpu_high", Number),
            f("memory_high", Number),
            f("use_low", Number),
            f("machine_window_ms", Number),
            f("machine_cool_ms", Number),
            f("machine_idle_ms", Number),
            f("flap_ms", Number),
        ],
    ),
    (
        "ScaleRow",
        false,
        &[
            f("name", Text),
            f("bounded", Flag),
            f("decides", Flag),
            f("inputs", One("ScaleInputs")),
            f("act", Text),
            f("to", Number),
            f("rule", Text),
            f("says", Text),
        ],
    ),
    (
        "ScaleDecision",
        false,
        &[
            f("name", Text),
            f("age_ms", Number),
            f("inputs", One("ScaleInputs")),
            f("act", Text),
            f("to", Number),
            f("rule", Text),
            f("says", Text),
            f("failed", Text),
        ],
    ),
    (
        "ScaleBounds",
        true,
        &[
            Field("name", Text, Null),
            Field("min", Number, Null),
            Field("max", Number, Null),
            f("timeout_ms", Number),
        ],
    ),
    ("MemberBudget", true, &[f("device", Text), f("blocks", Number), f("timeout_ms", Number)]),
    ("MemberLabels", true, &[f("device", Text), f("labels", Texts), f("timeout_ms", Number)]),
    ("Recovery", false, &[f("fleet", Text), f("key", Text), f("device", Text), f("generation", Number)]),
    (
        "Recover",
        true,
        &[f("device", Text), f("generation", Number), f("certificate", Text), f("timeout_ms", Number)],
    ),
    (
        "Recovered",
        false,
        &[
            f("block", Text),
            f("seen_by", Number),
            f("others", Number),
            f("device", Text),
            f("label", Text),
            f("generation", Number),
            f("other_admins", Texts),
        ],
    ),
];

fn find(name: &str) -> Option<&'static Type> {
    TYPES.iter().find(|(known, ..)| *known == name)
}

/// The fields that a request of this type may have.
pub(super) fn fields(name: &str) -> impl Iterator<Item = &'static str> {
    find(name).into_iter().flat_map(|(_, _, fields)| fields.iter().map(|field| field.0))
}

/// A reference to a type.
pub(super) fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// Every type, by name.
pub(super) fn all() -> Map<String, Value> {
    TYPES.iter().map(|of| (of.0.to_owned(), schema(of))).collect()
}

fn schema((_, request, fields): &Type) -> Value {
    let properties: Map<String, Value> =
        fields.iter().map(|field| (field.0.to_owned(), property(field))).collect();
    let required = fields.iter().filter(|field| match field.2 {
        Always => true,
        Null => !request,
        Optional => false,
    });
    let required: Vec<_> = required.map(|field| field.0).collect();
    let mut schema = json!({ "type": "object", "properties": properties, "required": required });
    if *request {
        schema["additionalProperties"] = json!(false);
    }
    schema
}

fn property(Field(_, kind, need): &Field) -> Value {
    let plain = match kind {
        Text => json!({ "type": "string" }),
        Number => json!({ "type": "integer", "minimum": 0 }),
        Flag => json!({ "type": "boolean" }),
        Texts => json!({ "type": "array", "items": { "type": "string" } }),
        TextMap => json!({ "type": "object", "additionalProperties": { "type": "string" } }),
        NumberMap => json!({ "type": "object", "additionalProperties": { "type": "integer" } }),
        Replicas => json!({ "oneOf": [{ "const": "all" }, { "type": "integer", "minimum": 1 }] }),
        One(name) => reference(name),
        Many(name) => json!({ "type": "array", "items": reference(name) }),
    };
    if *need == Null { json!({ "anyOf": [plain, { "type": "null" }] }) } else { plain }
}

#[cfg(test)]
mod tests {
    use serde::Serialize;

    use super::*;
    use crate::api;
    use crate::manifest::{LimitKeys, Manifest, PlaceKeys, ScaleKeys};

    fn full_manifest() -> Manifest {
        let limits =
            LimitKeys { memory_mib: Some(1), timeout_ms: Some(1), concurrency: Some(1), queue: Some(1) };
        let scale =
            Some(ScaleKeys { min: 0, max: 1, backlog: Some(1), idle_s: Some(1), concurrency: Some(1) });
        let place = PlaceKeys { labels: vec!["gpu".to_owned()], spread: Some("zone".to_owned()) };
        Manifest { version: Some("1".to_owned()), limits, scale, place, ..Manifest::named("a") }
    }

    fn check(name: &str, sample: impl Serialize) {
        let sample = serde_json::to_value(sample).expect("JSON");
        let object = sample.as_object().expect("an object");
        let mut known: Vec<_> = fields(name).collect();
        known.sort_unstable();
        let mut keys: Vec<_> = object.keys().map(String::as_str).collect();
        keys.sort_unstable();
        assert_eq!(keys, known, "{name}");
        for Field(field, kind, _) in find(name).expect(name).2 {
            let value = &object[*field];
            let suits = match kind {
                _ if value.is_null() => true,
                Text => value.is_string(),
                Number => value.is_u64(),
                Flag => value.is_boolean(),
                Texts | Many(_) => value.is_array(),
                TextMap | NumberMap | One(_) => value.is_object(),
                Replicas => value.is_string() || value.is_u64(),
            };
            assert!(suits, "{name}.{field} is {value}");
        }
    }

    #[test]
    fn the_schemas_are_those_of_the_types() {
        check("ErrorBody", osiris_protocol::error::ErrorBody::new("a", "b").with_next("c"));
        check("Status", api::Status::default());
        check("NodeRow", api::NodeRow::default());
        check("FunctionRow", api::FunctionRow::default());
        check("BacklogRow", api::BacklogRow::default());
        check("BacklogNodeRow", api::BacklogNodeRow::default());
        check("RevisionRow", api::RevisionRow::default());
        check(
            "FunctionDetail",
            api::FunctionDetail { manifest: Some(full_manifest()), ..Default::default() },
        );
        check("Bounds", api::Bounds::default());
        check("BlobStored", api::BlobStored { hash: String::new(), size: 0, world: None });
        check("LimitKeys", full_manifest().limits);
        check("Manifest", full_manifest());
        check("ScaleKeys", full_manifest().scale);
        check("PlaceKeys", full_manifest().place);
        let deploy =
            api::Deploy { component: String::new(), manifest: full_manifest(), timeout_ms: 0, wait: false };
        check("Deploy", deploy);
        check("Written", api::Written::default());
        check("Deployed", api::Deployed::default());
        check("LogRow", api::LogRow { call: 0, stream: String::new(), text: String::new() });
        check("Invite", api::Invite::default());
        check("Invited", api::Invited::default());
        check("InvitationRow", api::InvitationRow::default());
        check("TicketReply", api::TicketReply { ticket: String::new() });
        check("Sync", api::Sync { timeout_ms: 0 });
        check("Synced", api::Synced::default());
        check("Drained", api::Drained::default());
        check("BlockRow", api::BlockRow::default());
        check("Verified", api::Verified::default());
        check("Problem", api::Problem::default());
        check("Place", api::Place::default());
        check("Doctor", api::Doctor::default());
        check("Revoke", api::Revoke::default());
        check("Revoked", api::Revoked::default());
        check("RoleChange", api::RoleChange::default());
        check("RolesChanged", api::RolesChanged::default());
        check("Log", api::Log::default());
        check("Whoami", api::Whoami::default());
        check("GrantRow", api::GrantRow::default());
        check("UserRow", api::UserRow::default());
        check("AddUser", api::AddUser::default());
        check("ChangeUser", api::ChangeUser::default());
        check("UserKnown", api::UserKnown::default());
        check("RevokeUser", api::RevokeUser::default());
        check("UserRevoked", api::UserRevoked::default());
        check("Leases", api::Leases::default());
        check("SlotRow", api::SlotRow::default());
        check("MachineRow", api::MachineRow::default());
        check("LeaseLimit", api::LeaseLimit::default());
        check("LeaseWant", api::LeaseWant::default());
        check("Voters", api::Voters::default());
        check("VoterRow", api::VoterRow::default());
        check("NameVoters", api::NameVoters::default());
        check("Scale", api::Scale::default());
        check("ScaleInputs", api::ScaleInputs::default());
        check("ScaleTerms", api::ScaleTerms::default());
        check("ScaleRow", api::ScaleRow::default());
        check("ScaleDecision", api::ScaleDecision::default());
        check("ScaleBounds", api::ScaleBounds::default());
        check("MemberBudget", api::MemberBudget::default());
        check("MemberLabels", api::MemberLabels::default());
        check("Recovery", api::Recovery::default());
        check("Recover", api::Recover::default());
        check("Recovered", api::Recovered::default());
        assert_eq!(TYPES.len(), 62, "a type has no check here");
    }
}
