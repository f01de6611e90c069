//! The variables of the process that are settings.
//!
//! `CATCHMENT_<SECTION>__<KEY>` is a setting, and so is the name of a key outside the sections, `CATCHMENT_PREFIX`. A name with two
//! underscores that is no setting is refused. Variables that Kubernetes makes for a service of this name (`CATCHMENT_PORT`,
//! `CATCHMENT_SERVICE_HOST`) and those that images have by custom (`CATCHMENT_VERSION`) are passed over. All others are passed over with
//! a warning, which names the setting that was probably meant.

use std::collections::BTreeMap;
use std::ffi::OsString;

use toml::{Table, Value};

use super::addresses;
use super::merging::{broker_table, list, merge_keys, nested, with_new_keys};
use crate::closest::closest;
use crate::config::{from_table, keys_of};
use crate::error::Error;

/// `CATCHMENT_*` variables that are flags of the command, not settings of the library.
const COMMAND_VARIABLES: [&str; 4] = ["CATCHMENT_CONFIG", "CATCHMENT_LOG", "CATCHMENT_LOG_FORMAT", "CATCHMENT_PROFILE"];

/// Variables that images of programs have by custom: `CATCHMENT_HOME`.
const OF_IMAGES: [&str; 2] = ["home", "version"];

/// The tables of the settings file, as they are written in variables.
const SECTIONS: [&str; 9] =
    ["broker", "broker__prefetch", "broker__core", "broker__tls", "database", "batch", "service", "observe", "upkeep"];

/// The variables of the `nats` command, and the setting in `[broker]` for each.
const NATS_VARIABLES: [(&str, &str); 10] = [
    ("NATS_URL", "servers"),
    ("NATS_USER", "user"),
    ("NATS_PASSWORD", "password"),
    ("NATS_TOKEN", "token"),
    ("NATS_CREDS", "creds"),
    ("NATS_NKEY", "nkey"),
    ("NATS_CERT", "tls.cert"),
    ("NATS_KEY", "tls.key"),
    ("NATS_CA", "tls.ca"),
    ("NATS_TIMEOUT", "timeout"),
];

/// The variables that name a context or the folder of contexts.
const CONTEXT_VARIABLES: [&str; 3] = ["NATS_CONTEXT", "XDG_CONFIG_HOME", "HOME"];

/// The variables that matter to settings.
#[derive(Debug, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// Takes the variables that are settings, or name a context. Logs names that were probably meant as settings.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for a value that is not UTF-8.
    pub fn of(all: impl Iterator<Item = (OsString, OsString)>) -> Result<Self, Error> {
        let mut environment = BTreeMap::new();
        for (name, value) in all {
            let Ok(name) = name.into_string() else { continue };
            let shown = value.to_string_lossy();
            let is_setting = match own_key(&name) {
                Some(key) if is_setting(&key, &shown) => true,
                Some(key) => {
                    if let Some(hint) = misnamed(&name, &key, &shown) {
                        log::warn!(event = "settings.misnamed", hint:% = hint; "{hint}");
                    }
                    false
                }
                None => NATS_VARIABLES.iter().any(|(nats, _)| *nats == name),
            };
            if is_setting || CONTEXT_VARIABLES.contains(&name.as_str()) {
                match value.into_string() {
                    Ok(value) => _ = environment.insert(name, value),
                    // Then there is no folder of contexts.
                    Err(_) if ["XDG_CONFIG_HOME", "HOME"].contains(&name.as_str()) => {}
                    Err(_) => return Err(Error::config(&name, "its value is not UTF-8")),
                }
            }
        }
        Ok(Self(environment))
    }

    /// The value of a variable.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The variable that gives this setting: of `database.path`, `CATCHMENT_DATABASE__PATH` if it is set.
    pub fn name_of(&self, setting: &str) -> Option<String> {
        let name = format!("CATCHMENT_{}", setting.replace('.', "__").to_uppercase());
        self.get(&name).map(|_| name)
    }

    /// The variable of the `nats` command that gives this setting.
    pub fn nats_name_of(&self, setting: &str) -> Option<&'static str> {
        let key = setting.strip_prefix("broker.")?;
        let (name, _) = NATS_VARIABLES.into_iter().find(|(_, known)| *known == key)?;
        self.get(name).filter(|value| !value.is_empty()).map(|_| name)
    }

    /// The settings of the `CATCHMENT_*` variables.
    pub fn own_table(&self) -> Result<Table, Error> {
        let mut table = Table::new();
        for (name, value) in &self.0 {
            let Some(key) = own_key(name) else { continue };
            let variable = variable(&key, value).map_err(|reason| Error::config(name, reason))?;
            // Variables are one source: two ways to authenticate are refused later, whichever comes first.
            merge_keys(&mut table, with_new_keys(variable));
        }
        Ok(table)
    }

    /// The settings of the `NATS_*` variables; an empty one counts as absent.
    pub fn nats_table(&self) -> Result<Table, Error> {
        let mut found = Vec::new();
        for (name, key) in NATS_VARIABLES {
            let Some(value) = self.get(name).filter(|value| !value.is_empty()) else { continue };
            if key == "timeout" {
                let reason = |e| format!("{value:?} is not a duration: {e}; an example is 5s");
                humantime::parse_duration(value).map_err(|e| Error::config(name, reason(e)))?;
            }
            found.push((key, addresses::value_of(key, value).map_err(|reason| Error::config(name, reason))?));
        }
        Ok(broker_table(found.into_iter()))
    }
}

