//! Where a webhook may be posted to.

use crate::route::is_host;
use std::net::IpAddr;

/// As long as servers take a request's line.
const URL_MAX: usize = 2048;
const HELP: &str = "write `https://`, a host, a port where it is not 443, and a path";

/// What is wrong with the address, and what to write.
pub(super) fn check(url: &str) -> Result<(), (String, &'static str)> {
    let cannot = || ("is not an address that the coordinator can post to".to_owned(), HELP);
    let (tls, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
        (Some(rest), _) => (true, rest),
        (None, Some(rest)) => (false, rest),
        (None, None) => return Err(cannot()),
    };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let (host, port) = match authority.strip_prefix('[') {
        Some(literal) => literal.split_once(']').ok_or_else(cannot)?,
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let ip: Option<IpAddr> = host.parse().ok();
    let named = is_host(&host.to_ascii_lowercase()) || ip.is_some();
    let ported = port.is_empty() || port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
    let graphic = url.len() <= URL_MAX && url.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    if !named || !ported || !graphic {
        return Err(cannot());
    }
    if !tls && host != "localhost" && !ip.is_some_and(|ip| ip.is_loopback()) {
        let what = "is an address without TLS on another host: the verdict, and what the address keeps secret, could be \
                    read and changed on the way"
            .to_owned();
        return Err((what, HELP));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn an_address_has_tls_or_is_of_this_host() {
        for good in [
            "https://hooks.example.com/services/T0/B0?x=y",
            "https://10.0.0.4:8443",
            "https://[fd00::1]/hook",
            "http://localhost:9000/hook",
            "http://127.0.0.1/hook",
            "http://[::1]:9000/hook",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "hooks.example.com",
            "ftp://hooks.example.com/",
            "https://",
            "https://user:secret@hooks.example.com/",
            "https://hooks.example.com:port/",
            "https://hooks.example.com/a b",
            "https://hooks.example.com/#part",
            "https://[::1/",
            "http://hooks.example.com/",
            "http://10.0.0.4/",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
