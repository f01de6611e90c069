//! The contexts of the `nats` command: who to connect to and how, in a JSON file each.
//!
//! `nats context` keeps them in `$XDG_CONFIG_HOME/nats`, else `~/.config/nats`: `context.txt` names the selected one,
//! `context/<name>.json` is one. Read as that command reads them: an empty value is none, and of several ways in the first
//! counts that stands in [`WAYS_IN`].

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::error::Error;
use serde_json::{Map, Value};

/// The ways in of a context, in the order in which the `nats` command looks for them.
const WAYS_IN: [&str; 4] = ["user", "creds", "nkey", "token"];

/// Values that are no settings of ours, but instructions where to find one.
const REFERENCES: [&str; 4] = ["op://", "nsc://", "env://", "data:"];

/// Where contexts are kept.
pub struct Contexts {
    folder: Option<PathBuf>,
}

impl Contexts {
    /// In the folder of settings that the environment names.
    pub fn new(xdg_config_home: Option<&str>, home: Option<&str>) -> Self {
        let given = |value: Option<&str>| value.filter(|value| !value.is_empty()).map(PathBuf::from);
        let folder = given(xdg_config_home).or_else(|| given(home).map(|home| home.join(".config")));
        Self { folder: folder.map(|folder| folder.join("nats")) }
    }

    /// The name of the selected one.
    pub fn selected(&self) -> Option<String> {
        let name = std::fs::read_to_string(self.folder.as_ref()?.join("context.txt")).ok()?;
        Some(name.trim().to_owned()).filter(|name| !name.is_empty())
    }

    /// Reads one: settings of `broker`, by their names there.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] that names the context, the file and the way out, and nothing of what is in it.
    pub fn read(&self, name: &str) -> Result<Vec<(&'static str, String)>, Error> {
        let refused = |reason: String| Error::config(format!("context {name}"), reason);
        let folder = self.folder.as_deref().ok_or_else(|| refused("neither XDG_CONFIG_HOME nor HOME is set".into()))?;
        if name.is_empty() || name.contains("..") || name.contains('/') {
            return Err(refused("is no name; nats context ls shows those there are".into()));
        }
        let file = folder.join("context").join(format!("{name}.json"));
        let text = std::fs::read_to_string(&file).map_err(|e| refused(unreadable(&file, &e)))?;
        settings(&text).map_err(|reason| refused(format!("{}: {reason}", file.display())))
    }
}

fn unreadable(file: &Path, error: &std::io::Error) -> String {
    let way_out = "nats context ls shows those there are, nats context select another";
    match error.kind() {
        ErrorKind::NotFound => format!("there is no {}; {way_out}", file.display()),
        _ => format!("cannot read {}: {error}; {way_out}", file.display()),
    }
}

fn settings(text: &str) -> Result<Vec<(&'static str, String)>, String> {
    let context: Map<String, Value> = serde_json::from_str(text)
        .map_err(|e| format!("is no JSON object at line {}, column {}; mend it", e.line(), e.column()))?;
    let value = |key: &str| match context.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(value)) => match REFERENCES.iter().find(|scheme| value.starts_with(**scheme)) {
            Some(scheme) => Err(format!("{key} refers to {scheme}…, which is not looked up here; write it out")),
            None => Ok(Some(value.as_str()).filter(|value| !value.is_empty())),
        },
        Some(_) => Err(format!("{key} is no text; mend it")),
    };
    for key in ["nsc", "socks_proxy"] {
        if value(key)?.is_some() {
            return Err(format!("has {key}, which is not supported here; give server and credentials by themselves"));
        }
    }
    let mut settings = vec![("servers", value("url")?.unwrap_or("nats://127.0.0.1:4222").to_owned())];
    let mut take = |key: &str, setting| -> Result<(), String> {
        settings.extend(value(key)?.map(|value| (setting, path(value).to_owned())));
        Ok(())
    };
    for (key, setting) in [
        ("cert", "tls.cert"),
        ("key", "tls.key"),
        ("ca", "tls.ca"),
        ("jetstream_domain", "domain"),
        ("jetstream_api_prefix", "api_prefix"),
        ("inbox_prefix", "inbox_prefix"),
    ] {
        take(key, setting)?;
    }
    let mut ways = WAYS_IN.iter().map(|key| Ok((*key, value(key)?))).collect::<Result<Vec<_>, String>>()?;
    ways.retain(|(_, value)| value.is_some());
    match ways.first() {
        Some((user @ "user", Some(name))) => {
            let password = value("password")?.unwrap_or_default();
            settings.extend([(*user, (*name).to_owned()), ("password", password.to_owned())]);
        }
        Some((nkey @ "nkey", Some(seed))) => {
            settings.push((*nkey, path(seed).to_owned()));
            settings.extend(value("user_jwt")?.map(|jwt| ("jwt", path(jwt).to_owned())));
        }
        Some((creds @ "creds", Some(file))) => settings.push((*creds, path(file).to_owned())),
        Some((way, Some(secret))) => settings.push((*way, (*secret).to_owned())),
        _ => {}
    }
    Ok(settings)
}

/// A file's name, which may be written as a URL.
fn path(value: &str) -> &str {
    value.strip_prefix("file://").unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Vec<(&'static str, String)> {
        settings(text).expect("must be accepted")
    }

    #[test]
    fn what_is_empty_or_unknown_does_not_count() {
        let text = r#"{"description": "x", "url": "", "user": "", "creds": "", "token": null, "tls_first": true}"#;
        assert_eq!(all(text), [("servers", "nats://127.0.0.1:4222".to_owned())]);
    }

    #[test]
    fn of_several_ways_in_the_first_counts() {
        let keys = |text: &str| all(text).into_iter().skip(1).map(|(key, _)| key).collect::<Vec<_>>();
        assert_eq!(keys(r#"{"token": "t", "nkey": "n", "creds": "c", "user": "u"}"#), ["user", "password"]);
        assert_eq!(keys(r#"{"token": "t", "nkey": "n", "creds": "c", "password": "p"}"#), ["creds"]);
        assert_eq!(keys(r#"{"token": "t", "nkey": "n", "user_jwt": "j"}"#), ["nkey", "jwt"]);
        assert_eq!(keys(r#"{"token": "t", "user_jwt": "j"}"#), ["token"]);
        assert_eq!(all(r#"{"creds": "file:///a.creds"}"#)[1], ("creds", "/a.creds".to_owned()));
    }

    #[test]
    fn what_cannot_be_read_is_refused_without_showing_it() {
        for (text, words) in [
            (r#"{"password": "hunter2"#, "line 1"),
            (r#"["hunter2"]"#, "no JSON object"),
            (r#"{"token": ["hunter2"]}"#, "token is no text"),
            (r#"{"token": "op://vault/hunter2"}"#, "op://"),
            (r#"{"nsc": "nsc://o/a/hunter2"}"#, "nsc refers to nsc://"),
            (r#"{"socks_proxy": "hunter2"}"#, "socks_proxy"),
        ] {
            let refusal = settings(text).expect_err("must be refused");
            assert!(refusal.contains(words) && !refusal.contains("hunter2"), "{refusal}");
        }
    }
}
