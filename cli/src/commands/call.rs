//! `osiris call`.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use osiris_fleet::api::{FunctionDetail, NOT_A_MEMBER, Status};
use osiris_protocol::call::CallRequest;
use osiris_protocol::error::ErrorBody;
use osiris_protocol::limits::{CALL_BODY_BYTES_MAX, CALL_DEADLINE_MS_MAX};

use crate::args::CallArgs;
use crate::backend::Backend;
use crate::client::{Answer, Client, Patience, refusal};
use crate::config::Settings;
use crate::exit::{Exit, Failure};
use crate::input;
use crate::output::{Format, Out, human, progress::Progress};
use crate::replica::{self, Replica};

pub(crate) async fn run(args: &CallArgs, settings: &Settings, out: Out) -> Result<Exit, Failure> {
    // What is read counts, too: a pipe may be slow.
    let patience = Patience::exactly(args.timeout);
    let body = args.body.as_deref().map(|body| read(body, args.timeout)).transpose()?;
    let request = Request::new(args, body)?;
    let answer = match Backend::open_to_call(settings, patience).await? {
        Backend::Node(client) => call(&client, args, request).await?,
        Backend::Replica(mut replica) => {
            let heard = known(&mut replica, &args.name).await;
            // It may have been deployed since this device last met another.
            if heard.is_err_and(|failure| failure.exit == Exit::NotFound) && replica.offline.is_sound() {
                replica = Box::new(replica.after_meeting(settings).await?);
            }
            match far(&mut replica, args, request).await {
                // Members turn away whom they know to be none. One of them can tell why.
                Err(failure) if failure.node_gone => {
                    drop(replica);
                    return Err(replica::ended(settings, patience).await.unwrap_or(failure));
                }
                answer => answer?,
            }
        }
    };
    let exit = Exit::of_status(answer.status);
    let failure = (exit != Exit::Done).then(|| refusal(&answer));
    // What the node says of an error is said on stderr; what the function says is its answer.
    if failure.is_none() || !says_node(&answer) {
        print(&answer, out)?;
    }
    failure.map_or(Ok(exit), Err)
}

/// What is to be sent.
struct Request {
    method: Option<Method>,
    path: String,
    body: Option<Vec<u8>>,
    /// Whether the command line says that it is for an http function.
    is_http: bool,
    /// Why the body is not JSON.
    not_json: Option<String>,
}

impl Request {
    fn new(args: &CallArgs, body: Option<Vec<u8>>) -> Result<Self, Failure> {
        let method = match &args.method {
            None => None,
            Some(text) => Some(Method::from_bytes(text.to_ascii_uppercase().as_bytes()).map_err(|_| {
                Failure::usage(format!("`{text}` is no method.")).next("give GET, POST, PUT, PATCH or DELETE")
            })?),
        };
        let path = match args.path.as_deref() {
            None => String::new(),
            Some(path) if path.starts_with(['/', '?']) => path.to_owned(),
            Some(path) => format!("/{path}"),
        };
        if !path.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Failure::usage("The path has characters that a URL cannot have.")
                .next("escape them: a space is %20"));
        }
        let not_json = body.as_deref().and_then(|body| {
            serde_json::from_slice::<serde::de::IgnoredAny>(body).err().map(|error| error.to_string())
        });
        let is_http = method.is_some() || args.path.is_some() || !args.headers.is_empty();
        Ok(Self { method, path, body, is_http, not_json })
    }

    /// JSON suits every function. Whether anything else does, and whether there is a path below it, depends on what
    /// the function is.
    fn depends_on_world(&self) -> bool {
        self.is_http || self.body.is_none() || self.not_json.is_some()
    }

    fn method(&self) -> Method {
        match (&self.method, &self.body) {
            (Some(method), _) => method.clone(),
            (None, Some(_)) => Method::POST,
            (None, None) => Method::GET,
        }
    }

    fn headers(&self, args: &CallArgs) -> Vec<(String, String)> {
        let mut headers = args.headers.clone();
        if self.body.is_some() && !headers.iter().any(|(name, _)| name == "content-type") {
            let json = self.not_json.is_none();
            let kind = if json { "application/json" } else { "application/octet-stream" };
            headers.push(("content-type".to_owned(), kind.to_owned()));
        }
        headers
    }

    /// A native function takes JSON; this is found out here, with its line and column.
    fn check_native(&self, name: &str) -> Result<(), Failure> {
        if !self.path.is_empty() || self.method.as_ref().is_some_and(|method| *method != Method::POST) {
            return Err(Failure::usage(format!(
                "`{name}` is a native function: it has no paths and no methods, and takes JSON."
            ))
            .next(format!("call it so: osiris call {name} '{{}}'")));
        }
        match (&self.body, &self.not_json) {
            (None, _) => Err(Failure::usage(format!("`{name}` is a native function and takes JSON."))
                .next(format!("give it: osiris call {name} '{{}}'"))),
            (_, Some(error)) => Err(Failure::usage(format!("What to send is not JSON: {error}."))
                .next("correct it; text needs its own double quotes: '\"text\"'")),
            _ => Ok(()),
        }
    }
}