/// The key of a `CATCHMENT_*` variable that is no flag of the command: `database__path`.
fn own_key(name: &str) -> Option<String> {
    let key = name.strip_prefix("CATCHMENT_").filter(|_| !COMMAND_VARIABLES.contains(&name))?;
    Some(key.to_lowercase())
}

/// Whether a variable is a setting. One with `__` is refused later if the setting does not exist.
fn is_setting(key: &str, value: &str) -> bool {
    if key.contains("__") || key.starts_with('_') { !is_injected(key, value) } else { is_outside_sections(key) }
}

/// Whether Kubernetes makes such a variable for a service whose name begins with `catchment`, see
/// <https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables>.
fn is_injected(key: &str, value: &str) -> bool {
    let has_part = |part: &str| key == part || key.ends_with(&format!("_{part}"));
    // `PORT_4222_TCP`, `PORT_4222_TCP_ADDR`
    let is_of_port = || {
        let mut words = key.split('_').peekable();
        std::iter::from_fn(|| words.next().map(|word| (word == "port", words.peek().copied())))
            .any(|(is_port, next)| is_port && next.is_some_and(|next| next.parse::<u16>().is_ok()))
    };
    let is_address = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    has_part("service_host")
        || has_part("service_port")
        || key.starts_with("service_port_")
        || key.contains("_service_port_")
        || (has_part("port") && is_address)
        || is_of_port()
}

/// Whether there is a key outside the sections with this name.
fn is_outside_sections(key: &str) -> bool {
    !SECTIONS.contains(&key) && keys_of(&[]).iter().any(|known| known == key)
}

/// All settings and flags that have a variable, as they are written in it: `database__path`.
fn known() -> Vec<String> {
    let of_section = |section: &&str| {
        let path: Vec<&str> = section.split("__").collect();
        let section = (*section).to_owned();
        keys_of(&path).into_iter().map(move |key| format!("{section}__{key}"))
    };
    let flags = COMMAND_VARIABLES.iter().filter_map(|name| name.strip_prefix("CATCHMENT_")).map(str::to_lowercase);
    let of_sections = SECTIONS.iter().flat_map(of_section);
    of_sections.chain(keys_of(&[])).chain(flags).filter(|key| !SECTIONS.contains(&&**key)).collect()
}

