//! The Playground's files: what the page names is there, with its type; caching, compression, guards. A blank page must be impossible.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::Value;

use crate::harness::{Answer, Server};

const PATHS: [&str; 13] = [
    "/",
    "/chat",
    "/chat/chat_1",
    "/teach",
    "/models",
    "/models/mine",
    "/keys",
    "/usage",
    "/reference",
    "/account",
    "/welcome",
    "/invite",
    "/signin",
];

async fn text(server: &Server, path: &str) -> (String, String) {
    let response = server.client.get(server.url(path)).send().await.expect("answer");
    assert_eq!(response.status().as_u16(), 200, "{path}");
    let media = response.headers()["content-type"].to_str().expect("type").to_owned();
    (media, response.text().await.expect("text"))
}

/// The values of `src` and `href`.
fn loaded(html: &str) -> Vec<String> {
    let values = ["src=\"", "href=\""].iter().flat_map(|name| html.split(name).skip(1));
    values.map(|rest| rest.split('"').next().expect("value").to_owned()).collect()
}

/// Names of built files in a script or a style: `/assets/x.js`, `assets/x.css`, `./x.js`.
fn named(text: &str) -> BTreeSet<String> {
    const KINDS: [&str; 6] = [".js", ".css", ".svg", ".png", ".woff2", ".wasm"];
    let pieces = text.split(['"', '\'', '`', '(', ')', ' ', ',', '[', ']', '\n']);
    let named = pieces.filter_map(|piece| ["/assets/", "assets/", "./"].iter().find_map(|start| piece.strip_prefix(start)));
    let plain = |name: &&str| name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    named.filter(plain).filter(|name| KINDS.iter().any(|kind| name.ends_with(kind))).map(|name| format!("/assets/{name}")).collect()
}

/// A script or style that a browser would fetch from somewhere else.
fn loads_from_elsewhere(text: &str) -> Option<&'static str> {
    const WAYS: [&str; 14] = [
        "import(\"http",
        "import('http",
        "import(`http",
        "from\"http",
        "from 'http",
        "from \"http",
        "import\"http",
        "fetch(\"http",
        "fetch('http",
        "url(http",
        "url(\"http",
        "url(//",
        "@import \"http",
        "@import url",
    ];
    WAYS.into_iter().find(|way| text.contains(way))
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_the_page_names_is_there() {
    let server = Server::start().await;
    let (media, html) = text(&server, "/").await;
    assert_eq!(media, "text/html; charset=utf-8");
    let mut open: Vec<String> = loaded(&html);
    assert!(open.iter().any(|path| path.ends_with(".js")), "the page has no script: {html}");
    assert!(!html.contains("<script>") && !html.contains("style=\"") && !html.contains(" onload="), "the policy refuses inline code");
    let mut seen = BTreeSet::new();
    while let Some(path) = open.pop() {
        if path.starts_with("data:") || !seen.insert(path.clone()) {
            continue;
        }
        assert!(path.starts_with('/') && !path.starts_with("//"), "{path} is loaded from elsewhere");
        let (media, text) = text(&server, &path).await;
        let expected = match path.rsplit('.').next().expect("kind") {
            "js" => "text/javascript; charset=utf-8",
            "css" => "text/css; charset=utf-8",
            "svg" => "image/svg+xml",
            "woff2" => "font/woff2",
            _ => "image/png",
        };
        assert_eq!(media, expected, "{path}");
        if path.ends_with(".js") || path.ends_with(".css") {
            assert_eq!(loads_from_elsewhere(&text), None, "{path}");
            open.extend(named(&text));
        }
    }
    for name in tiger_server::file_names() {
        assert!(!name.ends_with(".map"), "{name}: source maps do not ship");
        let path = format!("/{name}");
        let kind = path.rsplit('.').next().expect("kind");
        if matches!(kind, "js" | "css") {
            let text = text(&server, &path).await.1;
            assert!(!text.contains("sourceMappingURL"), "{name}");
            assert_eq!(loads_from_elsewhere(&text), None, "{name}");
            for asset in named(&text) {
                assert!(tiger_server::file_names().contains(&asset[1..].to_owned()), "{name} names {asset}, which is not embedded");
            }
        }
    }
}

