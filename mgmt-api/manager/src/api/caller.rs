//! Who asks, and whether they may.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use mgmt_types::{AUTHORITY_HEADER, Mistake, Problem, ProblemKind, Role};
use rustls::pki_types::CertificateDer;

use super::Context;
use super::reply::{Detail, Refused};
use crate::manager::Request as Asked;
use crate::time;
use crate::token::{self, Caller};

/// The address a request came from, set by the server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// The certificates that a client showed and has the key of, its own first; set by the server.
#[derive(Debug, Clone)]
pub(crate) struct Shown(pub(crate) Arc<[CertificateDer<'static>]>);

/// Lets only holders of a valid token or of a host's certificate pass, and puts into the audit log who was refused and
/// why.
pub(super) async fn authenticate(
    State(context): State<Context>,
    mut request: Request,
    next: Next,
) -> Response {
    let mut asked = asked(&request);
    let response = match identify(&context, &request) {
        Ok(caller) => {
            asked.caller = Some(caller);
            request.extensions_mut().insert(asked.clone());
            next.run(request).await
        }
        Err(refused) => refused.into_response(),
    };
    let is_refusal = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&response.status());
    let is_host = asked.caller.as_ref().is_some_and(|caller| caller.role == Role::Agent);
    if is_host {
        let mut response = if is_refusal { noted(&context, asked, response).await } else { response };
        if let Ok(fingerprint) = HeaderValue::from_str(context.manager.trust().of_hosts()) {
            response.headers_mut().insert(HeaderName::from_static(AUTHORITY_HEADER), fingerprint);
        }
        return response;
    }
    if is_refusal { noted(&context, asked, response).await } else { response }
}

/// Lets everybody pass who wants to become a host, and says who is one already. Every refusal is in the audit log.
pub(super) async fn welcome(State(context): State<Context>, mut request: Request, next: Next) -> Response {
    let mut asked = asked(&request);
    // Who shows a certificate that is not good (any more) is a stranger.
    asked.caller = certified(&context, &request).and_then(Result::ok);
    request.extensions_mut().insert(asked.clone());
    let response = next.run(request).await;
    if response.status().is_client_error() { noted(&context, asked, response).await } else { response }
}

fn asked(request: &Request) -> Asked {
    Asked {
        caller: None,
        peer: request.extensions().get::<Peer>().map(|peer| peer.0),
        action: format!("{} {}", request.method(), request.uri().path()),
    }
}

/// Puts a refusal into the audit log.
async fn noted(context: &Context, asked: Asked, response: Response) -> Response {
    let status = response.status();
    let said = response.extensions().get::<Detail>().map(|detail| detail.0.clone());
    let why = said.unwrap_or_else(|| status.to_string());
    let manager = context.manager.clone();
    let note = move || manager.refused(&asked, status.as_u16(), &why, Instant::now());
    // The entry is on disk before the client knows, so that who is refused can be found.
    if let Err(error) = tokio::task::spawn_blocking(note).await {
        log::error!("the audit log cannot be written: {error}");
    }
    response
}

/// Who asks by a certificate; none when the client showed none.
fn certified(context: &Context, request: &Request) -> Option<Result<Caller, Problem>> {
    let shown = request.extensions().get::<Shown>()?;
    Some(context.manager.host_of(&shown.0, SystemTime::now()))
}

fn identify(context: &Context, request: &Request) -> Result<Caller, Refused> {
    let header = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let secret = header.and_then(|value| {
        let (scheme, secret) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| secret.trim())
    });
    let expected = "Authorization: Bearer TOKEN, with a token that `palisade token create` printed";
    let refuse = |reason: &str| {
        let mistake = Mistake {
            field: Some("Authorization".to_owned()),
            expected: Some(expected.to_owned()),
            ..Mistake::default().detail(reason)
        };
        Refused::from(Problem::of(ProblemKind::Unauthenticated, vec![mistake]))
    };
    match (header, secret) {
        (Some(_), Some(secret)) => {
            let now = time::seconds(SystemTime::now());
            token::caller(&context.manager.records, secret, now).map_err(|error| refuse(&error.to_string()))
        }
        (Some(_), None) => Err(refuse("the request has no token")),
        (None, _) => match certified(context, request) {
            Some(identified) => identified.map_err(Refused::from),
            None => Err(refuse("the request has no token")),
        },
    }
}

/// Declares an extractor that only some roles pass; one with `(Asked)` says who asked.
macro_rules! may {
    ($(#[$doc:meta])* $name:ident(Asked): $($role:ident)|+) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub(super) struct $name(pub(super) Asked);
        may!(@extract $name, Self, $($role),+);
    };
    ($(#[$doc:meta])* $name:ident: $($role:ident)|+) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub(super) struct $name;
        may!(@extract $name, |_| Self, $($role),+);
    };
    (@extract $name:ident, $make:expr, $($role:ident),+) => {
        impl FromRequestParts<Context> for $name {
            type Rejection = Refused;

            async fn from_request_parts(parts: &mut Parts, _context: &Context) -> Result<Self, Refused> {
                check(parts, &[$(Role::$role),+]).map($make)
            }
        }
    };
}

may! {
    /// Whoever may read resources.
    Reader: Viewer | Operator | Admin
}
may! {
    /// Whoever may change resources.
    Writer(Asked): Operator | Admin
}
may! {
    /// Whoever may read the audit log.
    Auditor: Operator | Admin
}
may! {
    /// Whoever may say who is let in.
    Admin(Asked): Admin
}
may! {
    /// A host, by its certificate.
    Agent(Asked): Agent
}
may! {
    /// Whoever is let in.
    Anyone: Viewer | Operator | Admin | Agent
}

fn check(parts: &Parts, roles: &[Role]) -> Result<Asked, Refused> {
    let Some(asked) = parts.extensions.get::<Asked>() else {
        return Err(Problem::new(ProblemKind::Internal, "the request was not authenticated").into());
    };
    let Some(caller) = &asked.caller else {
        return Err(Problem::new(ProblemKind::Unauthenticated, "the request has no token").into());
    };
    if roles.contains(&caller.role) {
        return Ok(asked.clone());
    }
    let allowed: Vec<&str> = roles.iter().map(|role| role.as_str()).collect();
    let expected = match roles {
        [Role::Agent] => "the certificate of a host that joined".to_owned(),
        _ => allowed.join(" or "),
    };
    let mistake = Mistake::new("role", caller.role, expected)
        .detail(format!("{} may not {}", caller.name, asked.action));
    Err(Problem::of(ProblemKind::Forbidden, vec![mistake]).into())
}
