//! The clinician's page, embedded in the binary, and the headers that keep it to itself.

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use rust_embed::RustEmbed;

/// What `cargo xtask web` built.
#[derive(RustEmbed)]
#[folder = "web/dist"]
#[allow_missing = true]
struct Assets;

/// Names under `assets/` carry a hash of their content.
const HASHED_FOLDER: &str = "assets/";
const FOREVER: &str = "public, max-age=31536000, immutable";
/// Asked for each time; the entity tag makes that cheap.
const REVALIDATE: &str = "no-cache";

/// Headers of every answer. Scripts, styles and connections only from here; nobody may frame the page.
pub const SECURITY_HEADERS: [(HeaderName, &str); 5] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map(|(_, extension)| extension) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("ico") => "image/x-icon",
        Some("woff2") => "font/woff2",
        Some("json" | "webmanifest") => "application/json",
        Some("txt") => "text/plain; charset=utf-8",
        Some(_) | None => "application/octet-stream",
    }
}

/// One file of the page; `/` is its `index.html`.
pub async fn asset(uri: Uri, headers: HeaderMap) -> Response {
    let path = match uri.path().trim_start_matches('/') {
        "" => "index.html",
        path => path,
    };
    let Some(file) = Assets::get(path) else {
        return match path {
            "index.html" => {
                (StatusCode::SERVICE_UNAVAILABLE, "the page was not built: cargo xtask web\n").into_response()
            }
            _ => (StatusCode::NOT_FOUND, "no such page\n").into_response(),
        };
    };
    let tag = format!("\"{}\"", hex::encode(&file.metadata.sha256_hash()[..16]));
    let known = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let known = known.flat_map(|value| value.split(',')).any(|candidate| {
        let candidate = candidate.trim();
        candidate == "*" || candidate.strip_prefix("W/").unwrap_or(candidate) == tag
    });
    let caching = if path.starts_with(HASHED_FOLDER) { FOREVER } else { REVALIDATE };
    let mut answer = match known {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => ([(header::CONTENT_TYPE, content_type(path))], file.data).into_response(),
    };
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static(caching));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        answer.headers_mut().insert(header::ETAG, tag);
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_page_or_a_word_why_not() {
        let answer = asset(Uri::from_static("/"), HeaderMap::new()).await;
        if Assets::get("index.html").is_none() {
            assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
            return;
        }
        assert_eq!(answer.headers()[header::CONTENT_TYPE], "text/html; charset=utf-8");
        assert_eq!(answer.headers()[header::CACHE_CONTROL], REVALIDATE);
        let headers = HeaderMap::from_iter([(header::IF_NONE_MATCH, answer.headers()[header::ETAG].clone())]);
        let again = asset(Uri::from_static("/index.html"), headers).await;
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
        let script = Assets::iter().find(|path| path.ends_with(".js")).unwrap();
        let answer = asset(format!("/{script}").parse().unwrap(), HeaderMap::new()).await;
        assert_eq!(answer.headers()[header::CACHE_CONTROL], FOREVER);
    }

    #[tokio::test]
    async fn nothing_else_is_served() {
        for path in ["/../Cargo.toml", "/assets/../index.html", "/etc/passwd", "/assets/", "/index.html/"] {
            let answer = asset(path.parse().unwrap(), HeaderMap::new()).await;
            assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{path}");
        }
    }
}
