//! Bodies in and out.

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::sse::Event;
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use mgmt_types::{Mistake, Problem, ProblemKind};
use serde::Serialize;
use tokio::sync::Semaphore;

use super::{Context, MAX_BODY};
use crate::document::Format;

/// A problem as an answer.
#[derive(Debug)]
pub(crate) struct Refused(pub(crate) Box<Problem>);

/// Why something was refused, for the audit log: rides beside the answer.
#[derive(Debug, Clone)]
pub(crate) struct Detail(pub(crate) String);

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self(Box::new(problem))
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = json(status, &*self.0);
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        response.extensions_mut().insert(Detail(self.0.detail));
        if status == StatusCode::UNAUTHORIZED {
            // RFC 9110 section 11.6.1: a 401 says which scheme would do.
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// A value as JSON.
pub(crate) fn json<T: Serialize>(status: StatusCode, value: &T) -> Response {
    match serde_json::to_vec(value) {
        Ok(bytes) => {
            let kind = (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            (status, [kind], bytes).into_response()
        }
        Err(error) => {
            log::error!("an answer cannot be written: {error}");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// A server-sent event whose data is a value as JSON; none when it cannot be written.
pub(crate) fn event<T: Serialize>(name: &str, id: u64, value: &T) -> Option<Event> {
    match serde_json::to_string(value) {
        Ok(text) => Some(Event::default().event(name).id(id.to_string()).data(text)),
        Err(error) => {
            log::error!("an event cannot be written: {error}");
            None
        }
    }
}

/// Reads a body of at most [`MAX_BODY`] bytes.
pub(crate) async fn body(request: Request) -> Result<Vec<u8>, Refused> {
    body_within(request, MAX_BODY).await
}

/// Reads a body of at most `most` bytes. A longer one is taken off the wire up to four times that, so that a client that
/// writes before it reads sees the answer and not a broken connection.
pub(crate) async fn body_within(request: Request, most: usize) -> Result<Vec<u8>, Refused> {
    let mut body: Body = request.into_body();
    let mut bytes = Vec::new();
    let mut length = 0usize;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            Problem::new(ProblemKind::Syntax, format!("the body cannot be read: {error}"))
        })?;
        let Ok(data) = frame.into_data() else { continue };
        length = length.saturating_add(data.len());
        if length > 4 * most {
            break;
        }
        if length <= most {
            bytes.extend_from_slice(&data);
        }
    }
    if length > most {
        let mistake = Mistake {
            got: Some(format!("{length} bytes or more")),
            expected: Some(format!("at most {most} bytes; apply in several parts")),
            ..Mistake::default().detail("the body is too large")
        };
        return Err(Problem::of(ProblemKind::TooLarge, vec![mistake]).into());
    }
    Ok(bytes)
}

/// The format of the body as its header says.
pub(crate) fn format(headers: &HeaderMap, allowed: &[Format]) -> Result<Format, Refused> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match Format::of(given).filter(|format| allowed.contains(format)) {
        Some(format) => Ok(format),
        None => {
            let names: Vec<&str> = allowed.iter().map(|format| format.content_type()).collect();
            let mistake = Mistake {
                field: Some("Content-Type".to_owned()),
                got: Some(given.chars().take(100).collect()),
                expected: Some(names.join(" or ")),
                ..Mistake::default().detail("the body's format is not known here")
            };
            Err(Problem::of(ProblemKind::MediaType, vec![mistake]).into())
        }
    }
}

/// Does what blocks or takes long on a thread that may, a few at a time. A panic there is a problem, not the end.
pub(crate) async fn work<T: Send + 'static>(
    context: &Context,
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Refused> {
    in_turn(&context.working, work).await
}

/// As [`work`], in turns of another kind.
pub(crate) async fn in_turn<T: Send + 'static>(
    turns: &Semaphore,
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Refused> {
    let _turn =
        turns.acquire().await.map_err(|_| Problem::new(ProblemKind::Busy, "the manager is stopping"))?;
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(Refused::from),
        Err(error) => Err(crate::manager::internal(&error).into()),
    }
}
