//! `--format`: Go templates with the functions that Docker adds.

use std::fmt::Write as _;

use gotmpl::{MissingKey, Template, TemplateError, Value};

use super::json::ORDER;
use crate::outcome::Error;

/// A member of a row's data that `.Label` looks into and that nothing prints.
pub(crate) const LABELS: &str = "\0labels";

/// A parsed template.
pub(crate) struct Format {
    lenient: Template,
    source: String,
}

impl Format {
    /// Reads a template.
    ///
    /// # Errors
    /// It is none.
    pub(crate) fn parse(source: &str) -> Result<Self, Error> {
        // `.Label "name"` is a method in Docker; a template over plain data has functions only.
        let source = source.replace("\\t", "\t").replace("\\n", "\n").replace(".Label \"", "label . \"");
        Ok(Self { lenient: template(&source, MissingKey::ZeroValue)?, source })
    }

    /// Writes the data through the template.
    ///
    /// # Errors
    /// The data has no such field, or a function cannot take what it is given.
    pub(crate) fn execute(&self, data: &Value) -> Result<String, Error> {
        const ABSENT: &str = "<no value>";
        let text = self.lenient.execute_to_string(data).map_err(said)?;
        if !text.contains(ABSENT) {
            return Ok(text);
        }
        // A key that data may or may not have is no error, a field that nothing has is one.
        match template(&self.source, MissingKey::Error)?.execute_to_string(data) {
            Err(error @ TemplateError::MissingKey { .. }) if names_field(&error) => Err(said(error)),
            _ => Ok(text),
        }
    }
}

fn names_field(error: &TemplateError) -> bool {
    matches!(error, TemplateError::MissingKey { key } if key.starts_with(|c: char| c.is_ascii_uppercase()))
}

/// Go's words for what went wrong, as far as they are known.
fn said(error: TemplateError) -> Error {
    Error::Template(match &error {
        TemplateError::MissingKey { key } => {
            format!("template: :1: executing \"\" at <.{key}>: map has no entry for key {key:?}")
        }
        TemplateError::UndefinedFunction(name) => format!("template: :1: function {name:?} not defined"),
        TemplateError::Parse { .. } | TemplateError::Lex { .. } => error.to_string(),
        other => format!("template: :1: executing \"\": {other}"),
    })
}

fn template(source: &str, missing: MissingKey) -> Result<Template, Error> {
    let text = |values: &[Value], at: usize| values.get(at).map(ToString::to_string).unwrap_or_default();
    Template::new("")
        .missing_key(missing)
        .func("json", |values| Ok(json(values.first().unwrap_or(&Value::Nil)).into()))
        .func("lower", move |values| Ok(text(values, 0).to_lowercase().into()))
        .func("upper", move |values| Ok(text(values, 0).to_uppercase().into()))
        .func("title", move |values| Ok(title(&text(values, 0)).into()))
        .func("split", move |values| {
            let (whole, by) = (text(values, 0), text(values, 1));
            Ok(Value::List(whole.split(by.as_str()).map(Value::from).collect()))
        })
        .func("join", move |values| {
            let Some(Value::List(items)) = values.first() else {
                return Err(TemplateError::TypeMismatch { expected: "list", got: type_of(values) });
            };
            let items: Vec<_> = items.iter().map(ToString::to_string).collect();
            Ok(items.join(&text(values, 1)).into())
        })
        .func("pad", move |values| {
            let count = |at: usize| values.get(at).and_then(Value::as_int).unwrap_or_default().clamp(0, 4096) as usize;
            let whole = text(values, 0);
            let padded = if whole.is_empty() {
                whole
            } else {
                format!("{}{whole}{}", " ".repeat(count(1)), " ".repeat(count(2)))
            };
            Ok(padded.into())
        })
        .func("truncate", move |values| {
            let length = values.get(1).and_then(Value::as_int).unwrap_or_default();
            Ok(text(values, 0).chars().take(usize::try_from(length).unwrap_or_default()).collect::<String>().into())
        })
        .func("label", move |values| {
            let labels = values.first().and_then(|row| row.field(LABELS));
            Ok(labels.and_then(|labels| labels.field(&text(values, 1))).cloned().unwrap_or("".into()))
        })
        .parse(source)
        .map_err(said)
}

fn type_of(values: &[Value]) -> &'static str {
    values.first().map_or("nil", Value::type_name)
}

