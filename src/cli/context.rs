//! The contexts of the `nats` command: servers and credentials, one JSON file each.
//!
//! `nats context` keeps them in `$XDG_CONFIG_HOME/nats`, else `~/.config/nats`: `context.txt` names the selected one,
//! `context/<name>.json` holds one. They are read as that command reads them: an empty value counts as absent, and of several ways
//! to authenticate the first of [`AUTHENTICATION_KEYS`] is used.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::closest::did_you_mean;
use crate::error::Error;
use crate::input_format::without_byte_order_mark;

/// The keys that authenticate, in the order in which the `nats` command looks for them.
const AUTHENTICATION_KEYS: [&str; 4] = ["user", "creds", "nkey", "token"];

/// Prefixes of values that only say where the value is to be found.
const REFERENCES: [&str; 4] = ["op://", "nsc://", "env://", "data:"];

/// The folder of contexts.
pub struct Contexts {
    folder: Option<PathBuf>,
    /// What `~` stands for in the names of files.
    home: Option<PathBuf>,
}

impl Contexts {
    /// In the folder for settings that the environment names.
    pub fn new(xdg_config_home: Option<&str>, home: Option<&str>) -> Self {
        let given = |value: Option<&str>| value.filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = given(home);
        let folder = given(xdg_config_home).or_else(|| home.as_ref().map(|home| home.join(".config")));
        Self { folder: folder.map(|folder| folder.join("nats")), home }
    }

    /// The name of the selected one. There is none if the file that names it does not exist, or if its folder cannot be found, as in the
    /// home directory of another user.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if the file is there and cannot be read.
    pub fn selected(&self) -> Result<Option<String>, Error> {
        let Some(folder) = self.folder.as_deref().filter(|folder| folder.is_dir()) else { return Ok(None) };
        let file = folder.join("context.txt");
        let text = match std::fs::read(&file) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => Err(format!("cannot be read: {error}")),
            Ok(bytes) => String::from_utf8(bytes).map_err(|_| "is not UTF-8 text".into()),
        };
        let refused = |reason: String| {
            Error::config(
                file.display().to_string(),
                format!("{reason}; it names the selected context of the nats command"),
            )
            .with_remedy("correct that, or name a server with broker.servers")
        };
        Ok(Some(text.map_err(refused)?.trim().to_owned()).filter(|name| !name.is_empty()))
    }

    /// Reads one: settings of `[broker]` by their keys.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] with the context, the file and the remedy, but no value of the file.
    pub fn read(&self, name: &str) -> Result<Vec<(&'static str, String)>, Error> {
        let refused = |reason: String| Error::config(format!("context {name}"), reason);
        let folder = self.folder.as_deref().ok_or_else(|| refused("neither XDG_CONFIG_HOME nor HOME is set".into()))?;
        if name.is_empty() || name.contains("..") || name.contains('/') {
            return Err(refused("is not a valid context name; nats context ls lists them".into()));
        }
        let file = folder.join("context").join(format!("{name}.json"));
        let text = std::fs::read_to_string(&file).map_err(|e| refused(unreadable(&file, name, &e)))?;
        settings(without_byte_order_mark(&text), self.home.as_deref())
            .map_err(|reason| refused(format!("{}: {reason}", file.display())))
    }
}

fn unreadable(file: &Path, name: &str, error: &std::io::Error) -> String {
    let remedy = "nats context ls lists the contexts, nats context select selects one";
    match error.kind() {
        ErrorKind::NotFound => {
            let meant = did_you_mean(name, contexts_beside(file).iter().map(String::as_str));
            if meant.is_empty() {
                format!("there is no {}; {remedy}", file.display())
            } else {
                format!("there is no {}{meant}", file.display())
            }
        }
        _ => format!("cannot read {}: {error}; {remedy}", file.display()),
    }
}

