//! The `wasi:http/incoming-handler` export.

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{
    Fields, IncomingRequest, Method, OutgoingBody, OutgoingResponse, ResponseOutparam,
};
use wasip2::io::streams::StreamError;

use crate::routes::{self, Answer, BODY_BYTES_MAX};

struct Chart;

wasip2::http::proxy::export!(Chart);

impl Guest for Chart {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let method = match request.method() {
            Method::Get => "GET".to_owned(),
            Method::Head => "HEAD".to_owned(),
            Method::Post => "POST".to_owned(),
            Method::Other(name) => name,
            other => format!("{other:?}"),
        };
        let target = request.path_with_query().unwrap_or_default();
        let path = target.split('?').next().unwrap_or_default();
        let answer = routes::answer(&method, path, || read(&request));
        respond(answer, method == "HEAD", out);
    }
}

fn read(request: &IncomingRequest) -> Result<Vec<u8>, String> {
    let gone = |_| "the body cannot be read".to_owned();
    let body = request.consume().map_err(gone)?;
    let stream = body.stream().map_err(gone)?;
    let mut bytes = Vec::new();
    loop {
        match stream.blocking_read(64 << 10) {
            Ok(piece) => bytes.extend_from_slice(&piece),
            Err(StreamError::Closed) => return Ok(bytes),
            Err(StreamError::LastOperationFailed(e)) => return Err(e.to_debug_string()),
        }
        if bytes.len() > BODY_BYTES_MAX {
            return Err("the body is too large".to_owned());
        }
    }
}

fn respond(answer: Answer, head_only: bool, out: ResponseOutparam) {
    let header = |name: &str, value: &str| (name.to_owned(), value.as_bytes().to_vec());
    let mut headers = vec![header("content-type", answer.content_type)];
    headers.extend(answer.allow.map(|allow| header("allow", allow)));
    // These names and values are ours and valid.
    let response = OutgoingResponse::new(Fields::from_list(&headers).unwrap_or_else(|_| Fields::new()));
    // A new response has 200.
    if answer.status != 200 {
        let _ = response.set_status_code(answer.status);
    }
    let Ok(body) = response.body() else { return };
    ResponseOutparam::set(out, Ok(response));
    if !head_only && let Ok(stream) = body.write() {
        for piece in answer.body.as_bytes().chunks(4096) {
            // It fails when the caller is gone; there is nobody left to tell.
            if stream.blocking_write_and_flush(piece).is_err() {
                return;
            }
        }
    }
    let _ = OutgoingBody::finish(body, None);
}
