//! Projections: how far they are, and building one anew.

use actix_web::{HttpResponse, web};

use super::{Api, problem};
use crate::protocol::ErrorCode;

/// Every projection and how far it is.
#[utoipa::path(get, path = "/api/projections", responses((status = 200, description = "x")))]
pub(super) async fn list(_api: web::Data<Api>) -> HttpResponse {
    problem(ErrorCode::Internal, "")
}

/// Rebuild
#[utoipa::path(post, path = "/api/projections/{name}/rebuild", responses((status = 200, description = "x")))]
pub(super) async fn rebuild(_api: web::Data<Api>) -> HttpResponse {
    problem(ErrorCode::Internal, "")
}
