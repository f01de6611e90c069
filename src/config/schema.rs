//! The JSON Schema of a settings file, for editors: from the structs and their documentation, with the defaults.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use super::Config;
use super::written::sections;

/// The schema: JSON Schema draft 7, which the editors' extensions for TOML read.
pub(crate) fn schema() -> Value {
    let mut schema = SchemaSettings::draft07().into_generator().into_root_schema_for::<Config>().to_value();
    schema["title"] = "The settings of catchment".into();
    refuse_only_of_routes(&mut schema);
    set_defaults(&mut schema);
    clean(&mut schema);
    schema
}

/// Writes the values of `delete_markers` of events without a route in the place of a reference: `only` is for routes.
fn refuse_only_of_routes(schema: &mut Value) {
    let mut values = schema["definitions"]["DeleteMarkers"]["oneOf"].clone();
    if let Value::Array(values) = &mut values {
        values.retain(|value| value["const"] != "only");
    }
    let description = schema["properties"]["delete_markers"]["description"].take();
    schema["properties"]["delete_markers"] = serde_json::json!({ "description": description, "oneOf": values });
}

/// Sets the default of each setting that is outside of lists.
fn set_defaults(schema: &mut Value) {
    for section in sections(&Config::default()) {
        let Some(definition) = section_of(schema, section.name) else { continue };
        for (key, value) in &section.settings {
            let value = serde_json::to_value(value).unwrap_or_default();
            if let Some(Value::Object(property)) = schema.pointer_mut(&format!("{definition}/properties/{key}")) {
                property.insert("default".into(), value);
            }
        }
    }
}

/// Where the schema of a section is: of `broker.tls`, `/definitions/TlsConfig`.
fn section_of(schema: &Value, name: &str) -> Option<String> {
    name.split('.').filter(|key| !key.is_empty()).try_fold(String::new(), |at, key| {
        let property = schema.pointer(&format!("{at}/properties/{key}"))?;
        // A reference beside a description is the only item of a list.
        let reference = property.get("$ref").or_else(|| property.get("allOf")?.get(0)?.get("$ref"))?;
        Some(reference.as_str()?.trim_start_matches('#').to_owned())
    })
}

/// Makes the documentation of the structs readable in an editor: no links to other items; of a table only its first paragraph. Removes the
/// names of integer formats, and defaults of absent values.
fn clean(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            let is_table = object.contains_key("properties");
            if let Some(Value::String(description)) = object.get_mut("description") {
                let whole = description.split("\n\n").next().filter(|_| is_table).unwrap_or(description);
                *description = joined(&without_links(whole));
            }
            if object.get("format").is_some_and(Value::is_string) {
                object.remove("format");
            }
            if object.get("default").is_some_and(Value::is_null) {
                object.remove("default");
            }
            remove_null(object);
            object.values_mut().for_each(clean);
        }
        Value::Array(items) => items.iter_mut().for_each(clean),
        _ => {}
    }
}

/// Removes null from the types: TOML has none.
fn remove_null(object: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|one| one != "null");
        if let [one] = &types[..] {
            let one = one.clone();
            object.insert("type".into(), one);
        }
    }
    if let Some(Value::Array(types)) = object.get_mut("anyOf") {
        types.retain(|one| one["type"] != "null");
        if let [one] = &types[..] {
            // A reference stands alone only if nothing is beside it.
            let one = serde_json::json!([one]);
            object.remove("anyOf");
            object.insert("allOf".into(), one);
        }
    }
}

/// The paragraphs of a text of the documentation, each on one line; a table keeps its lines.
fn joined(text: &str) -> String {
    let mut joined = String::new();
    for line in text.lines() {
        let is_on_its_own = line.is_empty() || line.starts_with(['|', '-', ' ', '`']);
        if !joined.is_empty() {
            joined.push(if is_on_its_own || joined.ends_with('\n') { '\n' } else { ' ' });
        }
        joined += line;
    }
    joined
}

/// A text of the documentation without its links to other items: ``[`Migrations`]``, ``[`Collector`](crate::Collector)``.
fn without_links(text: &str) -> String {
    let mut parts = text.split("[`");
    let mut cleaned = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let Some((name, rest)) = part.split_once("`]") else {
            cleaned.extend(["[`", part]);
            continue;
        };
        let rest = match rest.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
            Some((_, rest)) => rest,
            None => rest,
        };
        cleaned.extend(["`", name, "`", rest]);
    }
    cleaned.replace("`DEFAULT_MAX_STEPS`", &super::DEFAULT_MAX_STEPS.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::file::keys_of;
    use super::*;

    const COMMITTED: &str = include_str!("../../docs/settings.schema.json");

    #[test]
    fn the_committed_schema_is_that_of_the_structs() {
        let committed: Value = serde_json::from_str(COMMITTED).expect("JSON");
        assert!(committed == schema(), "write it again: catchment config schema > docs/settings.schema.json");
    }

    #[test]
    fn it_has_the_keys_the_descriptions_and_the_defaults_of_every_section() {
        let schema = schema();
        let mut described = 0;
        for section in sections(&Config::default()) {
            let path: Vec<&str> = section.name.split('.').filter(|key| !key.is_empty()).collect();
            let at = section_of(&schema, section.name).unwrap_or_else(|| panic!("no section {}", section.name));
            let definition = schema.pointer(&at).expect("a definition");
            assert_eq!(definition["additionalProperties"], false, "{}", section.name);
            let properties = definition["properties"].as_object().expect("properties");
            let mut keys = keys_of(&path);
            keys.sort();
            assert_eq!(properties.keys().cloned().collect::<Vec<_>>(), keys, "{}", section.name);
            for (key, property) in properties {
                let description = property["description"].as_str().unwrap_or_else(|| panic!("{key}: {property}"));
                assert!(!description.contains("[`") && !description.contains("](crate"), "{key}: {description}");
                described += 1;
            }
            assert!(!properties.values().any(|property| property.to_string().contains("\"null\"")), "TOML has no null");
            for (key, value) in &section.settings {
                assert_eq!(properties[&**key]["default"], serde_json::to_value(value).expect("JSON"), "{key}");
            }
        }
        assert!(described > 50, "{described}");
        assert_eq!(schema["definitions"]["RouteConfig"]["required"], serde_json::json!(["subject"]));
        assert_eq!(schema["definitions"]["QueryConfig"]["required"], serde_json::json!(["subject", "sql"]));
    }

    #[test]
    fn links_to_other_items_become_their_names() {
        for (text, cleaned) in [
            ("in [`Migrations`].", "in `Migrations`."),
            (
                "a [`Collector`](crate::Collector) and [`A`](B::c), [x](https://a.b)",
                "a `Collector` and `A`, [x](https://a.b)",
            ),
            ("[`DEFAULT_MAX_STEPS`]", "1000000000"),
            ("`[broker]`, [`open", "`[broker]`, [`open"),
        ] {
            assert_eq!(without_links(text), cleaned);
        }
    }
}
