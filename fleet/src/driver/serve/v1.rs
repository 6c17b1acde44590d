//! The management interface: from requests to [`Manage`] and back.

use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use osiris_ledger::BlockId;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::body::{self, Answer, Lines};
use super::manage::{BlobKind, Logs, Manage};
use super::schema;
use super::table::{Carries, Key, Op, Row, Value as KeyValue};
use crate::driver::answer::{ApiError, json_response};
use crate::driver::limits::CONFIRM_TIMEOUT_MAX;

/// A management request, read and matched.
pub(super) struct Asked<'a> {
    pub(super) row: &'static Row,
    /// What stands in the place of the path's `{…}`.
    pub(super) place: &'a str,
    pub(super) query: Option<&'a str>,
    pub(super) body: Bytes,
}

/// Answers a request of `/v1`.
pub(super) async fn answer(
    manage: &dyn Manage,
    asked: Asked<'_>,
    stop: &tokio_util::sync::CancellationToken,
) -> Result<Response<Answer>, ApiError> {
    let Asked { row, place, body, .. } = asked;
    let query = Query::parse(row.query, asked.query)?;
    if matches!(row.takes, Carries::Nothing) && !matches!(body.trim_ascii(), b"" | b"{}") {
        return Err(ApiError::bad_request("This route takes no body."));
    }
    let name = || place.to_owned();
    let whole = match row.op {
        Op::Status => json(&manage.status().await?),
        Op::Nodes => json(&manage.nodes().await?),
        Op::Functions => json(&manage.functions().await?),
        Op::Backlog => json(&manage.backlog().await?),
        Op::Function => json(&manage.function(name()).await?),
        Op::Store => {
            let kind = if query.number(0) == 0 { BlobKind::Component } else { BlobKind::Manifest };
            json(&manage.store(kind, body).await?)
        }
        Op::Deploy => json(&manage.deploy(parse("Deploy", &body)?).await?),
        Op::Remove => json(&manage.remove(name(), query.millis(0)).await?),
        Op::Logs => {
            let lines = usize::try_from(query.number(0)).unwrap_or(usize::MAX);
            return Ok(logs(manage.logs(name(), lines, query.number(1) == 1).await?, stop));
        }
        Op::Invite => json(&manage.invite(parse("Invite", &body)?).await?),
        Op::Invitations => json(&manage.invitations().await?),
        Op::Withdraw => {
            let id: BlockId = place
                .parse()
                .map_err(|e| ApiError::bad_request(format!("`{place}` does not name an invitation: {e}.")))?;
            json(&manage.withdraw(id, query.millis(0)).await?)
        }
        Op::Ticket => json(&manage.ticket().await?),
        Op::Sync => json(&manage.sync(parse("Sync", &body)?).await?),
        Op::Drain => json(&manage.drain().await?),
        Op::Leave => json(&manage.leave().await?),
        Op::Shutdown => {
            manage.shutdown().await?;
            Ok(json_response("{}"))
        }
        Op::Ledger => json(&manage.ledger(parse("Log", &body)?).await?),
        Op::Verify => json(&manage.verify().await?),
        Op::Doctor => json(&manage.doctor().await?),
        Op::Revoke => json(&manage.revoke(parse("Revoke", &body)?).await?),
        Op::GrantRoles => json(&manage.grant_roles(parse("RoleChange", &body)?).await?),
        Op::RevokeRoles => json(&manage.revoke_roles(parse("RoleChange", &body)?).await?),
        Op::Leases => json(&manage.leases().await?),
        Op::LeaseWant => json(&manage.want_lease(parse("LeaseWant", &body)?).await?),
        Op::LeaseLimit => json(&manage.limit_leases(parse("LeaseLimit", &body)?).await?),
        Op::Voters => json(&manage.voters().await?),
        Op::NameVoters => json(&manage.name_voters(parse("NameVoters", &body)?).await?),
        Op::Scale => {
            let bound = |at| u32::try_from(query.number(at)).unwrap_or(u32::MAX);
            // No function has at most none, so that stands for what was not given.
            let trial = match (bound(0), bound(1)) {
                (0, 0) => None,
                (_, 0) => {
                    return Err(ApiError::bad_request("`min` is given without `max`; give both."));
                }
                both => Some(both),
            };
            json(&manage.scale(trial).await?)
        }
        Op::ScaleBounds => json(&manage.bound(parse("ScaleBounds", &body)?).await?),
        Op::MemberBudget => json(&manage.budget(parse("MemberBudget", &body)?).await?),
        Op::MemberLabels => json(&manage.label(parse("MemberLabels", &body)?).await?),
        Op::Recovery => json(&manage.recovery().await?),
        Op::Recover => json(&manage.recover(parse("Recover", &body)?).await?),
        Op::Whoami => json(&manage.whoami().await?),
        Op::Users => json(&manage.users().await?),
        Op::AddUser => json(&manage.add_user(parse("AddUser", &body)?).await?),
        Op::ChangeUser => json(&manage.change_user(parse("ChangeUser", &body)?).await?),
        Op::RevokeUser => json(&manage.revoke_user(parse("RevokeUser", &body)?).await?),
        Op::UserTicket => {
            let id: BlockId = place
                .parse()
                .map_err(|e| ApiError::bad_request(format!("`{place}` does not name a user: {e}.")))?;
            json(&manage.user_ticket(id).await?)
        }
        Op::Call | Op::CallPath | Op::Health | Op::Ready | Op::Metrics | Op::OpenApi => {
            Err(ApiError::internal("This route does not belong to the management interface."))
        }
    };
    whole.map(Answer::whole)
}

