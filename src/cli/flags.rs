//! The flags that stand for settings.
//!
//! The library's errors name settings: `broker.tls.cert`. On a terminal the remedy names the flag: `--tlscert`. The table of both comes
//! from the definitions of the arguments.

use std::borrow::Cow;

use clap::{Args, Command};

use crate::error::Error;

use super::settings::{BrokerArgs, DatabaseArgs};

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
    let flags = flags();
    let words = remedy.split(' ').map(|word| {
        let setting = word.trim_matches(['(', ')', ',', ';', '.', '?', '`']);
        match flags.iter().find(|(name, _)| name == setting) {
            Some((_, flag)) => Cow::Owned(word.replace(setting, flag)),
            None => Cow::Borrowed(word),
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// The flag of a setting.
pub fn flag_of(setting: &str) -> Option<String> {
    flags().into_iter().find_map(|(name, flag)| (name == setting).then_some(flag))
}

/// Settings and their flags.
fn flags() -> Vec<(String, String)> {
    let command = DatabaseArgs::augment_args(BrokerArgs::augment_args(Command::new("settings")));
    let pairs = command.get_arguments().filter_map(|argument| {
        let (setting, flag) = (setting(argument.get_id().as_str())?, argument.get_long()?);
        Some((setting, format!("--{flag}")))
    });
    pairs.collect()
}

/// The setting that an argument of this name gives. A context gives several.
fn setting(argument: &str) -> Option<String> {
    match argument {
        "context" => None,
        "database" => Some("database.path".into()),
        _ => Some(match argument.strip_prefix("tls") {
            Some(part) => format!("broker.tls.{part}"),
            None => format!("broker.{}", argument.strip_prefix("js_").unwrap_or(argument)),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

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
