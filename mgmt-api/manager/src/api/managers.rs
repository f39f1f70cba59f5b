//! Managers that share one store.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use mgmt_types::{ManagerList, Problem};

use super::Context;
use super::caller::Anyone;
use super::reply;

/// Says what this manager is among those that share its store, since when the store does not answer, and who the others
/// are. Needs no store.
#[utoipa::path(
    get, path = "/v1/managers", tag = "meta", operation_id = "managers",
    responses((status = 200, description = "The managers", body = ManagerList), (status = "4XX", description = "What is wrong", body = Problem, content_type = "application/problem+json")),
)]
pub(super) async fn list(_anyone: Anyone, State(context): State<Context>) -> Response {
    reply::json(StatusCode::OK, &context.manager.managers())
}
