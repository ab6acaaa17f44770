//! The description of the HTTP API.

use std::collections::HashMap;
use std::sync::LazyLock;

use actix_web::HttpResponse;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{self, Content, PathItem, Ref, ResponseBuilder};
use utoipa::{Modify, OpenApi};

/// The `OpenAPI` 3.1 document, made from the handlers.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "dramatis",
        description = "Rooms, timelines, members, events and projections. Live traffic goes over the socket at /socket, or by /api/stream, /api/poll, /api/frames and /api/commands where there can be no socket; all carry the same messages. What GET answers HEAD does too, without the body, but for events, streams and polls. A page of large documents ends after about 1 MiB, with fewer than were asked for: whether there is another one, `next` or `more` tells. An answer with the header dramatis-parked-from lacks what was recorded from that position on of a key that is parked: its fold failed, and an administrator has to retry it or skip the event."
    ),
    paths(
        super::me::me,
        super::rooms::list,
        super::rooms::open,
        super::rooms::one,
        super::rooms::timeline,
        super::rooms::members,
        crate::web::fallback::commands::post,
        crate::web::fallback::frames::post,
        crate::web::sse::begin,
        crate::web::sse::resume,
        crate::web::poll::begin,
        crate::web::poll::resume,
        super::search::messages,
        super::threads::list,
        super::threads::one,
        super::insight::of_room,
        super::insight::of_user,
        super::insight::statistics,
        super::events::read,
        super::projections::list,
        super::projections::one,
        super::projections::jobs::rebuild,
        super::projections::jobs::verify,
        super::projections::jobs::as_of,
        super::projections::jobs::pause,
        super::projections::jobs::resume,
        super::projections::jobs::cancel,
        super::projections::jobs::accept,
        super::projections::jobs::roll_back,
        super::projections::jobs::drop_past,
        super::projections::letters::list,
        super::projections::letters::retry,
        super::projections::letters::skip,
        super::projections::documents::one,
        super::projections::documents::all,
        super::projections::documents::why,
        super::operations::health,
        super::operations::metrics,
    ),
    components(schemas(super::Problem)),
    modifiers(&Tokens, &Refusals, &Names),
    // In local mode there are none.
    security(("token" = []), ())
)]
struct Document;

/// How a request shows its token.
struct Tokens;

impl Modify for Tokens {
    fn modify(&self, document: &mut openapi::OpenApi) {
        let about = "A token of `dramatis token`; only where the server has a key for them";
        let bearer =
            HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").description(Some(about));
        document
            .components
            .get_or_insert_default()
            .add_security_scheme("token", SecurityScheme::Http(bearer.build()));
    }
}

/// What any request may be answered with: before its handler is asked, and when that cannot answer now.
struct Refusals;

const REFUSALS: [(&str, &str, &str); 2] = [
    (
        "4XX",
        "Refused",
        "Refused, as `code` says: `malformed` (400, 405, 408, 413), no good token (401), `forbidden` (403), \
         `not_found` (404), `rate_limited` (429) and what else the request asks for",
    ),
    (
        "5XX",
        "NotNow",
        "Not now: `unavailable` and `unknown_outcome` (503), to be sent again, or `internal` (500)",
    ),
];

impl Modify for Refusals {
    fn modify(&self, document: &mut openapi::OpenApi) {
        let problem = Content::new(Some(Ref::from_schema_name("Problem")));
        let responses = &mut document.components.get_or_insert_default().responses;
        for (_, name, about) in REFUSALS {
            let response = ResponseBuilder::new().description(about);
            let response = response.content(crate::web::api::PROBLEM_TYPE, problem.clone()).build();
            responses.insert(name.to_owned(), response.into());
        }
        let operations = document.paths.paths.values_mut().flat_map(|item| {
            [&mut item.get, &mut item.head, &mut item.post].into_iter().filter_map(Option::as_mut)
        });
        for operation in operations {
            for (status, name, _) in REFUSALS {
                let known = &mut operation.responses.responses;
                known.entry(status.to_owned()).or_insert_with(|| Ref::from_response_name(name).into());
            }
        }
    }
}

/// Operations are named by method and path: two of one name would make it no document, and clients that are
/// made of it would have one of them alone.
struct Names;

