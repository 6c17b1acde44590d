//! Who may speak over TCP: programs on this device, or those that have the token; never a web page of
//! another site that a browser on this device shows.

use std::net::{IpAddr, SocketAddr};

use http::uri::Authority;
use http::{HeaderMap, Uri, header};

use super::token::Token;
use crate::driver::answer::ApiError;

/// The rules of one TCP listener.
#[derive(Debug)]
pub(super) struct Guard {
    /// The loopback names that it may be called by; `None` where a token protects an open address.
    hosts: Option<Vec<String>>,
    port: u16,
    token: Option<Token>,
}

impl Guard {
    pub(super) fn new(addr: SocketAddr, token: Option<Token>) -> Self {
        let ip = addr.ip().to_canonical();
        let hosts = (ip.is_loopback() || token.is_none()).then(|| {
            let mut hosts: Vec<String> = ["localhost", "127.0.0.1", "[::1]"].map(str::to_owned).into();
            let own = match ip {
                IpAddr::V4(ip) => ip.to_string(),
                IpAddr::V6(ip) => format!("[{ip}]"),
            };
            if ip.is_loopback() && !hosts.contains(&own) {
                hosts.push(own);
            }
            hosts
        });
        Self { hosts, port: addr.port(), token }
    }

    /// Whether a token is asked for, which then must not reach a function.
    pub(super) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Checks a request. `open` paths need no token.
    pub(super) fn check(&self, uri: &Uri, headers: &HeaderMap, open: bool) -> Result<(), ApiError> {
        let mut hosts = headers.get_all(header::HOST).iter();
        let (host, more) = (hosts.next(), hosts.next());
        let host = match (uri.authority(), host) {
            _ if more.is_some() => None,
            (Some(authority), _) => Some(authority.as_str()),
            (None, host) => host.and_then(|host| host.to_str().ok()),
        };
        let Some(host) = host else {
            return Err(ApiError::bad_request("The request has no usable `Host` header, or several."));
        };
        if !self.is_own(host) {
            return Err(ApiError::denied(format!(
                "This interface answers to localhost, 127.0.0.1 and [::1] only, and the request's Host is \
                 `{}`. A web site could otherwise reach it under a name of its own (DNS rebinding).",
                host.chars().take(80).collect::<String>()
            )));
        }
        // Browsers send each once. Of several, what reads the request next may take another one than this.
        if several(headers, header::ORIGIN.as_str()) || several(headers, "sec-fetch-site") {
            return Err(ApiError::bad_request(
                "The request has several `Origin` or `Sec-Fetch-Site` headers.",
            ));
        }
        if let Some(origin) = headers.get(header::ORIGIN) {
            let origin = origin.to_str().unwrap_or_default();
            if !self.is_own_origin(origin, host) {
                return Err(foreign("its Origin is another site's"));
            }
        }
        if let Some(site) = headers.get("sec-fetch-site")
            && !matches!(site.as_bytes(), b"same-origin" | b"none")
        {
            return Err(foreign("its Sec-Fetch-Site says so"));
        }
        match &self.token {
            Some(token) if !open && !token.is_borne_by(headers.get(header::AUTHORIZATION)) => {
                Err(ApiError::unauthorized(
                    "This interface asks for a token: send `Authorization: Bearer …` with the one in the \
                     node's token file.",
                ))
            }
            _ => Ok(()),
        }
    }

    fn is_own(&self, host: &str) -> bool {
        let Some(hosts) = &self.hosts else { return true };
        let of = |own: &String| {
            let (name, rest) = host.split_at_checked(own.len())?;
            let port = match rest.strip_prefix(':') {
                Some(port) => port.parse() == Ok(self.port),
                None => rest.is_empty(),
            };
            (name.eq_ignore_ascii_case(own) && port).then_some(())
        };
        hosts.iter().any(|own| of(own).is_some())
    }

    /// `http://` and a name of this listener with its port: what a page served by it would send.
    fn is_own_origin(&self, origin: &str, host: &str) -> bool {
        let Some(authority) = origin.strip_prefix("http://") else {
            // Behind a proxy that speaks TLS the page's scheme is https; only a token opens that way.
            return self.hosts.is_none() && origin.strip_prefix("https://") == Some(host);
        };
        if self.hosts.is_none() {
            return authority.eq_ignore_ascii_case(host);
        }
        let Ok(parsed) = authority.parse::<Authority>() else { return false };
        // An origin without a port is one of port 80.
        self.is_own(authority) && parsed.port_u16().unwrap_or(80) == self.port
    }
}

