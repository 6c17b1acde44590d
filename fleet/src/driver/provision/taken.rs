//! Taking away a machine that another member made, by the state that it shared.
//!
//! A state is believed in nothing. It names resources by their ids, and whoever wrote it may have named others': so
//! Terraform reads each of them anew, and unless every one that would be destroyed really carries the machine's name
//! as its label, nothing is done. And a state says what provisioners are told, such as which program to run: so what
//! stands for nothing outside of Terraform is left out of it, with its provisioners.

use serde_json::{Value, json};

/// The label, and where resources bear labels.
const LABEL: &str = "osiris.spawn";
const LABELS: [&str; 3] = ["labels", "tags", "tags_all"];
/// Keys of a state's resources, and of their instances, that are taken over; all others are left out.
const RESOURCE_KEYS: [&str; 7] = ["module", "mode", "type", "name", "each", "provider", "instances"];
const INSTANCE_KEYS: [&str; 10] = [
    "index_key",
    "status",
    "deposed",
    "schema_version",
    "attributes",
    "identity_schema_version",
    "identity",
    "sensitive_attributes",
    "private",
    "dependencies",
];

/// A state that came from elsewhere, written anew with nothing but resources that stand for something outside.
/// Terraform reads names of keys and of providers in more than one spelling, so only the plain one is taken over.
pub(super) fn cleared(state: &[u8]) -> Result<Vec<u8>, String> {
    let unread = || "the shared state is none of Terraform".to_owned();
    let state: Value = serde_json::from_slice(state).map_err(|_| unread())?;
    if state["version"] != 4 {
        return Err("the shared state has an unknown version".to_owned());
    }
    let resources = state.get("resources").and_then(Value::as_array).ok_or_else(unread)?;
    let resources: Vec<_> = resources.iter().filter(|resource| is_outside(resource)).map(plain).collect();
    let has_instances =
        |resource: &Value| resource["instances"].as_array().is_some_and(|all| !all.is_empty());
    // Else Terraform would have nothing to destroy, and the machine would be taken for gone.
    if !resources.iter().any(has_instances) {
        return Err("the state that was shared names nothing outside of Terraform".to_owned());
    }
    let (serial, lineage) =
        (state["serial"].as_u64().unwrap_or(1), state["lineage"].as_str().unwrap_or("osiris"));
    let written = json!({
        "version": 4, "serial": serial, "lineage": lineage, "outputs": {}, "resources": resources,
    });
    serde_json::to_vec(&written).map_err(|_| unread())
}

/// What is built into Terraform, and data, stands for nothing, and would run what the state's author wrote.
fn is_outside(resource: &Value) -> bool {
    let provider = resource["provider"].as_str().unwrap_or_default();
    resource["mode"] == "managed" && resource["type"] != "terraform_data" && is_plain_provider(provider)
}

/// `provider["host/namespace/type"]`, in a module or not, in lower case and without any escape.
fn is_plain_provider(provider: &str) -> bool {
    let named = provider.strip_prefix("module.machine.").unwrap_or(provider);
    let named = named.strip_prefix("provider[\"").and_then(|rest| rest.strip_suffix("\"]"));
    let Some(named) = named else { return false };
    let is_part = |part: &str| {
        let of = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._".contains(&byte);
        !part.is_empty() && part.bytes().all(of)
    };
    let parts: Vec<_> = named.split('/').collect();
    parts.len() == 3 && parts.iter().all(|part| is_part(part)) && parts[0] != "terraform.io"
}

fn plain(resource: &Value) -> Value {
    let only = |value: &Value, keys: &[&str]| {
        let known = keys.iter().filter_map(|key| Some(((*key).to_owned(), value.get(*key)?.clone())));
        Value::Object(known.collect())
    };
    let mut plain = only(resource, &RESOURCE_KEYS);
    let instances = resource["instances"].as_array().into_iter().flatten();
    plain["instances"] = instances.map(|instance| only(instance, &INSTANCE_KEYS)).collect();
    plain
}