impl Modify for Names {
    fn modify(&self, document: &mut openapi::OpenApi) {
        for (path, item) in &mut document.paths.paths {
            let path = path.strip_prefix("/api").unwrap_or(path).replace(['{', '}'], "").replace('/', "_");
            let methods = [("get", &mut item.get), ("head", &mut item.head), ("post", &mut item.post)];
            for (method, operation) in methods {
                if let Some(operation) = operation {
                    operation.operation_id = Some(format!("{method}{path}"));
                }
            }
        }
    }
}

/// Where there is no end to what is got, or it is gone then.
const GOT_ALONE: [&str; 3] = ["/api/events", "/api/stream", "/api/poll"];

/// The methods that a path takes, by its pattern.
static METHODS: LazyLock<HashMap<String, String>> = LazyLock::new(|| {
    let methods = |path: &str, item: &PathItem| {
        let got = item.get.is_some();
        let asked_about = got && !GOT_ALONE.contains(&path);
        let known = [("GET", got), ("HEAD", asked_about), ("POST", item.post.is_some())];
        let taken: Vec<_> =
            known.into_iter().filter(|(_, is_taken)| *is_taken).map(|(name, _)| name).collect();
        taken.join(", ")
    };
    Document::openapi()
        .paths
        .paths
        .into_iter()
        .map(|(path, item)| {
            let taken = methods(&path, &item);
            (path, taken)
        })
        .collect()
});

/// The methods that the route of this pattern takes. What is not described here, pages and the like,
/// is there to be got and asked about.
pub(super) fn methods(pattern: &str) -> &'static str {
    METHODS.get(pattern).map_or("GET, HEAD", String::as_str)
}

/// `GET /api/openapi.json`
pub(super) async fn document() -> HttpResponse {
    HttpResponse::Ok().json(Document::openapi())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may fail loudly")]
mod tests {
    use super::*;

    #[test]
    fn it_says_how_a_token_is_shown() {
        let document = serde_json::to_value(Document::openapi()).unwrap();
        let scheme = document.pointer("/components/securitySchemes/token").unwrap();
        assert_eq!((&scheme["type"], &scheme["scheme"]), (&"http".into(), &"bearer".into()));
        assert_eq!(document["security"], serde_json::json!([{"token": []}, {}]));
    }

    #[test]
    fn every_answer_that_any_request_may_have_is_said() {
        let document = serde_json::to_value(Document::openapi()).unwrap();
        let mut count = 0;
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                for status in ["4XX", "5XX"] {
                    count += 1;
                    let answer = &operation["responses"][status];
                    let named = answer["$ref"].as_str().map(|name| name.trim_start_matches('#'));
                    let answer = named.map_or(answer, |name| document.pointer(name).unwrap());
                    let schema = &answer["content"]["application/problem+json"]["schema"]["$ref"];
                    assert_eq!(schema, "#/components/schemas/Problem", "{status} of {method} {path}");
                }
            }
        }
        assert!(count > 60, "only {count} answers");
    }

    #[test]
    fn every_operation_has_a_name_of_its_own() {
        let document = serde_json::to_value(Document::openapi()).unwrap();
        let items = document["paths"].as_object().unwrap().values();
        let operations = items.flat_map(|item| item.as_object().unwrap().values());
        let mut names: Vec<_> =
            operations.map(|operation| operation["operationId"].as_str().unwrap().to_owned()).collect();
        names.sort_unstable();
        assert!(names.len() > 30 && names.iter().any(|name| name == "get_rooms_room_timeline"), "{names:?}");
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
    }

    #[test]
    fn a_parameter_is_said_to_be_where_it_is() {
        let document = serde_json::to_value(Document::openapi()).unwrap();
        let mut count = 0;
        for (path, item) in document.get("paths").unwrap().as_object().unwrap() {
            let operations = item.as_object().unwrap().values();
            let parameters =
                operations.filter_map(|operation| operation.get("parameters")?.as_array()).flatten();
            for parameter in parameters {
                count += 1;
                let name = parameter.get("name").unwrap().as_str().unwrap();
                let in_path = parameter.get("in").unwrap() == "path";
                assert_eq!(in_path, path.contains(&format!("{{{name}}}")), "{name} of {path}");
            }
        }
        assert!(count > 20, "only {count} parameters");
    }
}
