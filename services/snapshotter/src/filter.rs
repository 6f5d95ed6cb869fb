//! containerd's filter expressions, as far as snapshots have fields: `kind==committed`, `name~=re`, `labels."a"!=b`,
//! joined by commas (and); several filters are alternatives.

use crate::{error::Error, record::Snapshot};

/// One filter: all of its conditions must hold.
pub(crate) struct Filter(Vec<Condition>);

struct Condition {
    field: Field,
    operator: Operator,
    value: String,
}

enum Field {
    Name,
    Parent,
    Kind,
    Label(String),
}

#[derive(PartialEq)]
enum Operator {
    Present,
    Equal,
    NotEqual,
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
            let (operator, after) = if let Some(after) = after.strip_prefix("==") {
                (Operator::Equal, after)
            } else if let Some(after) = after.strip_prefix("!=") {
                (Operator::NotEqual, after)
            } else if after.starts_with("~=") {
                return Err(fail("regular expressions are not supported; use == or !="));
            } else {
                (Operator::Present, after)
            };
            let (value, after) = if operator == Operator::Present {
                (String::new(), after)
            } else {
                word(after).ok_or_else(|| fail("a quoted value is not closed"))?
            };
            conditions.push(Condition { field, operator, value });
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
            match condition.operator {
                Operator::Present => value.is_some_and(|value| !value.is_empty()),
                Operator::Equal => value.unwrap_or_default() == condition.value,
                Operator::NotEqual => value.unwrap_or_default() != condition.value,
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

/// A quoted text, or everything up to an operator or a comma.
fn word(text: &str) -> Option<(String, &str)> {
    if let Some(rest) = text.strip_prefix('"') {
        let end = rest.find('"')?;
        return Some((rest[..end].to_owned(), &rest[end + 1..]));
    }
    let end = text.find([',', '=', '!', '~']).unwrap_or(text.len());
    Some((text[..end].to_owned(), &text[end..]))
}
