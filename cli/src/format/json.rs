//! JSON whose members stand in the order they are written down, because Docker's do, and templates see the same value.

use std::sync::Arc;

use gotmpl::Value as TemplateValue;
use serde::{Serialize, Serializer, ser::SerializeMap as _};

/// A member that names the others in the order in which `json` prints them; nothing else shows it.
pub(crate) const ORDER: &str = "\0order";

/// A value.
#[derive(Clone, Debug)]
pub(crate) enum Json {
    /// Members in this order.
    Object(Vec<(String, Json)>),
    /// Elements.
    List(Vec<Json>),
    /// Anything else.
    Leaf(serde_json::Value),
    /// A member that templates know and that is left out where the whole is printed.
    Omitted(Box<Json>),
}

/// An object, its members in this order.
macro_rules! object {
    ($($name:literal: $value:expr),* $(,)?) => {
        $crate::format::json::Json::Object(vec![$(($name.to_owned(), $crate::format::json::Json::from($value))),*])
    };
}
pub(crate) use object;

impl Json {
    /// `null`
    pub(crate) const NULL: Self = Self::Leaf(serde_json::Value::Null);

    /// An object with members that are data.
    pub(crate) fn map<K: Into<String>, V: Into<Json>>(members: impl IntoIterator<Item = (K, V)>) -> Self {
        let mut members: Vec<_> = members.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        members.sort_by(|(a, _), (b, _)| a.cmp(b));
        Self::Object(members)
    }

    /// A list, or `null` where it is empty, as Go prints a list that was never made.
    pub(crate) fn list_or_null<T: Into<Json>>(items: impl IntoIterator<Item = T>) -> Self {
        let items: Vec<Json> = items.into_iter().map(Into::into).collect();
        if items.is_empty() { Self::NULL } else { Self::List(items) }
    }

    /// A member that is left out where this holds.
    pub(crate) fn omitted_if(self, omitted: bool) -> Self {
        if omitted { Self::Omitted(Box::new(self)) } else { self }
    }

    /// What a template sees.
    pub(crate) fn to_template(&self) -> TemplateValue {
        match self {
            Self::Object(members) => {
                let shown = members.iter().filter(|(_, value)| !matches!(value, Self::Omitted(_)));
                let order: Vec<TemplateValue> = shown.map(|(name, _)| name.as_str().into()).collect();
                // Data is in the order of its keys anyway, and nobody shall meet one more when going through them.
                let ordered = order.len() == members.len() && members.is_sorted_by(|(a, _), (b, _)| a <= b);
                let members = members.iter().map(|(name, value)| (name.as_str().into(), value.to_template()));
                let order = (ORDER.into(), TemplateValue::List(order.into()));
                TemplateValue::Map(Arc::new(members.chain((!ordered).then_some(order)).collect()))
            }
            Self::List(items) => TemplateValue::List(items.iter().map(Self::to_template).collect()),
            // Only a map key that is no text cannot be represented, and JSON has none.
            Self::Leaf(value) => gotmpl::to_value(value).unwrap_or(TemplateValue::Nil),
            Self::Omitted(value) => value.to_template(),
        }
    }

    /// The value as Docker prints it: indented by four.
    pub(crate) fn pretty(&self) -> String {
        let mut bytes = Vec::new();
        let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
        let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
        // Writing to memory what is JSON already.
        let _ = self.serialize(&mut serializer);
        String::from_utf8(bytes).unwrap_or_default()
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Object(members) => {
                let mut map = serializer.serialize_map(None)?;
                for (name, value) in members.iter().filter(|(_, value)| !matches!(value, Self::Omitted(_))) {
                    map.serialize_entry(name, value)?;
                }
                map.end()
            }
            Self::List(items) => items.serialize(serializer),
            Self::Leaf(value) => value.serialize(serializer),
            Self::Omitted(value) => value.serialize(serializer),
        }
    }
}

macro_rules! from_leaf {
    ($($type:ty),*) => {
        $(impl From<$type> for Json {
            fn from(value: $type) -> Self {
                Self::Leaf(value.into())
            }
        })*
    };
}
from_leaf!(String, &str, bool, i32, i64, u32, u64, serde_json::Value);

impl<T: Into<Json>> From<Vec<T>> for Json {
    fn from(items: Vec<T>) -> Self {
        Self::List(items.into_iter().map(Into::into).collect())
    }
}

impl<T: Into<Json>> From<Option<T>> for Json {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::NULL, Into::into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_order_and_omits() {
        let value = object! { "B": 1, "A": Json::from("x").omitted_if(true), "C": Vec::<String>::new() };
        assert_eq!(serde_json::to_string(&value).unwrap(), r#"{"B":1,"C":[]}"#);
        assert_eq!(super::super::template::json(&value.to_template()), r#"{"B":1,"C":[]}"#);
        assert_eq!(value.to_template().field("A").and_then(|v| v.as_str()), Some("x"));
        assert!(value.pretty().starts_with("{\n    \"B\": 1"));
    }
}