/// The names of the contexts in the folder of this one.
fn contexts_beside(file: &Path) -> Vec<String> {
    let Some(Ok(entries)) = file.parent().map(std::fs::read_dir) else { return Vec::new() };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter_map(|name| Some(name.strip_suffix(".json")?.to_owned())).collect();
    names.sort();
    names
}

fn settings(text: &str, home: Option<&Path>) -> Result<Vec<(&'static str, String)>, String> {
    let context: Map<String, Value> = serde_json::from_str(text)
        .map_err(|e| format!("is not a JSON object: error at line {}, column {}; correct it", e.line(), e.column()))?;
    let value = |key: &str| match context.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(value)) => match REFERENCES.iter().find(|scheme| value.starts_with(**scheme)) {
            Some(scheme) => {
                Err(format!("{key} refers to {scheme}…, which is not supported here; write the value itself"))
            }
            None => Ok(Some(value.as_str()).filter(|value| !value.is_empty())),
        },
        Some(_) => Err(format!("{key} is not text; correct it")),
    };
    for key in ["nsc", "socks_proxy"] {
        if value(key)?.is_some() {
            return Err(format!("has {key}, which is not supported here; give server and credentials instead"));
        }
    }
    let url = value("url")?.unwrap_or("nats://127.0.0.1:4222");
    if url.starts_with('$') {
        return Err("url begins with $: variables are not replaced in a context; write the address itself".into());
    }
    let mut settings = vec![("servers", url.to_owned())];
    for (key, setting) in [("cert", "tls.cert"), ("key", "tls.key"), ("ca", "tls.ca")] {
        if let Some(file) = value(key)? {
            settings.push((setting, path(file, home)?));
        }
    }
    for (key, setting) in
        [("jetstream_domain", "domain"), ("jetstream_api_prefix", "api_prefix"), ("inbox_prefix", "inbox_prefix")]
    {
        settings.extend(value(key)?.map(|value| (setting, value.to_owned())));
    }
    let mut ways = AUTHENTICATION_KEYS.iter().map(|key| Ok((*key, value(key)?))).collect::<Result<Vec<_>, String>>()?;
    ways.retain(|(_, value)| value.is_some());
    match ways.first() {
        Some((user @ "user", Some(name))) => {
            let password = value("password")?.unwrap_or_default();
            settings.extend([(*user, (*name).to_owned()), ("password", password.to_owned())]);
        }
        Some((nkey @ "nkey", Some(seed))) => {
            settings.push((*nkey, path(seed, home)?));
            if let Some(jwt) = value("user_jwt")? {
                settings.push(("jwt", path(jwt, home)?));
            }
        }
        Some((creds @ "creds", Some(file))) => settings.push((*creds, path(file, home)?)),
        Some((way, Some(secret))) => settings.push((*way, (*secret).to_owned())),
        _ => {}
    }
    Ok(settings)
}

