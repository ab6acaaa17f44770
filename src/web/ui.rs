//! The chat page, the page of admins and the JavaScript client: plain files, compiled in.

use actix_web::http::header::{self, ETag, EntityTag, Header as _, IfNoneMatch};
use actix_web::{HttpRequest, HttpResponse, web};

/// Scripts and styles come from here alone, and nobody may frame the page.
const POLICY: &str = "default-src 'self'; connect-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const TYPES: &str = "text/plain; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// A file of `src/web/ui` under the path it is served at.
struct File {
    path: &'static str,
    kind: &'static str,
    text: &'static str,
}

macro_rules! files {
    ($($path:literal: $kind:ident $file:literal),+ $(,)?) => {
        &[$(File { path: $path, kind: $kind, text: include_str!(concat!("ui/", $file)) }),+]
    };
}

const FILES: &[File] = files! {
    "/": HTML "index.html",
    "/admin": HTML "admin.html",
    "/ui/admin.css": CSS "admin.css",
    "/ui/admin.js": SCRIPT "admin.js",
    "/ui/base.css": CSS "base.css",
    "/ui/chat.css": CSS "chat.css",
    "/ui/chat.js": SCRIPT "chat.js",
    "/ui/composer.js": SCRIPT "composer.js",
    "/ui/conversation.js": SCRIPT "conversation.js",
    "/docs": HTML "docs.html",
    "/ui/docs.css": CSS "docs.css",
    "/ui/docs.js": SCRIPT "docs.js",
    "/ui/dom.js": SCRIPT "dom.js",
    "/ui/icon.svg": SVG "icon.svg",
    "/ui/icons.js": SCRIPT "icons.js",
    "/ui/invitations.js": SCRIPT "invitations.js",
    "/ui/members.js": SCRIPT "members.js",
    "/ui/message-list.js": SCRIPT "message-list.js",
    "/ui/panel.js": SCRIPT "panel.js",
    "/ui/refusals.js": SCRIPT "refusals.js",
    "/ui/room-list.js": SCRIPT "room-list.js",
    "/ui/seen-counts.js": SCRIPT "seen-counts.js",
    "/ui/sidebar.js": SCRIPT "sidebar.js",
    "/ui/standing.js": SCRIPT "standing.js",
    "/ui/status.js": SCRIPT "status.js",
    "/ui/thread.js": SCRIPT "thread.js",
    "/ui/timeline.js": SCRIPT "timeline.js",
    "/ui/welcome.js": SCRIPT "welcome.js",
    "/ui/window.js": SCRIPT "window.js",
    "/ui/words.js": SCRIPT "words.js",
    "/client.js": SCRIPT "client.js",
    "/client.d.ts": TYPES "client.d.ts",
    "/client/account.js": SCRIPT "client/account.js",
    "/client/address.js": SCRIPT "client/address.js",
    "/client/api.js": SCRIPT "client/api.js",
    "/client/backoff.js": SCRIPT "client/backoff.js",
    "/client/client.js": SCRIPT "client/client.js",
    "/client/connection.js": SCRIPT "client/connection.js",
    "/client/content.js": SCRIPT "client/content.js",
    "/client/cursor.js": SCRIPT "client/cursor.js",
    "/client/emitter.js": SCRIPT "client/emitter.js",
    "/client/errors.js": SCRIPT "client/errors.js",
    "/client/ids.js": SCRIPT "client/ids.js",
    "/client/outbox.js": SCRIPT "client/outbox.js",
    "/client/poll.js": SCRIPT "client/poll.js",
    "/client/posts.js": SCRIPT "client/posts.js",
    "/client/presence.js": SCRIPT "client/presence.js",
    "/client/protocol.d.ts": TYPES "client/protocol.d.ts",
    "/client/relay.js": SCRIPT "client/relay.js",
    "/client/room.js": SCRIPT "client/room.js",
    "/client/socket.js": SCRIPT "client/socket.js",
    "/client/store.js": SCRIPT "client/store.js",
    "/client/stream.js": SCRIPT "client/stream.js",
    "/client/tab.js": SCRIPT "client/tab.js",
    "/client/tokens.js": SCRIPT "client/tokens.js",
    "/client/transports.js": SCRIPT "client/transports.js",
};

/// Adds the files' routes.
pub(super) fn configure(config: &mut web::ServiceConfig) {
    for file in FILES {
        let tag = EntityTag::new_strong(blake3::hash(file.text.as_bytes()).to_string());
        config.route(
            file.path,
            super::api::get().to(move |request: HttpRequest| {
                let answer = answer(file, &tag, &request);
                async move { answer }
            }),
        );
    }
}

/// The file, or that it is the one that the browser has: it asks each time, as after an upgrade the files
/// go together.
fn answer(file: &File, tag: &EntityTag, request: &HttpRequest) -> HttpResponse {
    let is_known = match IfNoneMatch::parse(request) {
        Ok(IfNoneMatch::Any) => true,
        Ok(IfNoneMatch::Items(known)) => known.iter().any(|known| known.weak_eq(tag)),
        Err(_) => false,
    };
    let mut answer = if is_known { HttpResponse::NotModified() } else { HttpResponse::Ok() };
    answer
        .insert_header((header::CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .insert_header(ETag(tag.clone()));
    if is_known {
        return answer.finish();
    }
    answer.insert_header((header::CONTENT_TYPE, file.kind)).body(file.text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use std::path::Path;

    use super::*;

    /// Every file that a script imports or the page names is served, and stays small.
    #[test]
    fn what_is_imported_is_served() {
        const LINES_MAX: usize = 500;
        let mut count = 0;
        for file in FILES.iter().filter(|file| file.kind == SCRIPT) {
            assert!(file.text.lines().count() <= LINES_MAX, "{} has over {LINES_MAX} lines", file.path);
            let folder = Path::new(file.path).parent().unwrap();
            for import in file.text.lines().filter_map(|line| {
                let line = line.trim_start();
                let named =
                    line.starts_with("import ") || line.starts_with("export {") || line.starts_with("} from");
                named.then(|| line.split(" from \"").nth(1)?.split('"').next()).flatten()
            }) {
                let path = import.strip_prefix("./").map_or_else(|| import.into(), |name| folder.join(name));
                let served = FILES.iter().any(|file| Path::new(file.path) == path);
                assert!(served, "{} imports {import}, which is not served", file.path);
                count += 1;
            }
        }
        assert!(count > 20, "only {count} imports were found");
    }
}