fn several(headers: &HeaderMap, name: &str) -> bool {
    headers.get_all(name).iter().nth(1).is_some()
}

fn foreign(why: &str) -> ApiError {
    ApiError::denied(format!(
        "The request comes from a web page of another site: {why}. Such pages may not use the functions of \
         the device that shows them."
    ))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn check(guard: &Guard, headers: &[(&'static str, &'static str)]) -> u16 {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        guard.check(&Uri::from_static("/function/x"), &map, false).map_or_else(|e| e.status, |()| 200)
    }

    #[test]
    fn only_loopback_names_with_the_right_port_are_answered() {
        let guard = Guard::new("127.0.0.2:8080".parse().expect("an address"), None);
        for host in
            ["localhost", "LocalHost:8080", "127.0.0.1", "127.0.0.1:8080", "[::1]:8080", "127.0.0.2:8080"]
        {
            assert_eq!(check(&guard, &[("host", host)]), 200, "{host}");
        }
        for host in [
            "evil.example",
            "localhost:80",
            "localhost.evil.example",
            "127.0.0.1.nip.io",
            "",
            "[::1",
            "127.0.0.1:8080:1",
        ] {
            assert_eq!(check(&guard, &[("host", host)]), 403, "{host}");
        }
        assert_eq!(check(&guard, &[]), 400);
        assert_eq!(check(&guard, &[("host", "localhost"), ("host", "evil.example")]), 400);
        let absolute = Uri::from_static("http://evil.example/function/x");
        let mut headers = HeaderMap::new();
        headers.insert("host", HeaderValue::from_static("localhost"));
        assert_eq!(guard.check(&absolute, &headers, false).map_err(|e| e.status), Err(403));
    }

    #[test]
    fn pages_of_other_sites_are_refused() {
        let guard = Guard::new("127.0.0.1:8080".parse().expect("an address"), None);
        let with = |name, value| check(&guard, &[("host", "localhost:8080"), (name, value)]);
        for origin in ["http://localhost:8080", "http://127.0.0.1:8080", "http://[::1]:8080"] {
            assert_eq!(with("origin", origin), 200, "{origin}");
        }
        for origin in [
            "http://evil.example",
            "https://localhost:8080",
            "http://localhost",
            "http://localhost:3000",
            "null",
            "",
            "http://localhost:8080@evil.example",
        ] {
            assert_eq!(with("origin", origin), 403, "{origin}");
        }
        assert_eq!(with("sec-fetch-site", "same-origin"), 200);
        assert_eq!(with("sec-fetch-site", "none"), 200);
        assert_eq!(with("sec-fetch-site", "cross-site"), 403);
        assert_eq!(with("sec-fetch-site", "same-site"), 403);
        assert_eq!(with("sec-fetch-site", "none, cross-site"), 403);
    }

    #[test]
    fn headers_that_say_where_a_request_comes_from_come_once() {
        let guard = Guard::new("127.0.0.1:8080".parse().expect("an address"), None);
        let own = ("origin", "http://localhost:8080");
        let evil = ("origin", "http://evil.example");
        let (same, cross) = (("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site"));
        for both in [[own, evil], [evil, own], [own, own], [same, cross], [cross, same]] {
            let all: Vec<_> = [("host", "localhost:8080")].into_iter().chain(both).collect();
            assert_eq!(check(&guard, &all), 400, "{both:?}");
        }
    }

    #[test]
    fn a_token_opens_an_address_for_those_who_have_it() {
        let token = Token::new("0123456789abcdef").expect("a token");
        let guard = Guard::new("0.0.0.0:8080".parse().expect("an address"), Some(token));
        let bearer = ("authorization", "Bearer 0123456789abcdef");
        assert_eq!(check(&guard, &[("host", "edge.example:8080"), bearer]), 200);
        assert_eq!(check(&guard, &[("host", "edge.example:8080")]), 401);
        let same = ("origin", "http://edge.example:8080");
        assert_eq!(check(&guard, &[("host", "edge.example:8080"), bearer, same]), 200);
        assert_eq!(check(&guard, &[("host", "other.example:8080"), bearer, same]), 403);
        let mut headers = HeaderMap::new();
        headers.insert("host", HeaderValue::from_static("edge.example"));
        assert_eq!(guard.check(&Uri::from_static("/healthz"), &headers, true), Ok(()));
    }
}