async fn call(client: &Client, args: &CallArgs, request: Request) -> Result<Answer, Failure> {
    if request.depends_on_world() {
        let detail: FunctionDetail = client.get(&format!("/v1/functions/{}", args.name)).await?;
        if detail.function.world == "native" {
            request.check_native(&args.name)?;
        }
    }
    let (method, headers) = (request.method(), request.headers(args));
    let path = format!("/function/{}{}", args.name, request.path);
    let _progress = Progress::spinner(format!("calling {}", args.name));
    let body = Bytes::from(request.body.unwrap_or_default());
    let answer = client.call(&method, &path, &headers, body, client.patience().calls()).await?;
    // Where the node itself refuses, its membership may be why: that is what has to be mended then.
    if Exit::of_status(answer.status) != Exit::Done && says_node(&answer) {
        let status: Status = client.get("/v1/status").await?;
        if status.state == NOT_A_MEMBER {
            return Err(replica::no_member(&status));
        }
    }
    Ok(answer)
}

/// Whether an answer is the node's own, and not the function's.
fn says_node(answer: &Answer) -> bool {
    serde_json::from_slice::<ErrorBody>(&answer.body).is_ok()
}

/// With no node here, another member is asked.
async fn far(replica: &mut Replica, args: &CallArgs, request: Request) -> Result<Answer, Failure> {
    replica.must_belong().await?;
    let detail = known(replica, &args.name).await?;
    if detail.function.world == "native" && request.depends_on_world() {
        request.check_native(&args.name)?;
    }
    let headers = request.headers(args).into_iter().map(|(name, value)| (name, Bytes::from(value)));
    let far = CallRequest {
        method: request.method().to_string(),
        path: match request.path.as_str() {
            path if path.starts_with('/') => path.to_owned(),
            query => format!("/{query}"),
        },
        headers: headers.collect(),
        deadline_ms: u32::try_from(args.timeout.as_millis()).unwrap_or(u32::MAX).min(CALL_DEADLINE_MS_MAX),
        ..CallRequest::new(&args.name, request.body.unwrap_or_default())
    };
    let _progress = Progress::spinner(format!("calling {} on another member", args.name));
    replica.call(far).await
}

/// A function that can be called, as far as this device has heard.
async fn known(replica: &mut Replica, name: &str) -> Result<FunctionDetail, Failure> {
    let detail = replica.function(name).await?;
    if detail.function.state == "removed" {
        return Err(Failure::not_found(format!("The function `{name}` was removed."))
            .next("`osiris ls` lists those that there are"));
    }
    Ok(detail)
}