/// Whether a plan, as `show -json` gives it, does nothing but destroy what carries a machine's name.
pub(super) fn destroys_only(plan: &str, machine: &str) -> Result<usize, String> {
    let plan: Value = serde_json::from_str(plan.trim())
        .map_err(|_| "its plan cannot be read, or is larger than what is read of it".to_owned())?;
    let none = Vec::new();
    let is_left = |what: &str| plan[what].as_array().is_some_and(|all| !all.is_empty());
    if plan["errored"] == true
        || plan["complete"] == false
        || is_left("deferred_changes")
        || is_left("action_invocations")
    {
        return Err("its plan is not whole, or does more than to destroy".to_owned());
    }
    let changes = plan["resource_changes"].as_array().unwrap_or(&none);
    let mut destroyed = 0;
    for change in changes {
        let address = change["address"].as_str().unwrap_or("a resource");
        let actions: Vec<_> = change["change"]["actions"].as_array().unwrap_or(&none).iter().collect();
        match actions.as_slice() {
            [one] if *one == "no-op" || *one == "read" => {}
            [one] if *one == "delete" => {
                let before = &change["change"]["before"];
                if !LABELS.iter().any(|labels| before[labels][LABEL] == machine) {
                    return Err(format!(
                        "{address} does not carry the label {LABEL}={machine}; nothing was touched"
                    ));
                }
                destroyed += 1;
            }
            _ => return Err(format!("the plan does more to {address} than to destroy it")),
        }
    }
    Ok(destroyed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_state_that_came_from_elsewhere_only_what_is_something_is_left() {
        // Go takes this letter for an s, in keys of JSON.
        let long_s = |key: &str| key.replace('s', "\u{17f}");
        let hcloud = "module.machine.provider[\"registry.terraform.io/hetznercloud/hcloud\"]";
        let resource = |kind: &str, provider: &str| {
            json!({
                "mode": "managed", "type": kind, "name": "machine", "provider": provider, long_s("instances"): [],
                "instances": [{ "attributes": { "id": "1" }, long_s("attributes"): {} }],
            })
        };
        let server = resource("hcloud_server", hcloud);
        let built_in = [
            "module.machine.provider[\"terraform.io/builtin/terraform\"]",
            "module.machine.provider[\"TERRAFORM.io/builtin/terraform\"]",
            "module.machine.provider[\"\\u0074erraform.io/builtin/terraform\"]",
            "module.machine.provider.terraform",
            "provider.terraform",
            "module.other.provider[\"registry.terraform.io/hetznercloud/hcloud\"]",
        ];
        let mut resources: Vec<_> = built_in.iter().map(|provider| resource("x", provider)).collect();
        resources.push(resource("terraform_data", hcloud));
        resources
            .push(json!({ "mode": "data", "type": "x", "name": "y", "provider": hcloud, "instances": [{}] }));
        let state = |resources: &[Value]| {
            let state = json!({
                "version": 4, "serial": 3, "lineage": "a", long_s("resources"): [server], "resources": resources,
            });
            super::cleared(state.to_string().as_bytes())
        };
        let nothing = state(&resources).expect_err("nothing is left");
        assert!(nothing.contains("names nothing"), "{nothing}");
        resources.push(server.clone());
        let cleared: Value = serde_json::from_slice(&state(&resources).expect("a state")).expect("JSON");
        let expected = json!({
            "version": 4, "serial": 3, "lineage": "a", "outputs": {},
            "resources": [{
                "mode": "managed", "type": "hcloud_server", "name": "machine", "provider": hcloud,
                "instances": [{ "attributes": { "id": "1" } }],
            }],
        });
        assert_eq!(cleared, expected);
        for wrong in [
            "",
            "{}",
            "[]",
            r#"{"version":4}"#,
            r#"{"version":5,"resources":[]}"#,
            r#"{"version":4,"resources":{}}"#,
        ] {
            assert!(super::cleared(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_plan_may_destroy_what_bears_the_machines_name_and_nothing_else() {
        let change = |actions: &[&str], before: Value| json!({ "address": "module.machine.x.y", "change": { "actions": actions, "before": before } });
        let says = |changes: Vec<Value>| {
            destroys_only(&json!({ "resource_changes": changes }).to_string(), "m0-1-ab")
        };
        let own = json!({ "name": "m0-1-ab", "labels": { "osiris.spawn": "m0-1-ab" } });
        let tagged = json!({ "tags": { "osiris.spawn": "m0-1-ab", "Name": "x" } });
        assert_eq!(says(vec![change(&["delete"], own.clone()), change(&["delete"], tagged)]), Ok(2));
        assert_eq!(says(vec![change(&["no-op"], json!({}))]), Ok(0));
        assert_eq!(destroys_only("{}", "m0-1-ab"), Ok(0), "it is gone already");
        for foreign in [
            json!({ "name": "m0-1-ab" }),
            json!({ "labels": { "osiris.spawn": "m0-1-abc" } }),
            json!({ "labels": ["m0-1-ab"] }),
            json!({ "labels": { "osiris.spawn": null } }),
            Value::Null,
        ] {
            let said = says(vec![change(&["delete"], own.clone()), change(&["delete"], foreign)]);
            assert!(said.is_err_and(|why| why.contains("does not carry the label")));
        }
        for actions in [&["create"][..], &["update"], &["delete", "create"], &["forget"], &[]] {
            assert!(says(vec![change(actions, own.clone())]).is_err(), "{actions:?}");
        }
        assert!(destroys_only("{\"resource_changes\": [", "m0-1-ab").is_err());
    }
}
