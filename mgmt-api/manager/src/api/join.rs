//! How machines become hosts, and who vouches for whom.

use std::time::SystemTime;

use axum::Extension;
use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use mgmt_types::{
    AuthorityList, Credentials, JoinRequest, JoinTokenList, JoinTokenSecret, NewJoinToken, Problem,
    RenewalRequest,
};
use serde::Deserialize;

use super::Context;
use super::caller::{Admin, Agent, Reader};
use super::reply::{self, Refused};
use super::resources::wrong_query;
use crate::document::{self, Format};
use crate::manager::Request as Asked;

/// Largest body of a machine that wants to join, in bytes: it may be anybody's.
const MOST: usize = 16 << 10;

/// Makes a machine a host: takes a join token and a request to sign, gives a certificate. Needs no other token; a host that
/// joined before shows the certificate it has, if it has one.
#[utoipa::path(
    post, path = "/v1/join", tag = "joining", operation_id = "join", security(()),
    request_body(content((JoinRequest = "application/json"))),
    responses((status = 200, description = "What the host proves itself by", body = Credentials), (status = "4XX", description = "What is wrong", body = Problem, content_type = "application/problem+json")),
)]
pub(super) async fn join(
    Extension(asked): Extension<Asked>,
    State(context): State<Context>,
    request: Request,
) -> Result<Response, Refused> {
    reply::format(request.headers(), &[Format::Json])?;
    let body = reply::body_within(request, MOST).await?;
    let manager = context.manager.clone();
    let credentials = reply::in_turn(&context.joining, move || {
        let wish: JoinRequest = document::read_value(&body)?;
        manager.join(&asked, &wish, SystemTime::now())
    })
    .await?;
    Ok(reply::json(StatusCode::OK, &credentials))
}

/// Gives a host its next certificate.
#[utoipa::path(
    post, path = "/v1/agent/certificate", tag = "agents", operation_id = "renewCertificate",
    request_body(content((RenewalRequest = "application/json"))),
    responses((status = 200, description = "What the host proves itself by from now on", body = Credentials), (status = "4XX", description = "What is wrong", body = Problem, content_type = "application/problem+json")),
)]
pub(super) async fn renew(
    Agent(asked): Agent,
    State(context): State<Context>,
    request: Request,
) -> Result<Response, Refused> {
    reply::format(request.headers(), &[Format::Json])?;
    let body = reply::body_within(request, MOST).await?;
    let manager = context.manager.clone();
    let credentials = reply::in_turn(&context.joining, move || {
        let wish: RenewalRequest = document::read_value(&body)?;
        manager.renew_host(&asked, &wish.csr, SystemTime::now())
    })
    .await?;
    Ok(reply::json(StatusCode::OK, &credentials))
}

/// Lists join tokens, without their secrets; those that were valid within the last 30 days too.
#[utoipa::path(
    get, path = "/v1/join-tokens", tag = "joining", operation_id = "listJoinTokens",
    responses((status = 200, description = "The join tokens", body = JoinTokenList), (status = "4XX", description = "What is wrong", body = Problem, content_type = "application/problem+json")),
)]
pub(super) async fn tokens(_admin: Admin, State(context): State<Context>) -> Response {
    let items = context.manager.join_tokens(SystemTime::now());
    reply::json(StatusCode::OK, &JoinTokenList { items })
}

/// Makes a join token. Its secret is in the answer and nowhere else.
#[utoipa::path(
    post, path = "/v1/join-tokens", tag = "joining", operation_id = "createJoinToken",
    request_body(content((NewJoinToken = "application/json"))),
    responses((status = 201, description = "The join token", body = JoinTokenSecret), (status = "4XX", description = "What is wrong", body = Problem, content_type = "application/problem+json")),
)]
pub(super) async fn create(
    Admin(asked): Admin,
    State(context): State<Context>,
    request: Request,
) -> Result<Response, Refused> {
    reply::format(request.headers(), &[Format::Json])?;
    let body = reply::body(request).await?;
    let manager = context.manager.clone();
    let secret = reply::work(&context, move || {
        let wish: NewJoinToken = document::read_value(&body)?;
        manager.add_join_token(&asked, &wish, SystemTime::now())
    })
    .await?;
    Ok(reply::json(StatusCode::CREATED, &secret))
}

/// Withdraws a join token, at once. Hosts that joined with it stay.
#[utoipa::path(
    delete, path = "/v1/join-tokens/{name}", tag = "joining", operation_id = "revokeJoinToken",
    params(("name" = String, Path, description = "Name of the join token")),
    responses((status = 204, description = "Nobody joins with it any more"), (status = "4XX", description = "What is wrong", body = Problem, content_type = "application/problem+json")),
)]
pub(super) async fn revoke(
    Admin(asked): Admin,
    State(context): State<Context>,
    Path(name): Path<String>,
) -> Result<Response, Refused> {
    let manager = context.manager.clone();
    reply::work(&context, move || manager.revoke_join_token(&asked, &name)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Lists the certificate authorities that are trusted, oldest first.
#[utoipa::path(
    get, path = "/v1/authorities", tag = "joining", operation_id = "listAuthorities",
    responses((status = 200, description = "The authorities", body = AuthorityList), (status = "4XX", description = "What is wrong", body = Problem, content_type = "application/problem+json")),
)]
pub(super) async fn authorities(_reader: Reader, State(context): State<Context>) -> Response {
    let items = context.manager.authorities(SystemTime::now());
    reply::json(StatusCode::OK, &AuthorityList { items })
}

/// Makes a new authority beside those there are. It signs the certificates of hosts from now on; managers prove themselves
/// by the oldest until that is retired.
#[utoipa::path(
    post, path = "/v1/authorities", tag = "joining", operation_id = "rotateAuthority",
    responses((status = 201, description = "The authorities", body = AuthorityList), (status = "4XX", description = "What is wrong", body = Problem, content_type = "application/problem+json")),
)]
pub(super) async fn rotate(Admin(asked): Admin, State(context): State<Context>) -> Result<Response, Refused> {
    let manager = context.manager.clone();
    let items = reply::work(&context, move || manager.rotate_authority(&asked, SystemTime::now())).await?;
    Ok(reply::json(StatusCode::CREATED, &AuthorityList { items }))
}

/// How to retire an authority.
#[derive(Debug, Deserialize)]
pub(super) struct RetireQuery {
    /// Also when hosts need it.
    #[serde(default)]
    force: bool,
}

/// Trusts an authority no more, at once. Refused while a host has no certificate of a newer one, unless with `force`: such
/// a host has to join again.
#[utoipa::path(
    delete, path = "/v1/authorities/{fingerprint}", tag = "joining", operation_id = "retireAuthority",
    params(("fingerprint" = String, Path, description = "Fingerprint of the authority"), ("force" = Option<bool>, Query, description = "Also when hosts need it")),
    responses((status = 204, description = "It is not trusted any more"), (status = "4XX", description = "What is wrong", body = Problem, content_type = "application/problem+json")),
)]
pub(super) async fn retire(
    Admin(asked): Admin,
    State(context): State<Context>,
    Path(fingerprint): Path<String>,
    query: Result<Query<RetireQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Refused> {
    let Query(query) = query.map_err(|error| wrong_query(&error))?;
    let manager = context.manager.clone();
    let retire = move || manager.retire_authority(&asked, &fingerprint, query.force, SystemTime::now());
    reply::work(&context, retire).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
