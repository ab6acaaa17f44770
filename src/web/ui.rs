//! The chat page: plain files, compiled in.

use actix_web::http::header;
use actix_web::{HttpResponse, web};

/// Scripts and styles come from here alone, and nobody may frame the page.
const POLICY: &str = "default-src 'self'; connect-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'";

macro_rules! file {
    ($config:expr, $path:literal, $file:literal, $kind:literal) => {
        $config.route($path, web::get().to(|| async { page($kind, include_str!(concat!("ui/", $file))) }));
    };
}

/// Adds the page's routes.
pub(super) fn configure(config: &mut web::ServiceConfig) {
    file!(config, "/", "index.html", "text/html; charset=utf-8");
    file!(config, "/ui/chat.css", "chat.css", "text/css; charset=utf-8");
    file!(config, "/ui/icon.svg", "icon.svg", "image/svg+xml");
    file!(config, "/ui/chat.js", "chat.js", "text/javascript; charset=utf-8");
    file!(config, "/ui/composer.js", "composer.js", "text/javascript; charset=utf-8");
    file!(config, "/ui/connection.js", "connection.js", "text/javascript; charset=utf-8");
    file!(config, "/ui/dom.js", "dom.js", "text/javascript; charset=utf-8");
    file!(config, "/ui/room.js", "room.js", "text/javascript; charset=utf-8");
    file!(config, "/ui/sidebar.js", "sidebar.js", "text/javascript; charset=utf-8");
    file!(config, "/ui/timeline.js", "timeline.js", "text/javascript; charset=utf-8");
}

fn page(kind: &'static str, text: &'static str) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, kind))
        .insert_header((header::CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .body(text)
}