fn json(value: &impl Serialize) -> Result<Response<Bytes>, ApiError> {
    let body = serde_json::to_vec(value);
    body.map(json_response)
        .map_err(|e| ApiError::internal(format!("The answer cannot be written as JSON: {e}.")))
}

fn logs(logs: Logs, stop: &tokio_util::sync::CancellationToken) -> Response<Answer> {
    let (first, kind) = (&logs.lines, "application/x-ndjson");
    match logs.follow {
        None => Answer::whole(body::text(StatusCode::OK, kind, body::lines(first))),
        Some(rows) => {
            let lines = Lines::new(first, rows, stop.clone().cancelled_owned());
            body::text(StatusCode::OK, kind, Bytes::new()).map(|_| Answer::Lines(Box::new(lines)))
        }
    }
}

/// A JSON body of a type of the interface. Fields that it does not have are refused: whoever sends one
/// means something by it.
fn parse<T: DeserializeOwned>(name: &str, body: &[u8]) -> Result<T, ApiError> {
    let not_json = |e: serde_json::Error| ApiError::bad_request(format!("The body is not JSON: {e}."));
    let value: Value = serde_json::from_slice(body).map_err(not_json)?;
    let Value::Object(object) = &value else {
        return Err(ApiError::bad_request("The body must be a JSON object."));
    };
    if let Some(unknown) = object.keys().find(|key| schema::fields(name).all(|field| field != *key)) {
        let known: Vec<_> = schema::fields(name).collect();
        return Err(ApiError::bad_request(format!(
            "The body has an unknown field `{unknown}`; known ones are {}.",
            known.join(", ")
        )));
    }
    let max = CONFIRM_TIMEOUT_MAX.as_millis() as u64;
    if let Some(timeout) = object.get("timeout_ms").and_then(Value::as_u64).filter(|timeout| *timeout > max) {
        return Err(ApiError::bad_request(format!("`timeout_ms` is {timeout}; it may be at most {max}.")));
    }
    // Read again from the text, so that an error says where it is.
    serde_json::from_slice(body).map_err(|e| ApiError::bad_request(format!("The body is not a {name}: {e}.")))
}

/// The values of a query, in the order of the route's keys.
struct Query(Vec<u64>);

impl Query {
    fn parse(keys: &[Key], query: Option<&str>) -> Result<Self, ApiError> {
        let mut values: Vec<Option<u64>> = vec![None; keys.len()];
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, text) = pair.split_once('=').unwrap_or((pair, ""));
            let Some(at) = keys.iter().position(|key| key.name == name) else {
                let known: Vec<_> = keys.iter().map(|key| key.name).collect();
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                return Err(ApiError::bad_request(format!(
                    "The query has an unknown key `{}`; known here: {known}.",
                    name.chars().take(80).collect::<String>()
                )));
            };
            if values[at].replace(value(&keys[at], text)?).is_some() {
                return Err(ApiError::bad_request(format!("The query has the key `{name}` twice.")));
            }
        }
        let default = |key: &Key| match key.value {
            KeyValue::Number { default, .. } => default,
            KeyValue::Flag | KeyValue::Word(_) => 0,
        };
        Ok(Self(keys.iter().zip(values).map(|(key, value)| value.unwrap_or_else(|| default(key))).collect()))
    }

    /// The value of a key: a number as it is, a flag as 0 or 1, a word as its place.
    fn number(&self, at: usize) -> u64 {
        self.0.get(at).copied().unwrap_or_default()
    }

    fn millis(&self, at: usize) -> Duration {
        Duration::from_millis(self.number(at))
    }
}

fn value(key: &Key, text: &str) -> Result<u64, ApiError> {
    let (found, rule) = match key.value {
        KeyValue::Number { max, .. } => {
            (text.parse().ok().filter(|number| *number <= max), format!("a whole number from 0 to {max}"))
        }
        KeyValue::Flag => (
            match text {
                "true" => Some(1),
                "false" => Some(0),
                _ => None,
            },
            "`true` or `false`".to_owned(),
        ),
        KeyValue::Word(words) => {
            (words.iter().position(|word| *word == text).map(|at| at as u64), words.join(" or "))
        }
    };
    found.ok_or_else(|| ApiError::bad_request(format!("The query's `{}` takes {rule}.", key.name)))
}