/// What to say of a variable that is no setting: `CATCHMENT_DATABASE_PATH`, `CATCHMENT_STREAM`. Nothing of variables of others.
fn misnamed(name: &str, key: &str, value: &str) -> Option<String> {
    if is_injected(key, value) || OF_IMAGES.contains(&key) {
        return None;
    }
    let unused = format!("variable {name} is not used, because it names no setting");
    let section = || SECTIONS.iter().find(|section| key == **section || key.starts_with(&format!("{section}_")));
    let known = known();
    // Each setting by its whole name with single underscores, and by its key alone.
    let names = known.iter().map(|known| (known.replace("__", "_"), known));
    let keys = known.iter().filter_map(|known| Some((known.rsplit_once("__")?.1.to_owned(), known)));
    let all: Vec<(String, &String)> = names.chain(keys).collect();
    if let Some(like) = closest(key, all.iter().map(|(name, _)| name.as_str())).first()
        && let Some((_, meant)) =
            all.iter().find(|(name, _)| name == like).filter(|_| section().is_none_or(|s| key != *s))
    {
        let (setting, variable) = (meant.replace("__", "."), meant.to_uppercase());
        return Some(if meant.contains("__") {
            format!("{unused}; {setting} is CATCHMENT_{variable} (two underscores)")
        } else {
            format!("{unused}; the closest one is CATCHMENT_{variable}")
        });
    }
    let (of, section) = match section() {
        Some(section) => (format!(" of [{section}]"), section.to_uppercase()),
        None => (String::new(), "<SECTION>".into()),
    };
    Some(format!("{unused}; settings{of} are CATCHMENT_{section}__<KEY>"))
}

