//! containerd's filter expressions, as far as snapshots have fields: `kind==committed`, `name~=re`, `labels."a"!=b`,
//! joined by commas (and); several filters are alternatives.

use regex_lite::Regex;

use crate::{error::Error, record::Snapshot};

/// One filter: all of its conditions must hold.
pub(crate) struct Filter(Vec<Condition>);

struct Condition {
    field: Field,
    operator: Operator,
}

enum Field {
    Name,
    Parent,
    Kind,
    Label(String),
}

enum Operator {
    Present,
    Equal(String),
    NotEqual(String),
    Matches(Regex),
}

impl Filter {
    /// Reads one filter.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let fail = |why| Error::Filter { filter: text.chars().take(200).collect(), why };
        let mut conditions = Vec::new();
        let mut rest = text.trim();
        while !rest.is_empty() {
            let (field, after) =
                field(rest).ok_or_else(|| fail("the field is not name, parent, kind or labels.\"KEY\""))?;
            let given = |after| word(after).ok_or_else(|| fail("a quoted value is not closed"));
            let (operator, after) = if let Some(after) = after.strip_prefix("==") {
                let (value, after) = given(after)?;
                (Operator::Equal(value), after)
            } else if let Some(after) = after.strip_prefix("!=") {
                let (value, after) = given(after)?;
                (Operator::NotEqual(value), after)
            } else if let Some(after) = after.strip_prefix("~=") {
                let (value, after) = given(after)?;
                let regex = Regex::new(&value).map_err(|_| fail("the regular expression is malformed"))?;
                (Operator::Matches(regex), after)
            } else {
                (Operator::Present, after)
            };
            conditions.push(Condition { field, operator });
            rest = match after.strip_prefix(',') {
                Some(after) => after,
                None if after.is_empty() => after,
                None => return Err(fail("conditions are joined by commas")),
            };
        }
        Ok(Self(conditions))
    }

    /// Whether a snapshot passes.
    pub(crate) fn admits(&self, name: &str, snapshot: &Snapshot) -> bool {
        self.0.iter().all(|condition| {
            let value = match &condition.field {
                Field::Name => Some(name),
                Field::Parent => snapshot.parent.as_deref(),
                Field::Kind => Some(snapshot.kind.name()),
                Field::Label(key) => snapshot.labels.get(key).map(String::as_str),
            };
            match &condition.operator {
                Operator::Present => value.is_some_and(|value| !value.is_empty()),
                Operator::Equal(wanted) => value.unwrap_or_default() == wanted,
                Operator::NotEqual(unwanted) => value.unwrap_or_default() != unwanted,
                Operator::Matches(regex) => regex.is_match(value.unwrap_or_default()),
            }
        })
    }
}

fn field(text: &str) -> Option<(Field, &str)> {
    for (name, field) in [("name", Field::Name), ("parent", Field::Parent), ("kind", Field::Kind)] {
        if let Some(rest) = text.strip_prefix(name) {
            return Some((field, rest));
        }
    }
    let (key, rest) = word(text.strip_prefix("labels.")?)?;
    Some((Field::Label(key), rest))
}

/// A quoted text, in which a backslash takes the next character as it is, or everything up to an operator or a comma.
fn word(text: &str) -> Option<(String, &str)> {
    let Some(rest) = text.strip_prefix('"') else {
        let end = text.find([',', '=', '!', '~']).unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let (mut word, mut characters) = (String::new(), rest.char_indices());
    loop {
        match characters.next()? {
            (end, '"') => return Some((word, &rest[end + 1..])),
            (_, '\\') => word.push(characters.next()?.1),
            (_, character) => word.push(character),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        directory::Id,
        record::{Kind, Time},
    };

    fn admits(filter: &str) -> bool {
        let snapshot = Snapshot {
            kind: Kind::Committed,
            parent: Some("below".into()),
            directory: Id(1),
            over: None,
            diff_id: None,
            labels: [("a.b/c".to_owned(), "x,\"y\"".to_owned())].into(),
            created: Time(0),
            updated: Time(0),
        };
        Filter::parse(filter).is_ok_and(|filter| filter.admits("name", &snapshot))
    }

    #[test]
    fn conditions_are_joined_by_and() {
        for filter in [
            "",
            "name==name",
            "kind==committed,parent==below",
            "name~=^na.e$",
            r#"labels."a.b/c"=="x,\"y\"""#,
            r#"labels."a.b/c""#,
            "labels.other!=x",
        ] {
            assert!(admits(filter), "{filter}");
        }
        for filter in ["name==other", "kind==committed,parent==x", "name~=^x", "labels.other", "name!=name"] {
            assert!(!admits(filter), "{filter}");
        }
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        for filter in ["what==x", "name==x kind==y", r#"labels."a"#, r#"name=="x"#, "name~=(", "name=x"] {
            assert!(Filter::parse(filter).is_err(), "{filter}");
        }
    }
}