fn title(text: &str) -> String {
    let mut start = true;
    text.chars()
        .flat_map(|c| {
            let upper = start && c.is_alphabetic();
            start = c.is_whitespace();
            if upper { c.to_uppercase().collect::<Vec<_>>() } else { vec![c] }
        })
        .collect()
}

/// A template's value as JSON: members in their own order where they have one, else in that of their names.
pub(crate) fn json(value: &Value) -> String {
    let mut text = String::new();
    write_json(value, &mut text);
    text
}

fn write_json(value: &Value, text: &mut String) {
    let quoted = |value: &str| serde_json::Value::from(value).to_string();
    match value {
        Value::Bool(_) | Value::Int(_) | Value::Uint(_) | Value::Float(_) => {
            let _ = write!(text, "{value}");
        }
        Value::String(value) => text.push_str(&quoted(value)),
        Value::List(items) => {
            text.push('[');
            for (at, item) in items.iter().enumerate() {
                text.push_str(if at > 0 { "," } else { "" });
                write_json(item, text);
            }
            text.push(']');
        }
        Value::Map(members) => {
            text.push('{');
            let names: Vec<&str> = match members.get(ORDER) {
                Some(Value::List(names)) => names.iter().filter_map(Value::as_str).collect(),
                _ => members.keys().map(|name| &**name).filter(|name| !name.starts_with('\0')).collect(),
            };
            let shown = names.into_iter().filter_map(|name| Some((name, members.get(name)?)));
            for (at, (name, value)) in shown.enumerate() {
                let _ = write!(text, "{}{}:", if at > 0 { "," } else { "" }, quoted(name));
                write_json(value, text);
            }
            text.push('}');
        }
        _ => text.push_str("null"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn render(source: &str) -> Result<String, String> {
        let data = serde_json::json!({
            "Id": "abc", "Names": ["b", "a"], "Config": {"ExposedPorts": {"80/tcp": {}}, "Labels": {"x": "y"}},
            "NetworkSettings": {"Ports": {"80/tcp": [{"HostPort": "1"}, {"HostPort": "2"}]}}, "Running": true, "Pid": 7,
            LABELS: {"com.x": "1"},
        });
        let format = Format::parse(source).map_err(|e| e.to_string())?;
        format.execute(&gotmpl::to_value(&data).unwrap()).map_err(|e| e.to_string())
    }

    #[test]
    fn what_people_write() {
        for (source, text) in [
            ("{{.Id}} {{.Pid}} {{.Running}}", "abc 7 true"),
            ("{{json .Config.ExposedPorts}}", r#"{"80/tcp":{}}"#),
            (r#"{{(index (index .NetworkSettings.Ports "80/tcp") 1).HostPort}}"#, "2"),
            (r"{{range $p, $c := .NetworkSettings.Ports}}{{$p}} -> {{(index $c 0).HostPort}}{{end}}", "80/tcp -> 1"),
            (r#"{{join .Names ","}} {{upper .Id}} {{len .Names}} {{title "a b"}}"#, "b,a ABC 2 A B"),
            (r#"{{if and .Running (eq .Pid 7)}}yes{{else}}no{{end}}"#, "yes"),
            (r#"{{printf "%s-%d" .Id .Pid}} {{truncate .Id 2}} [{{pad .Id 1 2}}]"#, "abc-7 ab [ abc  ]"),
            (r#"{{.Label "com.x"}} {{index (split "a/b" "/") 1}} {{.Id | lower | println}}"#, "1 b abc\n"),
            (r#"{{with .Config}}{{.Labels.x}}{{end}}\t{{.Config.Labels.none}}"#, "y\t<no value>"),
            (r#"{{not .Running}} {{ne .Id "x"}} {{gt .Pid 6}} {{$x := 3}}{{$x}}"#, "false true true 3"),
        ] {
            assert_eq!(render(source).as_deref(), Ok(text), "{source}");
        }
        assert!(!render("{{json .}}").unwrap().contains("labels"));
    }

    #[test]
    fn mistakes_are_told() {
        assert!(render("{{.Nope}}").unwrap_err().contains("map has no entry for key \"Nope\""));
        assert!(render("{{nope .Id}}").unwrap_err().contains("nope"));
        assert!(render("{{.Id").unwrap_err().contains("template parsing error"));
    }

    proptest! {
        #[test]
        fn never_panics(source in "[{}a-zA-Z.$ \"|:=()0-9]{0,40}") {
            let _ = render(&source);
        }
    }
}
