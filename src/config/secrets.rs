//! What a log line may show of settings that hold secrets, and how to recognise a secret that is given instead of a file's name.

use std::path::Path;

/// Whether this is a JWT and not the name of a file: <https://datatracker.ietf.org/doc/html/rfc7519>.
pub(crate) fn is_jwt(text: &str) -> bool {
    text.starts_with("eyJ") && text.split('.').count() == 3 && !text.contains(['/', '\\'])
}

/// Whether this is an nkey's seed, or one with a mistake in it, and not the name of a file.
pub(super) fn is_seed(path: &Path) -> bool {
    let text = path.to_string_lossy();
    text.len() >= 40 && text.starts_with('S') && text.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit())
}

/// Whether these are the contents of a file, credentials or a key for instance, and not its name.
pub(super) fn is_contents(path: &Path) -> bool {
    let text = path.to_string_lossy();
    text.contains("-----BEGIN") || text.contains('\n') || is_jwt(text.trim()) || is_seed(Path::new(text.trim()))
}

/// The scheme of a server's address, `nats` in `nats://host`, and the rest.
pub(crate) fn split_scheme(server: &str) -> (Option<&str>, &str) {
    // A password may contain `://` too.
    let is_scheme = |scheme: &str| !scheme.is_empty() && scheme.chars().all(|c| c.is_ascii_alphanumeric());
    match server.split_once("://") {
        Some((scheme, rest)) if is_scheme(scheme) => (Some(scheme), rest),
        _ => (None, server),
    }
}

/// A server's address without user, password or token, which are before its last `@`.
pub(crate) fn without_login(server: &str) -> String {
    match (split_scheme(server), server.rsplit_once('@')) {
        ((Some(scheme), _), Some((_, host))) => format!("{scheme}://{host}"),
        (_, Some((_, host))) => host.to_owned(),
        (_, None) => server.to_owned(),
    }
}

/// A server's address for a log line or an error: its scheme, host and port. Everything else is hidden, because it may be part of a
/// password: a password may contain a `/` or an `@`, or the host may be missing.
pub(crate) fn without_secrets(server: &str) -> String {
    let without_login = without_login(server);
    let (scheme, rest) = split_scheme(&without_login);
    let scheme = scheme.map_or(String::new(), |scheme| format!("{scheme}://"));
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.is_empty() {
        return scheme;
    }
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (rest, None),
    };
    let is_name = |host: &str| !host.is_empty() && host.chars().all(|c| c.is_alphanumeric() || ".-_*".contains(c));
    let is_host = is_name(host) || host.strip_prefix('[').is_some_and(|host| host.ends_with(']'));
    let is_port = |port: &str| port.len() <= 5 && port.chars().all(|c| c.is_ascii_digit());
    if is_host && port.is_none_or(is_port) {
        return format!("{scheme}{rest}");
    }
    match rest.split_once(':') {
        Some((user, _)) if is_name(user) && !server.contains('@') => format!("{scheme}{user}:***"),
        _ => format!("{scheme}***"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_address_no_more_is_shown_than_scheme_host_and_port() {
        for (server, shown) in [
            ("nats://a", "nats://a"),
            ("nats://", "nats://"),
            ("nats://hunter2@", "nats://"),
            ("nats://a:4222/", "nats://a:4222"),
            ("a.b-c:4222", "a.b-c:4222"),
            ("nats://[fe80::a]", "nats://[fe80::a]"),
            ("nats://[::1]:4222", "nats://[::1]:4222"),
            ("nats://me:hunter2@a:4222", "nats://a:4222"),
            ("tls://me:p@ss@c", "tls://c"),
            // The host is missing, or the password is not percent-encoded.
            ("nats://me:hunter2", "nats://me:***"),
            ("nats://me:hunter2/a", "nats://me:***"),
            ("nats://me:hunter2/a:4222", "nats://me:***"),
            ("nats://me:1234/a", "nats://me:***"),
            ("nats://me:hunter2:4222", "nats://me:***"),
            ("nats://me@hunter2/a:4222", "nats://***"),
            ("nats://hunter2/a", "nats://***"),
            ("nats://a:4222?token=hunter2", "nats://a:***"),
            ("nats://a#hunter2", "nats://***"),
            ("//me:hunter2/x", "***"),
            ("me hunter2", "***"),
            ("me:hunter2://x@a:1", "a:1"),
            ("nats://me:hunter2://x@a:1", "nats://a:1"),
            ("me:hunter2://x", "me:***"),
        ] {
            assert_eq!(without_secrets(server), shown, "{server}");
        }
    }

    #[test]
    fn contents_are_told_from_the_name_of_a_file() {
        let seed = format!("SU{}", "A".repeat(56));
        for contents in ["-----BEGIN NATS USER JWT-----", "eyJh.eyJi.c2ln", &seed, &format!(" {seed} "), "a\nb"] {
            assert!(is_contents(Path::new(contents)), "{contents}");
        }
        for name in ["me.creds", "/etc/nats/me.nk", "SU.nk", "eyJ", "a b"] {
            assert!(!is_contents(Path::new(name)), "{name}");
        }
    }
}
