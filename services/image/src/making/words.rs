//! Words of a Dockerfile instruction: split at blanks that nothing quotes, and then without their quotes and with
//! variables in place, as a Dockerfile has it.

/// Splits at blanks; quotes and backslashes stay.
pub(super) fn split(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (None, ' ' | '\t' | '\n') => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            (None | Some('"'), '\\') => {
                word.push(c);
                word.extend(chars.next());
                continue;
            }
            _ => {}
        }
        word.push(c);
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// Variables within variables; nobody writes more, and each takes room on the stack.
const DEEPEST: usize = 16;

/// Takes quotes away and puts the values of variables in; `Err` says what is wrong.
pub(super) fn expand(word: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    expand_at(0, word, variable)
}

fn expand_at(depth: usize, word: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    if depth > DEEPEST {
        return Err(format!("variables are nested more than {DEEPEST} deep"));
    }
    let chars: Vec<char> = word.chars().collect();
    let (mut out, mut at, mut double) = (String::new(), 0, false);
    while let Some(c) = chars.get(at).copied() {
        at += 1;
        match c {
            '\'' if !double => {
                let end = chars[at..].iter().position(|c| *c == '\'').ok_or("a single quote is not closed")?;
                out.extend(&chars[at..at + end]);
                at += end + 1;
            }
            '"' => double = !double,
            '\\' => match chars.get(at).copied() {
                // Between double quotes only these need one.
                Some(next) if double && !matches!(next, '"' | '$' | '\\') => {
                    out.extend(['\\', next]);
                    at += 1;
                }
                Some(next) => {
                    out.push(next);
                    at += 1;
                }
                None => out.push('\\'),
            },
            '$' => at = put_variable(depth, &chars, at, &mut out, variable)?,
            c => out.push(c),
        }
    }
    if double { Err("a double quote is not closed".into()) } else { Ok(out) }
}

/// Reads a variable behind its `$`; answers where it ends.
fn put_variable(
    nesting: usize,
    chars: &[char],
    at: usize,
    out: &mut String,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<usize, String> {
    let is_name = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
    if chars.get(at) != Some(&'{') {
        let name: String = chars[at..].iter().take_while(|c| is_name(c)).collect();
        if name.is_empty() {
            out.push('$');
        }
        out.push_str(&variable(&name).filter(|_| !name.is_empty()).unwrap_or_default());
        return Ok(at + name.len());
    }
    // The end is the brace that belongs to this one.
    let mut depth = 0;
    let end = chars[at..].iter().position(|c| {
        depth += i32::from(*c == '{') - i32::from(*c == '}');
        depth == 0
    });
    let end = at + end.ok_or("${ is not closed")?;
    let inner: String = chars[at + 1..end].iter().collect();
    let name: String = inner.chars().take_while(is_name).collect();
    let value = variable(&name).filter(|value| !value.is_empty());
    match &inner[name.len()..] {
        _ if name.is_empty() => return Err(format!("${{{inner}}} names no variable")),
        "" => out.push_str(&value.unwrap_or_default()),
        rest => match (rest.get(..2), value) {
            (Some(":-"), Some(value)) => out.push_str(&value),
            (Some(":-"), None) | (Some(":+"), Some(_)) => out.push_str(&expand_at(nesting + 1, &rest[2..], variable)?),
            (Some(":+"), None) => {}
            _ => return Err(format!("unsupported modifier in ${{{inner}}}")),
        },
    }
    Ok(end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(word: &str) -> Result<String, String> {
        expand(word, &|name| (name == "A").then(|| "value".to_owned()))
    }

    #[test]
    fn blanks_in_quotes_are_no_ends() {
        assert_eq!(split(r#"A="b c" D='e f' G=h\ i  j"#), [r#"A="b c""#, "D='e f'", r"G=h\ i", "j"]);
        assert!(split("  ").is_empty());
    }

    #[test]
    fn quotes_go_and_variables_come() {
        for (word, is) in [
            ("plain", "plain"),
            ("'$A'", "$A"),
            ("\"$A b\"", "value b"),
            ("${A}x$B-", "valuex-"),
            (r"\$A", "$A"),
            (r#""a\nb\"""#, r#"a\nb""#),
            ("${B:-d$A}", "dvalue"),
            ("${A:-d}", "value"),
            ("${A:+yes}${B:+no}", "yes"),
            ("a$", "a$"),
            ("é$A", "évalue"),
        ] {
            assert_eq!(expanded(word).as_deref(), Ok(is), "{word}");
        }
        let nested = |times: usize| "${B:-".repeat(times) + "x" + &"}".repeat(times);
        assert_eq!(expanded(&nested(DEEPEST)).as_deref(), Ok("x"));
        assert!(expanded(&nested(100_000)).unwrap_err().contains("nested"));
        for wrong in ["'", "\"", "${A", "${}", "${A?x}", "${A:é}"] {
            assert!(expanded(wrong).is_err(), "{wrong}");
        }
    }
}