/// A variable's value is read as TOML if that fits the setting; else as text; else as a list with commas.
fn variable(key: &str, value: &str) -> Result<Table, String> {
    let as_toml = value.parse::<Value>().ok();
    let as_text = Value::String(value.to_owned());
    let as_list = || match key {
        "broker__servers" => addresses::value_of("servers", value),
        _ => Ok(list(value.split(','))),
    };
    let values = as_toml.into_iter().chain([as_text]).map(Ok).chain(std::iter::once_with(as_list));
    let mut first_reason = None;
    for value in values {
        let table = nested(key, "__", value?);
        match from_table(table.clone()) {
            Ok(_) => return Ok(table),
            Err(reason) => first_reason = first_reason.or(Some(reason)),
        }
    }
    Err(first_reason.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    fn of(variables: &[(&str, &str)]) -> Environment {
        let variables = variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        Environment::of(variables).expect("UTF-8")
    }

    #[test]
    fn every_section_is_one() {
        for section in SECTIONS {
            let path: Vec<&str> = section.split("__").collect();
            assert!(!keys_of(&path).is_empty(), "{section}");
            assert!(!is_outside_sections(section), "{section}");
        }
        assert!(["prefix", "unmatched", "delete_markers"].into_iter().all(is_outside_sections));
        assert!(!["version", "stream", "broker__stream"].into_iter().any(is_outside_sections));
        let known = known();
        for key in ["broker__tls__ca", "database__path", "unmatched", "config", "log_format"] {
            assert!(known.iter().any(|known| known == key), "{key}: {known:?}");
        }
        assert!(
            !known.iter().any(|key| ["broker", "broker__tls", "broker__ahead"].contains(&key.as_str())),
            "{known:?}"
        );
    }

    #[test]
    fn variables_that_others_set_are_passed_over() {
        for (name, value) in [
            ("CATCHMENT_SERVICE_HOST", "10.0.48.9"),
            ("CATCHMENT_SERVICE_PORT", "4222"),
            ("CATCHMENT_SERVICE_PORT_CLIENT", "4222"),
            ("CATCHMENT_PORT", "tcp://10.0.48.9:4222"),
            ("CATCHMENT_PORT_4222_TCP", "tcp://10.0.48.9:4222"),
            ("CATCHMENT_PORT_4222_TCP_PROTO", "tcp"),
            ("CATCHMENT_PORT_4222_TCP_PORT", "4222"),
            ("CATCHMENT_PORT_4222_TCP_ADDR", "10.0.48.9"),
            // A service named catchment-broker, and one named catchment-a--b.
            ("CATCHMENT_BROKER_SERVICE_HOST", "10.0.0.1"),
            ("CATCHMENT_BROKER_SERVICE_PORT_HTTP", "80"),
            ("CATCHMENT_BROKER_PORT", "udp://10.0.0.1:9"),
            ("CATCHMENT_BROKER_PORT_9_UDP_ADDR", "10.0.0.1"),
            ("CATCHMENT_A__B_SERVICE_HOST", "10.0.0.1"),
            ("CATCHMENT_A__B_PORT", "tcp://10.0.0.1:9"),
            ("CATCHMENT__A_PORT_9_TCP", "tcp://10.0.0.1:9"),
            ("CATCHMENT_VERSION", "1.2"),
            ("CATCHMENT_HOME", "/srv"),
        ] {
            let key = own_key(name).expect("ours");
            assert_eq!((is_setting(&key, value), misnamed(name, &key, value)), (false, None), "{name}");
            assert_eq!(of(&[(name, value)]).own_table().expect("nothing to refuse"), Table::new(), "{name}");
        }
        // Their values need not be text.
        let bytes = (OsString::from("CATCHMENT_HOME"), OsString::from_vec(vec![0xff]));
        assert!(Environment::of(std::iter::once(bytes)).is_ok());
    }

    #[test]
    fn servers_may_be_a_list_of_toml_or_have_commas() {
        let servers = |value| of(&[("CATCHMENT_BROKER__SERVERS", value)]).own_table();
        let two = "[broker]\nservers = [\"nats://me:a,b@c:1\", \"t@d\"]\n";
        for value in ["[\"nats://me:a,b@c:1\", \"t@d\"]", "nats://me:a,b@c:1, t@d"] {
            assert_eq!(servers(value).expect(value), two.parse::<Table>().expect("TOML"), "{value}");
        }
        let refusal = servers("nats://me:17,b@c:1").expect_err("two ways to read it").to_string();
        assert!(refusal.starts_with("configuration: CATCHMENT_BROKER__SERVERS: has a comma before an @"), "{refusal}");
    }

    #[test]
    fn a_misspelt_setting_is_refused() {
        for name in [
            "CATCHMENT_DATABASE__PTAH",
            "CATCHMENT_DATABSE__PATH",
            "CATCHMENT_BROKER__PORT",
            "CATCHMENT_BROKER__PREFETCH__EVNTS",
            "CATCHMENT__PATH",
        ] {
            let refusal = of(&[(name, "4222")]).own_table().expect_err(name).to_string();
            assert!(refusal.starts_with(&format!("configuration: {name}: unknown key `")), "{refusal}");
        }
    }

    #[test]
    fn a_name_that_was_meant_as_a_setting_gets_a_hint() {
        for (name, meant) in [
            ("CATCHMENT_DATABASE_PATH", "; database.path is CATCHMENT_DATABASE__PATH (two underscores)"),
            ("CATCHMENT_BROKER_TLS_CA", "; broker.tls.ca is CATCHMENT_BROKER__TLS__CA (two underscores)"),
            ("CATCHMENT_BROKER_PASSWORD_FILE", "; broker.password_file is CATCHMENT_BROKER__PASSWORD_FILE (two"),
            ("CATCHMENT_BATCH_MAX_EVENTS", "; batch.max_events is CATCHMENT_BATCH__MAX_EVENTS (two"),
            ("CATCHMENT_STREAM", "; broker.stream is CATCHMENT_BROKER__STREAM (two underscores)"),
            ("CATCHMENT_PATH", "; database.path is CATCHMENT_DATABASE__PATH (two underscores)"),
            ("CATCHMENT_DATABASE_PTAH", "; database.path is CATCHMENT_DATABASE__PATH (two underscores)"),
            ("CATCHMENT_DATABASE_COLOUR", "; settings of [database] are CATCHMENT_DATABASE__<KEY>"),
            ("CATCHMENT_BROKER", "; settings of [broker] are CATCHMENT_BROKER__<KEY>"),
            ("CATCHMENT_BATCH", "; settings of [batch] are CATCHMENT_BATCH__<KEY>"),
            ("CATCHMENT_SERVER", "; broker.servers is CATCHMENT_BROKER__SERVERS (two underscores)"),
            ("CATCHMENT_UNMATCHD", "; the closest one is CATCHMENT_UNMATCHED"),
            ("CATCHMENT_PREFX", "; the closest one is CATCHMENT_PREFIX"),
            ("CATCHMENT_CONFG", "; the closest one is CATCHMENT_CONFIG"),
            ("CATCHMENT_LOGFORMAT", "; the closest one is CATCHMENT_LOG_FORMAT"),
            ("CATCHMENT_IMAGE_SHA", "; settings are CATCHMENT_<SECTION>__<KEY>"),
        ] {
            let key = own_key(name).expect("ours");
            assert!(!is_setting(&key, "hunter2"), "{name}");
            let hint = misnamed(name, &key, "hunter2").expect(name);
            assert!(hint.starts_with(&format!("variable {name} is not used")) && hint.contains(meant), "{hint}");
            assert!(!hint.contains("hunter2"), "{hint}");
        }
    }
}
