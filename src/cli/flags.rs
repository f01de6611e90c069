//! The flags that stand for settings.
//!
//! The library's errors name settings: `broker.tls.cert`. On a terminal the remedy names the flag: `--tlscert`.

use crate::error::Error;

use super::settings::with_flags;

/// The error, with flags instead of settings in its remedy.
pub fn shown(error: &Error) -> String {
    let text = error.to_string();
    let remedy = error.remedy().unwrap_or_default();
    match text.strip_suffix(remedy) {
        Some(what) if !remedy.is_empty() => format!("{what}{}", in_remedy(remedy)),
        _ if matches!(error, Error::Broker { .. }) => in_message(&text),
        _ => text,
    }
}

/// A message whose remedy follows its first semicolon, with flags instead of settings there.
pub fn in_message(message: &str) -> String {
    match message.split_once("; ") {
        Some((what, remedy)) => format!("{what}; {}", in_remedy(remedy)),
        None => message.to_owned(),
    }
}

/// A remedy, with flags instead of settings.
pub fn in_remedy(remedy: &str) -> String {
    with_flags(remedy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;
    use crate::cli::settings::flags;

    #[test]
    fn every_flag_stands_for_a_setting_that_exists() {
        let flags = flags();
        assert!(flags.len() > 15, "{flags:?}");
        for (setting, flag) in &flags {
            // A value of the wrong type is refused for its type; an unknown setting for its name.
            let refused = Config::from_toml(&format!("{setting} = {{ a = 1 }}")).expect_err(flag).to_string();
            assert!(!refused.contains("unknown key `") || refused.contains("unknown key `a`"), "{setting}: {refused}");
        }
    }

    #[test]
    fn a_remedy_names_flags_and_the_rest_of_an_error_settings() {
        let error =
            Error::config("broker.user", "broker.token is given too").with_remedy("give broker.user or (broker.token)");
        let expected = "configuration: broker.user: broker.token is given too; give --user or (--token)";
        assert_eq!(shown(&error), expected);
        assert_eq!(
            in_message("no broker.jwt; check broker.tls.cert, broker.tls.key."),
            "no broker.jwt; check --tlscert, --tlskey."
        );
        assert_eq!(
            in_remedy("set broker.domain, database.path or broker.api_prefix"),
            "set --js-domain, --database or --js-api-prefix"
        );
        assert_eq!(in_remedy("set /etc/broker.user or broker.subjects"), "set /etc/broker.user or broker.subjects");
    }
}
