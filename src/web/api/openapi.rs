//! The description of the HTTP API.

use actix_web::HttpResponse;
use utoipa::OpenApi;

/// The `OpenAPI` 3.1 document, made from the handlers.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "dramatis",
        description = "Rooms, timelines, members, events and projections. Live traffic goes over the socket at /socket."
    ),
    paths(
        super::rooms::list,
        super::rooms::open,
        super::rooms::one,
        super::rooms::timeline,
        super::rooms::members,
        super::threads::list,
        super::threads::one,
        super::insight::of_room,
        super::insight::of_user,
        super::insight::statistics,
        super::events::read,
        super::projections::list,
        super::projections::rebuild,
        super::operations::health,
        super::operations::metrics,
    ),
    components(schemas(super::Problem))
)]
struct Document;

/// `GET /api/openapi.json`
pub(super) async fn document() -> HttpResponse {
    HttpResponse::Ok().json(Document::openapi())
}
