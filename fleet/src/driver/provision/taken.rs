//! Taking away a machine that another member made, by the state that it shared.
//!
//! A state is believed in nothing. It names resources by their ids, and whoever wrote it may have named others': so
//! Terraform reads each of them anew, and unless every one that would be destroyed really carries the machine's name
//! as its label, nothing is done. And a state says what provisioners are told, such as which program to run: so what
//! stands for nothing outside of Terraform is left out of it, with its provisioners.

use serde_json::Value;

/// The label, and where resources bear labels.
const LABEL: &str = "osiris.spawn";
const LABELS: [&str; 3] = ["labels", "tags", "tags_all"];
/// The provider that is built into Terraform and OpenTofu: `terraform_data`, and no thing outside.
const BUILT_IN: &str = "terraform.io/builtin/terraform";

/// The state of another member's machine without what stands for nothing outside.
pub(super) fn cleared(state: &[u8]) -> Result<Vec<u8>, String> {
    let unread = || "the shared state is none of Terraform".to_owned();
    let mut state: Value = serde_json::from_slice(state).map_err(|_| unread())?;
    if state["version"] != 4 {
        return Err("the shared state has an unknown version".to_owned());
    }
    let resources = state.get_mut("resources").and_then(Value::as_array_mut).ok_or_else(unread)?;
    resources.retain(|resource| {
        let provider = resource["provider"].as_str().unwrap_or_default();
        let is_data = resource["mode"] == "data";
        !is_data && !provider.contains(BUILT_IN)
    });
    serde_json::to_vec(&state).map_err(|_| unread())
}

/// Whether a plan, as `show -json` gives it, does nothing but destroy what carries a machine's name.
pub(super) fn destroys_only(plan: &str, machine: &str) -> Result<usize, String> {
    let plan: Value = serde_json::from_str(plan.trim())
        .map_err(|_| "its plan cannot be read, or is larger than what is read of it".to_owned())?;
    let none = Vec::new();
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
    use serde_json::json;

    use super::*;

    #[test]
    fn of_a_state_that_came_from_elsewhere_only_what_is_something_is_left() {
        let state = json!({
            "version": 4, "serial": 3, "lineage": "a",
            "resources": [
                { "mode": "managed", "type": "terraform_data", "name": "machine", "instances": [],
                  "provider": "module.machine.provider[\"terraform.io/builtin/terraform\"]" },
                { "mode": "data", "type": "x", "name": "y", "provider": "provider[\"a/b/c\"]", "instances": [] },
                { "mode": "managed", "type": "hcloud_server", "name": "machine", "instances": [],
                  "provider": "module.machine.provider[\"registry.terraform.io/hetznercloud/hcloud\"]" },
            ],
        });
        let cleared: Value =
            serde_json::from_slice(&cleared(state.to_string().as_bytes()).expect("a state")).expect("JSON");
        let left: Vec<_> =
            cleared["resources"].as_array().expect("some").iter().map(|r| &r["type"]).collect();
        assert_eq!(left, ["hcloud_server"]);
        assert_eq!((&cleared["serial"], &cleared["lineage"]), (&json!(3), &json!("a")));
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