/// A file's name, which may begin with `file://`, and with `~` for the home directory. As in the `nats` command, `$HOME` and other
/// variables are not replaced.
fn path(value: &str, home: Option<&Path>) -> Result<String, String> {
    let name = value.strip_prefix("file://").unwrap_or(value);
    match name.strip_prefix('~') {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => match home.and_then(Path::to_str) {
            Some(home) => Ok(format!("{home}{rest}")),
            None => Err("has ~ in the name of a file, but HOME is not set; write the whole name".into()),
        },
        _ => Ok(name.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selection_that_cannot_be_read_is_refused() {
        let home = tempfile::tempdir().expect("a folder");
        let contexts = Contexts::new(None, home.path().to_str());
        let selected = || contexts.selected().map_err(|error| error.to_string());
        assert_eq!(selected(), Ok(None), "no folder");
        let folder = home.path().join(".config/nats");
        std::fs::create_dir_all(&folder).expect("a folder");
        let file = folder.join("context.txt");
        assert_eq!(selected(), Ok(None), "no file");
        std::fs::write(&file, " \n").expect("writes");
        assert_eq!(selected(), Ok(None), "an empty file");
        std::fs::write(&file, "two\n").expect("writes");
        assert_eq!(selected(), Ok(Some("two".to_owned())));
        std::fs::write(&file, b"tw\xff\n").expect("writes");
        let said = selected().expect_err("no text");
        assert!(said.contains("context.txt: is not UTF-8 text; it names the selected context"), "{said}");
        std::fs::remove_file(&file).expect("removes");
        std::fs::create_dir(&file).expect("a folder");
        let said = selected().expect_err("a folder");
        assert!(said.contains("context.txt: cannot be read: ") && said.contains("name a server with"), "{said}");
    }

    fn all(text: &str) -> Vec<(&'static str, String)> {
        settings(text, Some(Path::new("/home/me"))).expect("must be accepted")
    }

    #[test]
    fn what_is_empty_or_unknown_does_not_count() {
        let text = r#"{"description": "x", "url": "", "user": "", "creds": "", "token": null, "tls_first": true}"#;
        assert_eq!(all(text), [("servers", "nats://127.0.0.1:4222".to_owned())]);
    }

    #[test]
    fn the_first_way_to_authenticate_is_used() {
        let keys = |text: &str| all(text).into_iter().skip(1).map(|(key, _)| key).collect::<Vec<_>>();
        assert_eq!(keys(r#"{"token": "t", "nkey": "n", "creds": "c", "user": "u"}"#), ["user", "password"]);
        assert_eq!(keys(r#"{"token": "t", "nkey": "n", "creds": "c", "password": "p"}"#), ["creds"]);
        assert_eq!(keys(r#"{"token": "t", "nkey": "n", "user_jwt": "j"}"#), ["nkey", "jwt"]);
        assert_eq!(keys(r#"{"token": "t", "user_jwt": "j"}"#), ["token"]);
        assert_eq!(all(r#"{"creds": "file:///a.creds"}"#)[1], ("creds", "/a.creds".to_owned()));
    }

    #[test]
    fn a_tilde_in_the_name_of_a_file_is_the_home_directory() {
        let text = r#"{"url": "nats://~", "nkey": "~/a.nk", "user_jwt": "~", "cert": "~/~/c.pem", "key": "~you/k",
                       "ca": "file://~/ca.pem", "inbox_prefix": "~/x"}"#;
        let home = |rest: &str| format!("/home/me{rest}");
        let expected = [
            ("servers", "nats://~".to_owned()),
            ("tls.cert", home("/~/c.pem")),
            ("tls.key", "~you/k".into()),
            ("tls.ca", home("/ca.pem")),
            ("inbox_prefix", "~/x".into()),
            ("nkey", home("/a.nk")),
            ("jwt", home("")),
        ];
        assert_eq!(all(text), expected);
        // A password is no file.
        assert_eq!(all(r#"{"user": "~", "password": "~/x"}"#)[2], ("password", "~/x".into()));
    }

    #[test]
    fn what_cannot_be_read_is_refused_without_showing_it() {
        for (text, words) in [
            (r#"{"password": "hunter2"#, "line 1"),
            (r#"["hunter2"]"#, "not a JSON object"),
            (r#"{"token": ["hunter2"]}"#, "token is not text"),
            (r#"{"token": "op://vault/hunter2"}"#, "op://"),
            (r#"{"nsc": "nsc://o/a/hunter2"}"#, "nsc refers to nsc://"),
            (r#"{"socks_proxy": "hunter2"}"#, "socks_proxy"),
            (r#"{"creds": "~/hunter2"}"#, "HOME is not set"),
            (r#"{"url": "$hunter2"}"#, "variables are not replaced"),
        ] {
            let refusal = settings(text, None).expect_err("must be refused");
            assert!(refusal.contains(words) && !refusal.contains("hunter2"), "{refusal}");
        }
    }
}
