//! Whether a request comes from our own page: a browser names its page in `Origin`, other programs send none. Pure.

use axum::http::{HeaderMap, header};

/// True without `Origin`, and where it names the host that was asked. A page elsewhere, or one without an origin (`null`),
/// may neither log in here nor read a stream.
#[must_use]
pub fn is_own(headers: &HeaderMap) -> bool {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let Some(origin) = origins.next() else { return true };
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let authority = origin
        .to_str()
        .ok()
        .and_then(|origin| origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://")));
    origins.next().is_none()
        && authority.is_some_and(|authority| host.is_some_and(|host| host.eq_ignore_ascii_case(authority)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(origin: &'static str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, "feed.example:8080".parse().unwrap());
        headers.insert(header::ORIGIN, origin.parse().unwrap());
        is_own(&headers)
    }

    #[test]
    fn only_the_host_that_was_asked() {
        assert!(own("http://feed.example:8080") && own("https://Feed.Example:8080"));
        for origin in [
            "null",
            "",
            "http://feed.example",
            "http://feed.example:8080.evil",
            "http://evil:8080",
            "ws://feed.example:8080",
        ] {
            assert!(!own(origin), "{origin}");
        }
    }

    #[test]
    fn programs_send_none_and_nobody_two() {
        let mut headers = HeaderMap::new();
        assert!(is_own(&headers));
        headers.insert(header::HOST, "a".parse().unwrap());
        headers.append(header::ORIGIN, "http://a".parse().unwrap());
        headers.append(header::ORIGIN, "http://b".parse().unwrap());
        assert!(!is_own(&headers));
    }
}