#[test]
fn the_search_for_names_finds_them() {
    let script = "const m=[\"assets/Chat-a1.js\",\"assets/Chat-b2.css\"];import(\"./Teach-c3.js\");a.b(\"./no/path.js\")";
    assert_eq!(named(script), ["/assets/Chat-a1.js", "/assets/Chat-b2.css", "/assets/Teach-c3.js"].map(str::to_owned).into());
    assert_eq!(named("src:url(/assets/f-1.woff2) format('woff2')"), ["/assets/f-1.woff2".to_owned()].into());
    assert_eq!(loaded("<link href=\"/a.css\"><script src=\"/b.js\">"), ["/b.js", "/a.css"]);
    assert!(loads_from_elsewhere("x=import(\"https://cdn/x.js\")").is_some() && loads_from_elsewhere("\"https://docs\"").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_path_of_the_page_is_the_page_and_no_other() {
    let server = Server::start().await;
    let index = text(&server, "/").await.1;
    for path in PATHS {
        assert_eq!(text(&server, path).await.1, index, "{path}");
    }
    for path in ["/nowhere", "/chat/a/b", "/assets/nowhere.js", "/assets/../index.html", "/assets/%2e%2e/index.html", "/index.html"] {
        let answer = Answer::read(server.client.get(server.url(path))).await;
        assert_eq!(answer.error(), (404, "not_found", None), "{path}");
    }
    let posted = Answer::read(server.client.post(server.url("/chat"))).await;
    assert_eq!(posted.error().0, 405);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_asked_for_again_and_its_assets_are_kept() {
    let server = Server::start().await;
    let asset = tiger_server::file_names().into_iter().filter(|name| name.ends_with(".js")).max().expect("a script");
    for (path, cache) in [("/".to_owned(), "no-cache"), (format!("/{asset}"), "public, max-age=31536000, immutable")] {
        let get = |header: &'static str, value: String| server.client.get(server.url(&path)).header(header, value).send();
        let first = get("accept", "*/*".into()).await.expect("answer");
        assert_eq!(first.headers()["cache-control"], cache, "{path}");
        assert_eq!(first.headers()["vary"], "accept-encoding");
        assert!(first.headers().get("content-encoding").is_none());
        let etag = first.headers()["etag"].to_str().expect("etag").to_owned();
        let plain = first.bytes().await.expect("bytes");
        let again = get("if-none-match", format!("\"other\", W/{etag}")).await.expect("answer");
        assert_eq!((again.status().as_u16(), again.headers()["etag"].to_str().ok()), (304, Some(etag.as_str())), "{path}");
        assert!(again.headers().contains_key("content-security-policy") && again.bytes().await.expect("bytes").is_empty());
        assert_eq!(get("if-none-match", "\"other\"".into()).await.expect("answer").status().as_u16(), 200);
        for (accepted, packs) in [("br, gzip", true), ("gzip;q=0", false), ("br", false)] {
            let answer = get("accept-encoding", accepted.into()).await.expect("answer");
            let packed = answer.headers().get("content-encoding").is_some_and(|coding| coding == "gzip");
            assert_eq!(packed, packs && plain.len() >= 512, "{path} {accepted}");
            assert_eq!(packed, answer.headers()["etag"] != etag.as_str(), "{path}: each encoding has its tag");
            let bytes = answer.bytes().await.expect("bytes");
            if packed {
                let mut unpacked = Vec::new();
                std::io::copy(&mut flate2::read::GzDecoder::new(&bytes[..]), &mut unpacked).expect("gzip");
                assert!(unpacked == plain && bytes.len() < plain.len(), "{path}");
            } else {
                assert_eq!(bytes, plain, "{path}");
            }
        }
    }
    let head = server.client.request(Method::HEAD, server.url("/")).send().await.expect("answer");
    assert_eq!(head.status().as_u16(), 200);
    let value: Value = Answer::read(server.client.get(server.url("/api/session"))).await.body;
    assert_eq!(value["signed_in"], false);
}
