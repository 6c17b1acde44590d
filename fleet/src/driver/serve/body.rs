//! Bodies: requests are read whole and within limits, answers are whole or a stream of lines.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::api::LogRow;
use crate::driver::answer::ApiError;
use crate::driver::limits::{BODIES_BYTES_MAX, BODY_FREE_BYTES};

/// The unit of the budget, bytes: permits are counted in 32 bits.
const UNIT_BYTES: usize = 1 << 10;

/// What larger bodies may take together.
#[derive(Clone, Debug)]
pub(super) struct Budget(Arc<Semaphore>);

impl Budget {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(BODIES_BYTES_MAX / UNIT_BYTES)))
    }

    fn take(&self, held: &mut Option<OwnedSemaphorePermit>, bytes: usize) -> Result<(), ApiError> {
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.0).try_acquire_many_owned(units).map_err(|_| {
            ApiError::unavailable(
                "The node has no memory left for another large body; try again in a moment.",
            )
        })?;
        match held {
            Some(held) => held.merge(permit),
            None => *held = Some(permit),
        }
        Ok(())
    }
}

/// A body that was read, and its part of the budget for as long as it is worked on.
#[derive(Debug, Default)]
pub(super) struct Whole {
    pub(super) bytes: Bytes,
    pub(super) held: Option<OwnedSemaphorePermit>,
}

/// Reads a body of at most `max` bytes within `timeout`. A declared length is checked before anything
/// is read.
pub(super) async fn read(
    body: Incoming,
    max: u64,
    budget: &Budget,
    timeout: Duration,
) -> Result<Whole, ApiError> {
    if body.is_end_stream() {
        return Ok(Whole::default());
    }
    let max = usize::try_from(max).unwrap_or(usize::MAX);
    let declared = body.size_hint().exact().map(|len| usize::try_from(len).unwrap_or(usize::MAX));
    if let Some(len) = declared.filter(|len| *len > max) {
        return Err(too_large(&len.to_string(), max));
    }
    let mut held = None;
    if let Some(len) = declared.filter(|len| *len > BODY_FREE_BYTES) {
        budget.take(&mut held, len)?;
    }
    let reading = collect(body, max, declared, budget, &mut held);
    let bytes = tokio::time::timeout(timeout, reading).await.unwrap_or_else(|_| {
        Err(ApiError::timeout(format!("The request's body did not come within {} s.", timeout.as_secs())))
    })?;
    Ok(Whole { bytes, held })
}

async fn collect(
    mut body: Incoming,
    max: usize,
    declared: Option<usize>,
    budget: &Budget,
    held: &mut Option<OwnedSemaphorePermit>,
) -> Result<Bytes, ApiError> {
    let (mut first, mut more) = (Bytes::new(), BytesMut::new());
    let mut size = 0;
    let mut paid = declared.unwrap_or(BODY_FREE_BYTES);
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|e| ApiError::bad_request(format!("The request's body is broken: {e}.")))?;
        let Ok(piece) = frame.into_data() else { continue };
        size += piece.len();
        if size > max {
            return Err(too_large("more", max));
        }
        while size > paid {
            budget.take(held, BODY_FREE_BYTES)?;
            paid += BODY_FREE_BYTES;
        }
        // Most bodies come in one piece, which is passed on as it is.
        if first.is_empty() && more.is_empty() {
            first = piece;
            continue;
        }
        if more.is_empty() {
            more.reserve(declared.unwrap_or(size));
            more.extend_from_slice(&first);
        }
        more.extend_from_slice(&piece);
    }
    Ok(if more.is_empty() { first } else { more.freeze() })
}

fn too_large(size: &str, max: usize) -> ApiError {
    ApiError::too_large(format!("The request's body has {size} bytes; at most {max} are taken here."))
}

/// The body of an answer.
#[derive(Debug)]
pub(super) enum Answer {
    /// All of it is here.
    Whole(Bytes),
    /// It grows by lines.
    Lines(Box<Lines>),
}

impl Answer {
    pub(super) fn whole(response: Response<Bytes>) -> Response<Self> {
        response.map(Self::Whole)
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Lines(lines) => lines.poll(cx).map(|piece| piece.map(|piece| Ok(Frame::data(piece)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Lines(_) => SizeHint::default(),
        }
    }
}

/// Rows as newline-delimited JSON, until their sender is gone or the server stops.
pub(super) struct Lines {
    first: BytesMut,
    rows: mpsc::Receiver<LogRow>,
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl std::fmt::Debug for Lines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Lines")
    }
}

impl Lines {
    pub(super) fn new(
        first: &[LogRow],
        rows: mpsc::Receiver<LogRow>,
        stopped: WaitForCancellationFutureOwned,
    ) -> Self {
        Self { first: lines(first), rows, stopped: Box::pin(stopped) }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut out = std::mem::take(&mut self.first);
        if out.is_empty() && self.stopped.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        while out.len() < BODY_FREE_BYTES {
            match self.rows.poll_recv(cx) {
                Poll::Ready(Some(row)) => push_line(&mut out, &row),
                Poll::Ready(None) if out.is_empty() => return Poll::Ready(None),
                Poll::Pending if out.is_empty() => return Poll::Pending,
                _ => break,
            }
        }
        Poll::Ready(Some(out.freeze()))
    }
}

/// Rows as newline-delimited JSON.
pub(super) fn lines(rows: &[LogRow]) -> BytesMut {
    let mut out = BytesMut::new();
    rows.iter().for_each(|row| push_line(&mut out, row));
    out
}

fn push_line(out: &mut BytesMut, row: &LogRow) {
    // A number and two strings always become JSON.
    out.extend_from_slice(&serde_json::to_vec(row).unwrap_or_default());
    out.extend_from_slice(b"\n");
}

/// A plain text.
pub(super) fn text(
    status: StatusCode,
    content_type: &'static str,
    text: impl Into<Bytes>,
) -> Response<Bytes> {
    let mut response = Response::new(text.into());
    *response.status_mut() = status;
    let value = http::HeaderValue::from_static(content_type);
    response.headers_mut().insert(http::header::CONTENT_TYPE, value);
    response
}
