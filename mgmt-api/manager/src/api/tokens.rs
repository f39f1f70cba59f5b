//! Tokens.

use std::time::SystemTime;

use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use mgmt_types::{NewToken, Problem, TokenList, TokenSecret};

use super::Context;
use super::caller::Admin;
use super::reply::{self, Refused};
use crate::document::{self, Format};
use crate::manager::internal;
use crate::token;

/// Lists all tokens, without their secrets.
#[utoipa::path(
    get, path = "/v1/tokens", tag = "tokens", operation_id = "listTokens",
    responses((status = 200, description = "The tokens", body = TokenList), (status = "4XX", description = "What is wrong", body = Problem, content_type = "application/problem+json")),
)]
pub(super) async fn list(_admin: Admin, State(context): State<Context>) -> Response {
    reply::json(StatusCode::OK, &TokenList { items: token::tokens(&context.manager.records) })
}

/// Makes a token, and its user when it is given with a role. Its secret is in the answer and nowhere else.
#[utoipa::path(
    post, path = "/v1/tokens", tag = "tokens", operation_id = "createToken",
    request_body(content((NewToken = "application/json"))),
    responses((status = 201, description = "The token", body = TokenSecret), (status = "4XX", description = "What is wrong", body = Problem, content_type = "application/problem+json")),
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
        let wish: NewToken = document::read_value(&body)?;
        let secret = token::secret("palisade").map_err(|error| internal(&error))?;
        manager.add_token(&asked, &wish, &secret, SystemTime::now())
    })
    .await?;
    Ok(reply::json(StatusCode::CREATED, &secret))
}

/// Withdraws a token at once.
#[utoipa::path(
    delete, path = "/v1/tokens/{name}", tag = "tokens", operation_id = "deleteToken",
    params(("name" = String, Path, description = "Name of the token")),
    responses((status = 204, description = "It is not valid any more"), (status = "4XX", description = "What is wrong", body = Problem, content_type = "application/problem+json")),
)]
pub(super) async fn remove(
    Admin(asked): Admin,
    State(context): State<Context>,
    Path(name): Path<String>,
) -> Result<Response, Refused> {
    let manager = context.manager.clone();
    reply::work(&context, move || manager.remove_token(&asked, &name)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
