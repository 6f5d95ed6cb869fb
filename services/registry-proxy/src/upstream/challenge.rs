//! `WWW-Authenticate` (RFC 9110, section 11.6.1), as far as registries use it.

use std::collections::HashMap;

/// How a registry wants to be asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Challenge {
    /// User and password with each request.
    Basic,
    /// A token from somewhere else.
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

impl Challenge {
    /// Reads one header value; `None` where it names no scheme that we know.
    pub(crate) fn parse(value: &str) -> Option<Self> {
        let (scheme, rest) = value.trim().split_once(' ').unwrap_or((value.trim(), ""));
        match scheme.to_ascii_lowercase().as_str() {
            "basic" => Some(Self::Basic),
            "bearer" => {
                let mut found = parameters(rest);
                let realm = found.remove("realm")?;
                Some(Self::Bearer { realm, service: found.remove("service"), scope: found.remove("scope") })
            }
            _ => None,
        }
    }
}

/// `name=token` and `name="quoted"`, separated by commas.
fn parameters(text: &str) -> HashMap<String, String> {
    let (mut found, mut name, mut value) = (HashMap::new(), String::new(), None::<String>);
    let mut characters = text.chars();
    let mut quoted = false;
    loop {
        let next = characters.next();
        match (next, &mut value) {
            (Some('"'), Some(_)) => quoted = !quoted,
            (Some('\\'), Some(value)) if quoted => value.extend(characters.next()),
            (Some(c), Some(value)) if quoted || c != ',' => value.push(c),
            (Some('='), None) => value = Some(String::new()),
            (Some(c), None) => name.push(c),
            (Some(_) | None, _) => {
                if let Some(value) = value.take() {
                    found.insert(name.trim().to_ascii_lowercase(), value.trim().to_owned());
                }
                name.clear();
                if next.is_none() {
                    return found;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_registries_send() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#;
        let expected = Challenge::Bearer {
            realm: "https://auth.docker.io/token".into(),
            service: Some("registry.docker.io".into()),
            scope: Some("repository:a/b:pull,push".into()),
        };
        assert_eq!(Challenge::parse(hub), Some(expected));
        assert_eq!(Challenge::parse("basic realm=\"a, b\""), Some(Challenge::Basic));
        assert_eq!(
            Challenge::parse(r#"Bearer realm=http://t/ , service="a \"b\"""#),
            Some(Challenge::Bearer { realm: "http://t/".into(), service: Some("a \"b\"".into()), scope: None })
        );
        assert_eq!(Challenge::parse("Negotiate"), None);
        assert_eq!(Challenge::parse("Bearer service=x"), None, "a token from nowhere");
        assert!(Challenge::parse("Bearer realm=\"unclosed").is_some());
    }
}
