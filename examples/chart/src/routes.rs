//! What each path answers, apart from how requests arrive.

use serde::Serialize;

use crate::chart::{self, Samples};

/// Largest request body that is read, in bytes.
pub const BODY_BYTES_MAX: usize = 4 << 20;

/// One answer.
#[derive(Debug, PartialEq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The `content-type` header.
    pub content_type: &'static str,
    /// The `allow` header, where the method is wrong.
    pub allow: Option<&'static str>,
    /// The body.
    pub body: String,
}

fn json(status: u16, body: String) -> Answer {
    Answer { status, content_type: "application/json", allow: None, body }
}

#[derive(Serialize)]
struct Error<'a> {
    error: &'a str,
}

fn error(status: u16, message: &str) -> Answer {
    // One text always becomes JSON.
    json(status, serde_json::to_string(&Error { error: message }).unwrap_or_default())
}

fn wrong_method(allow: &'static str) -> Answer {
    Answer { allow: Some(allow), ..error(405, &format!("this path answers {allow}")) }
}

/// Answers a request. The body is read only where it is needed.
pub fn answer(method: &str, path: &str, body: impl FnOnce() -> Result<Vec<u8>, String>) -> Answer {
    match (path, method) {
        ("/", "GET" | "HEAD") => json(200, r#"{"hello":"osiris"}"#.to_owned()),
        ("/", _) => wrong_method("GET, HEAD"),
        ("/chart", "POST") => match body().map(|bytes| serde_json::from_slice::<Samples>(&bytes)) {
            Ok(Ok(samples)) => Answer {
                status: 200,
                content_type: "image/svg+xml",
                allow: None,
                body: chart::draw(&samples),
            },
            Ok(Err(e)) => error(400, &format!("the body is not a list of samples: {e}")),
            Err(e) => error(400, &e),
        },
        ("/chart", _) => wrong_method("POST"),
        _ => error(404, "there is nothing here; try GET / or POST /chart"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(method: &str, path: &str, body: &str) -> Answer {
        answer(method, path, || Ok(body.as_bytes().to_vec()))
    }

    #[test]
    fn the_root_greets() {
        let found = answer("GET", "/", || panic!("the body is not needed"));
        assert_eq!((found.status, found.body.as_str()), (200, r#"{"hello":"osiris"}"#));
        assert_eq!((ask("DELETE", "/", "").status, ask("DELETE", "/", "").allow), (405, Some("GET, HEAD")));
    }

    #[test]
    fn samples_become_a_chart_and_anything_else_an_explanation() {
        let found = ask("POST", "/chart", r#"{"samples":[{"cpu_percent":10},{"cpu_percent":90}]}"#);
        assert_eq!((found.status, found.content_type), (200, "image/svg+xml"));
        assert!(found.body.starts_with("<svg"));
        assert_eq!(ask("POST", "/chart", "nonsense").status, 400);
        assert_eq!(ask("GET", "/chart", "").allow, Some("POST"));
        assert_eq!(ask("BREW", "/coffee", "").status, 404);
    }
}
