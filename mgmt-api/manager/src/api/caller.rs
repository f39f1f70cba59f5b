//! Who asks, and whether they may.

use std::net::IpAddr;
use std::time::Instant;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use mgmt_types::{Mistake, Problem, ProblemKind, Role};

use super::Context;
use super::reply::Refused;
use crate::manager::Request as Asked;

/// The address a request came from, set by the server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// Lets only holders of a valid token pass, and puts into the audit log who was refused and why.
pub(super) async fn authenticate(
    State(context): State<Context>,
    mut request: Request,
    next: Next,
) -> Response {
    let mut asked = Asked {
        caller: None,
        peer: request.extensions().get::<Peer>().map(|peer| peer.0),
        action: format!("{} {}", request.method(), request.uri().path()),
    };
    let response = match identify(&context, request.headers()) {
        Ok(caller) => {
            asked.caller = Some(caller);
            request.extensions_mut().insert(asked.clone());
            next.run(request).await
        }
        Err(refused) => refused.into_response(),
    };
    let why = match response.status() {
        StatusCode::UNAUTHORIZED => "no valid token",
        StatusCode::FORBIDDEN => "the token's role does not allow it",
        _ => return response,
    };
    let status = response.status().as_u16();
    let manager = context.manager;
    let note = move || manager.refused(&asked, status, why, Instant::now());
    // The entry is on disk before the client knows, so that who is refused can be found.
    if let Err(error) = tokio::task::spawn_blocking(note).await {
        log::error!("the audit log cannot be written: {error}");
    }
    response
}

fn identify(context: &Context, headers: &HeaderMap) -> Result<crate::token::Caller, Refused> {
    let header = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
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
    match secret {
        None => Err(refuse("the request has no token")),
        Some(secret) => {
            context.manager.tokens.caller(secret).ok_or_else(|| refuse("the token is not valid (any more)"))
        }
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
    /// Whoever may hand out tokens.
    Admin(Asked): Admin
}
may! {
    /// Whoever may speak for a host.
    Agent(Asked): Agent | Admin
}
may! {
    /// Whoever holds a token.
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
    let mistake = Mistake::new("role", caller.role, allowed.join(" or "))
        .detail(format!("token {} may not {}", caller.name, asked.action));
    Err(Problem::of(ProblemKind::Forbidden, vec![mistake]).into())
}
