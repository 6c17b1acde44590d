//! `/openapi.json`: OpenAPI 3.1, made of the table of routes and of the schemas.

use serde_json::{Map, Value, json};

use super::schema;
use super::table::{Carries, Key, On, Op, Row, TABLE, Value as KeyValue};
use crate::api::codes;

/// Methods that a function of the http world may be called by, as OpenAPI spells them.
const ANY: [&str; 7] = ["get", "put", "post", "delete", "options", "head", "patch"];

/// The document.
pub(super) fn document() -> Value {
    let mut paths = Map::new();
    for row in TABLE {
        let path = paths.entry(row.path).or_insert_with(|| json!({}));
        let methods = if row.method == "*" { ANY.to_vec() } else { vec![row.method] };
        for method in methods {
            path[method.to_ascii_lowercase()] = operation(row, method);
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Osiris node",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Calls of functions are answered over TCP and on the node's Unix socket. The \
                management interface, /v1, answers on the Unix socket only. Over TCP the request's Host must \
                be a loopback name and pages of other sites are refused (403); where the node has a token \
                file, every path but /healthz asks for the token (401).",
        },
        "paths": paths,
        "components": {
            "schemas": schema::all(),
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
        },
    })
}

fn operation(row: &Row, method: &str) -> Value {
    let mut responses = Map::new();
    responses.insert("200".to_owned(), answer(row));
    for (code, status) in row.errors {
        responses.insert(status.to_string(), error(code));
    }
    let mut operation = json!({
        "operationId": operation_id(row, method),
        "summary": row.says,
        "tags": [match row.op {
            Op::Call | Op::CallPath => "call",
            _ if row.on == On::Both => "node",
            _ => "manage",
        }],
        "x-osiris-transport": match row.on {
            On::Both => vec!["tcp", "unix"],
            On::Unix => vec!["unix"],
        },
        "parameters": parameters(row),
    });
    if row.on == On::Both {
        responses.insert(codes::DENIED.1.to_string(), error(codes::DENIED.0));
        if row.op != Op::Health {
            responses.insert(codes::UNAUTHORIZED.1.to_string(), error(codes::UNAUTHORIZED.0));
            operation["security"] = json!([{}, { "token": [] }]);
        }
    }
    let bodiless = matches!(method, "get" | "head" | "options");
    if let Some(content) = content(row.takes).filter(|_| !bodiless) {
        let required = !matches!(row.takes, Carries::Function);
        operation["requestBody"] = json!({ "required": required, "content": content });
    }
    operation["responses"] = Value::Object(responses);
    operation
}

fn operation_id(row: &Row, method: &str) -> String {
    let op = format!("{:?}", row.op);
    let id = op[..1].to_ascii_lowercase() + &op[1..];
    if row.method == "*" { format!("{id}_{method}") } else { id }
}

fn error(code: &str) -> Value {
    json!({
        "description": code,
        "content": { "application/json": { "schema": schema::reference("ErrorBody") } },
    })
}

fn answer(row: &Row) -> Value {
    let mut answer = json!({ "description": row.says });
    if let Some(content) = content(row.gives) {
        answer["content"] = content;
    }
    if matches!(row.gives, Carries::Function) {
        let text = json!({ "schema": { "type": "string" } });
        answer["headers"] = json!({
            "x-osiris-node": text, "x-osiris-revision": text, "x-osiris-relayed": text,
        });
    }
    answer
}

fn content(carries: Carries) -> Option<Value> {
    Some(match carries {
        Carries::Nothing => return None,
        Carries::EmptyObject => {
            json!({ "application/json": { "schema": { "type": "object", "maxProperties": 0 } } })
        }
        Carries::Json(name) => json!({ "application/json": { "schema": schema::reference(name) } }),
        Carries::Rows(name) => {
            json!({ "application/json": { "schema": { "type": "array", "items": schema::reference(name) } } })
        }
        Carries::Lines(name) => json!({ "application/x-ndjson": { "schema": schema::reference(name) } }),
        Carries::Text => json!({ "text/plain": { "schema": { "type": "string" } } }),
        Carries::Bytes => json!({ "application/octet-stream": {} }),
        Carries::AnyJson => json!({ "application/json": {} }),
        Carries::Function => json!({ "application/json": {}, "*/*": {} }),
    })
}

fn parameters(row: &Row) -> Vec<Value> {
    let places = row.path.split('{').skip(1).filter_map(|rest| rest.split_once('}'));
    let in_path = places.map(
        |(name, _)| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }),
    );
    in_path.chain(row.query.iter().map(parameter)).collect()
}

fn parameter(key: &Key) -> Value {
    let schema = match key.value {
        KeyValue::Number { default, max } => {
            json!({ "type": "integer", "minimum": 0, "maximum": max, "default": default })
        }
        KeyValue::Flag => json!({ "type": "boolean", "default": false }),
        KeyValue::Word(words) => json!({ "type": "string", "enum": words, "default": words[0] }),
    };
    json!({ "name": key.name, "in": "query", "description": key.says, "required": false, "schema": schema })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Every `$ref` below a value.
    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(map) => {
                if let Some(Value::String(to)) = map.get("$ref") {
                    found.insert(to.clone());
                }
                map.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }

    #[test]
    fn the_document_has_every_route_and_nothing_else() {
        let document = document();
        let mut described = 0;
        let mut ids = BTreeSet::new();
        for row in TABLE {
            let methods = if row.method == "*" { ANY.to_vec() } else { vec![row.method] };
            for method in methods {
                let operation = &document["paths"][row.path][method.to_ascii_lowercase()];
                assert_eq!(operation["summary"], row.says, "{method} {}", row.path);
                for (_, status) in row.errors {
                    assert!(operation["responses"][status.to_string()].is_object());
                }
                let params = operation["parameters"].as_array().expect("a list");
                assert_eq!(params.len(), row.query.len() + row.path.matches('{').count());
                assert!(ids.insert(operation["operationId"].to_string()), "an operationId stands twice");
                described += 1;
            }
        }
        let paths = document["paths"].as_object().expect("paths");
        assert_eq!(paths.values().map(|path| path.as_object().map_or(0, Map::len)).sum::<usize>(), described);
    }

    #[test]
    fn every_reference_leads_to_a_schema() {
        let document = document();
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        for reference in &found {
            let pointer = reference.strip_prefix('#').expect("a local reference");
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
        assert!(found.len() > 15);
    }
}
