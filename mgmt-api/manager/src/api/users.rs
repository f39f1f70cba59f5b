//! Users.

use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use mgmt_types::{NewUser, Problem, User, UserChange, UserList};

use super::Context;
use super::caller::Admin;
use super::reply::{self, Refused};
use crate::document::{self, Format};
use crate::token;

/// Lists all users.
#[utoipa::path(
    get, path = "/v1/users", tag = "users", operation_id = "listUsers",
    responses((status = 200, description = "The users", body = UserList), (status = "4XX", description = "What is wrong", body = Problem, content_type = "application/problem+json")),
)]
pub(super) async fn list(_admin: Admin, State(context): State<Context>) -> Response {
    reply::json(StatusCode::OK, &UserList { items: token::users(&context.manager.records) })
}

/// Makes a user, without tokens.
#[utoipa::path(
    post, path = "/v1/users", tag = "users", operation_id = "createUser",
    request_body(content((NewUser = "application/json"))),
    responses((status = 201, description = "The user", body = User), (status = "4XX", description = "What is wrong", body = Problem, content_type = "application/problem+json")),
)]
pub(super) async fn create(
    Admin(asked): Admin,
    State(context): State<Context>,
    request: Request,
) -> Result<Response, Refused> {
    reply::format(request.headers(), &[Format::Json])?;
    let body = reply::body(request).await?;
    let manager = context.manager.clone();
    let user = reply::work(&context, move || {
        let wish: NewUser = document::read_value(&body)?;
        manager.add_user(&asked, &wish)
    })
    .await?;
    Ok(reply::json(StatusCode::CREATED, &user))
}

/// Gives a user another role, at once for all its tokens.
#[utoipa::path(
    put, path = "/v1/users/{name}", tag = "users", operation_id = "changeUser",
    params(("name" = String, Path, description = "Name of the user")),
    request_body(content((UserChange = "application/json"))),
    responses((status = 200, description = "The user", body = User), (status = "4XX", description = "What is wrong", body = Problem, content_type = "application/problem+json")),
)]
pub(super) async fn change(
    Admin(asked): Admin,
    State(context): State<Context>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Refused> {
    reply::format(request.headers(), &[Format::Json])?;
    let body = reply::body(request).await?;
    let manager = context.manager.clone();
    let user = reply::work(&context, move || {
        let wish: UserChange = document::read_value(&body)?;
        manager.change_user(&asked, &name, wish.role)
    })
    .await?;
    Ok(reply::json(StatusCode::OK, &user))
}

/// Withdraws a user with all its tokens, at once.
#[utoipa::path(
    delete, path = "/v1/users/{name}", tag = "users", operation_id = "deleteUser",
    params(("name" = String, Path, description = "Name of the user")),
    responses((status = 204, description = "It is not let in any more"), (status = "4XX", description = "What is wrong", body = Problem, content_type = "application/problem+json")),
)]
pub(super) async fn remove(
    Admin(asked): Admin,
    State(context): State<Context>,
    Path(name): Path<String>,
) -> Result<Response, Refused> {
    let manager = context.manager.clone();
    reply::work(&context, move || manager.remove_user(&asked, &name)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
