//! Labels in filters, as Docker has them: "name" for one that is there, "name=value" for one that says so.

/// Whether the label `wanted` holds of what `label` looks up.
pub(crate) fn holds<'a>(wanted: &str, label: impl Fn(&str) -> Option<&'a String>) -> bool {
    match wanted.split_once('=') {
        Some((name, value)) => label(name).is_some_and(|is| is == value),
        None => label(wanted).is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values() {
        let value = "db=1".to_owned();
        let label = |name: &str| (name == "tier").then_some(&value);
        for (wanted, is) in [("tier", true), ("tier=db=1", true), ("tier=db", false), ("other", false), ("", false)] {
            assert_eq!(holds(wanted, label), is, "{wanted}");
        }
    }
}
