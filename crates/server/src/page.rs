//! The Playground's files, built into the program from `playground/dist`: types, caching, compression, and the headers that keep other
//! sites' pages and scripts out. Does not know what the page does.

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::{LazyLock, OnceLock};

use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine as _;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use rust_embed::RustEmbed;

use crate::app::App;

#[derive(RustEmbed)]
#[folder = "../../playground/dist/"]
struct Dist;

/// The one document; the page itself reads the path.
const INDEX: &str = "index.html";
/// Every path of the page. Others stay 404, so that a misspelt one is an error.
const PATHS: [&str; 13] = [
    "/",
    "/chat",
    "/chat/{id}",
    "/teach",
    "/models",
    "/models/{id}",
    "/keys",
    "/usage",
    "/reference",
    "/account",
    "/welcome",
    "/invite",
    "/signin",
];
/// Smaller files gain less by compression than its header takes.
const COMPRESSED_FROM_BYTES: usize = 512;

/// Only this server's own scripts, styles and images; no inline script, no frame around it, no form that leaves.
const POLICY: &str = "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; font-src 'self'; \
                      object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";
/// What the page never needs.
const PERMISSIONS: &str = "accelerometer=(), camera=(), display-capture=(), geolocation=(), gyroscope=(), magnetometer=(), microphone=(), \
                           midi=(), payment=(), serial=(), usb=()";

const GUARDS: [(&str, &str); 6] = [
    ("content-security-policy", POLICY),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("permissions-policy", PERMISSIONS),
];

/// Names carry a hash of their content, so they may be kept for ever.
const FOR_EVER: &str = "public, max-age=31536000, immutable";
/// Kept, but asked for each time: a new program has a new page.
const ASK: &str = "no-cache";

struct File {
    bytes: Bytes,
    media: &'static str,
    etag: String,
    /// Made at the first request that takes it; `None` where it would not be smaller.
    gzip: OnceLock<Option<Bytes>>,
}

static FILES: LazyLock<HashMap<String, File>> = LazyLock::new(|| {
    let read = |name: std::borrow::Cow<'static, str>| {
        let file = Dist::get(&name)?;
        let etag = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&file.metadata.sha256_hash()[..12]);
        let bytes = match file.data {
            std::borrow::Cow::Borrowed(bytes) => Bytes::from_static(bytes),
            std::borrow::Cow::Owned(bytes) => Bytes::from(bytes),
        };
        let media = media(&name);
        Some((name.into_owned(), File { bytes, media, etag, gzip: OnceLock::new() }))
    };
    Dist::iter().filter_map(read).collect()
});

fn media(name: &str) -> &'static str {
    match name.rsplit('.').next().unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "txt" => "text/plain; charset=utf-8",
        "json" => "application/json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "woff2" => "font/woff2",
        _ => "application/octet-stream",
    }
}

/// The routes of the page. They need no session: the page asks for one.
pub fn routes() -> Router<App> {
    let index = |headers: HeaderMap| async move { answer(INDEX, ASK, &headers) };
    let router = PATHS.iter().fold(Router::new(), |router, path| router.route(path, get(index)));
    router.route("/favicon.svg", get(|headers: HeaderMap| async move { answer("favicon.svg", ASK, &headers) })).route(
        "/assets/{*path}",
        get(|Path(path): Path<String>, headers: HeaderMap| async move { answer(&format!("assets/{path}"), FOR_EVER, &headers) }),
    )
}

/// Names of the embedded files, for the test that none is missing.
#[doc(hidden)]
pub fn file_names() -> Vec<String> {
    FILES.keys().cloned().collect()
}

fn answer(name: &str, cache: &'static str, headers: &HeaderMap) -> Response {
    let Some(file) = FILES.get(name) else { return StatusCode::NOT_FOUND.into_response() };
    let packed = if accepts_gzip(headers) { file.gzip.get_or_init(|| gzip(file)).clone() } else { None };
    // Another encoding is another representation, with its own tag.
    let etag = format!("\"{}{}\"", file.etag, if packed.is_some() { "-gzip" } else { "" });
    let mut response = if is_known(headers, &etag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let encoded = packed.is_some();
        let mut response = packed.unwrap_or_else(|| file.bytes.clone()).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(file.media));
        if encoded {
            response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        response
    };
    let answered = response.headers_mut();
    for (name, value) in GUARDS {
        answered.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    answered.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    answered.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    if let Ok(value) = HeaderValue::from_str(&etag) {
        answered.insert(header::ETAG, value);
    }
    response
}

fn gzip(file: &File) -> Option<Bytes> {
    let text = file.media.starts_with("text/") || matches!(file.media, "image/svg+xml" | "application/json");
    if !text || file.bytes.len() < COMPRESSED_FROM_BYTES {
        return None;
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&file.bytes).ok()?;
    encoder.finish().ok().filter(|packed| packed.len() < file.bytes.len()).map(Bytes::from)
}

fn accepts_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let gzip = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        let refused = parts.next().and_then(|q| q.strip_prefix("q=")).and_then(|q| q.parse::<f64>().ok()).is_some_and(|q| q <= 0.0);
        gzip && !refused
    })
}

fn is_known(headers: &HeaderMap, etag: &str) -> bool {
    let values = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|known| known.trim().trim_start_matches("W/") == etag)
}