/// The body as it is; in YAML where that was asked for and it is JSON.
fn print(answer: &Answer, out: Out) -> Result<(), Failure> {
    if out.format == Format::Yaml
        && let Ok(value) = serde_json::from_slice::<serde_json::Value>(&answer.body)
    {
        return out.document(&value);
    }
    out.raw(&answer.body)?;
    let text = answer.headers.get(http::header::CONTENT_TYPE).is_none_or(|kind| {
        let kind = kind.to_str().unwrap_or_default();
        kind.starts_with("application/json") || kind.starts_with("text/")
    });
    // So that the prompt comes on a line of its own.
    if out.terminal && text && !answer.body.is_empty() && !answer.body.ends_with(b"\n") {
        out.raw(b"\n")?;
    }
    Ok(())
}

/// What to send: the argument, a file or stdin.
fn read(argument: &str, within: Duration) -> Result<Vec<u8>, Failure> {
    let limit = CALL_BODY_BYTES_MAX as u64 + 1;
    let bytes = match argument.strip_prefix('@') {
        _ if argument == "-" => std::mem::take(
            &mut *input::stdin(limit, within)
                .map_err(|error| Failure::unread_from("stdin cannot be read", &error))?,
        ),
        Some(path) => std::mem::take(
            &mut *input::file(path.as_ref(), limit, within)
                .map_err(|error| Failure::unread("file", path.as_ref(), &error))?,
        ),
        None => argument.as_bytes().to_vec(),
    };
    if bytes.len() > CALL_BODY_BYTES_MAX {
        let most = human::bytes(CALL_BODY_BYTES_MAX as u64);
        return Err(Failure::failed(format!("What to send is larger than {most}, the most a call takes."))
            .next("send it in parts"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn request(arguments: &[&str]) -> Result<Request, Failure> {
        let line = ["osiris", "call", "f"].iter().chain(arguments);
        let cli = crate::args::Cli::try_parse_from(line).expect("the command line parses");
        let crate::args::Command::Call(args) = cli.command else { panic!("it is call") };
        let body = args.body.as_deref().map(|body| read(body, args.timeout)).transpose()?;
        Request::new(&args, body)
    }

    #[test]
    fn json_that_does_not_parse_is_found_with_its_place() {
        let bad = request(&["{\"a\":\n 1,}"]).expect("a request");
        let failure = bad.check_native("f").expect_err("not JSON");
        assert!(failure.message.contains("line 2 column 4"), "{}", failure.message);
        assert_eq!(failure.exit, Exit::Usage);
        assert!(request(&["[1, 2]"]).expect("a request").check_native("f").is_ok());
        assert!(request(&["-5"]).expect("a request").check_native("f").is_ok());
        assert!(request(&[]).expect("a request").check_native("f").is_err());
    }

    #[test]
    fn a_path_or_a_method_is_for_http() {
        let chart = request(&["--path", "chart?a=1", "--method", "put", "{}"]).expect("a request");
        assert!(chart.is_http && chart.depends_on_world());
        assert!(chart.check_native("f").is_err());
        let post = request(&["--method", "post", "--header", "x-a: b", "{}"]).expect("a request");
        assert!(post.depends_on_world() && post.check_native("f").is_ok());
        assert_eq!((chart.path.as_str(), chart.method), ("/chart?a=1", Some(Method::PUT)));
        assert!(!request(&["1"]).expect("a request").is_http);
        assert!(request(&["--path", "/a b"]).is_err());
        assert!(request(&["--method", "a b"]).is_err());
    }

    #[test]
    fn a_body_over_the_limit_is_refused_before_it_is_sent() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("big");
        let file = std::fs::File::create(&path).expect("made");
        file.set_len(CALL_BODY_BYTES_MAX as u64 + 1).expect("grown");
        let within = Duration::from_secs(60);
        let failure = read(&format!("@{}", path.display()), within).expect_err("too large");
        assert!(failure.message.contains("4.0 MiB"), "{}", failure.message);
        assert_eq!(read("@/no/such/file", within).expect_err("missing").exit, Exit::NotFound);
    }
}
