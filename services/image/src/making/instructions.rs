//! `--change`: Dockerfile instructions that change an image's configuration.
//!
//! An instruction that Docker takes is taken, and means the same. What was hardly meant as it stands is told.

use serde_json::{Map, Value, json};

use super::{health, words};
use crate::error::Error;

/// The `config` of an image's configuration.
pub(crate) type RunConfig = Map<String, Value>;

const SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// Applies instructions in their order. Answers with what a person should know.
pub(crate) fn apply(config: &mut RunConfig, changes: &[String]) -> Result<Vec<String>, Error> {
    let mut applying = Applying { config, warnings: Vec::new(), command_given: false };
    for line in lines(&changes.join("\n")) {
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((&line, ""));
        applying.instruction(word, rest.trim()).map_err(Error::Change)?;
    }
    Ok(applying.warnings)
}

/// Instructions without comments; one that ends in a backslash goes on in the next line.
fn lines(text: &str) -> Vec<String> {
    let (mut lines, mut current) = (Vec::new(), String::new());
    for line in text.lines() {
        let line = line.trim_end();
        if line.trim_start().starts_with('#') {
            continue;
        }
        match line.strip_suffix('\\') {
            Some(begun) => current.push_str(begun),
            None => {
                current.push_str(line);
                lines.push(std::mem::take(&mut current).trim().to_owned());
            }
        }
    }
    lines.push(current.trim().to_owned());
    lines.retain(|line| !line.is_empty());
    lines
}

struct Applying<'a> {
    config: &'a mut RunConfig,
    warnings: Vec<String>,
    /// A new entry point takes the command away that does not belong to it.
    command_given: bool,
}

/// What is wrong is told with the instruction.
type Applied = Result<(), String>;

impl Applying<'_> {
    fn instruction(&mut self, word: &str, rest: &str) -> Applied {
        let name = word.to_ascii_uppercase();
        if rest.is_empty() && !matches!(name.as_str(), "CMD" | "ENTRYPOINT") {
            return Err(match name.as_str() {
                "ENV" | "LABEL" | "EXPOSE" | "VOLUME" => format!("{name} requires at least one argument"),
                "USER" | "WORKDIR" | "STOPSIGNAL" | "ONBUILD" | "HEALTHCHECK" => {
                    format!("{name} requires exactly one argument")
                }
                _ => format!("{word} is not a valid change command"),
            });
        }
        match name.as_str() {
            "CMD" => {
                let command = self.command("CMD", rest)?;
                self.config.insert("Cmd".into(), command);
                self.command_given = true;
            }
            "ENTRYPOINT" => {
                let command = self.command("ENTRYPOINT", rest)?;
                self.config.insert("Entrypoint".into(), command);
                if !self.command_given {
                    self.config.remove("Cmd");
                }
            }
            "ENV" => self.env(rest)?,
            "LABEL" => {
                for (key, value) in self.pairs("LABEL", rest)? {
                    self.put("Labels", key, value.into());
                }
            }
            "EXPOSE" => {
                for word in words::split(rest) {
                    for port in ports(&self.expand(&word)?)? {
                        self.put("ExposedPorts", port, json!({}));
                    }
                }
            }
            "VOLUME" => {
                for volume in list(rest)?.unwrap_or_else(|| words::split(rest)) {
                    let volume = self.expand(&volume)?;
                    if volume.trim().is_empty() {
                        return Err("VOLUME specified can not be an empty string".into());
                    }
                    self.put("Volumes", volume, json!({}));
                }
            }
            "USER" => self.text("User", rest)?,
            "STOPSIGNAL" => self.text("StopSignal", rest)?,
            "WORKDIR" => {
                let directory = self.expand(rest)?;
                let now = self.config.get("WorkingDir").and_then(Value::as_str).unwrap_or_default();
                let directory = normal(now, &directory);
                self.config.insert("WorkingDir".into(), directory.into());
            }
            "ONBUILD" => self.on_build(rest)?,
            "HEALTHCHECK" => {
                let check = health::parse(rest, |rest| self.command("HEALTHCHECK CMD", rest), list)?;
                self.config.insert("Healthcheck".into(), check);
            }
            _ => return Err(format!("{word} is not a valid change command")),
        }
        Ok(())
    }

    /// A list of words, or a line for the shell.
    fn command(&mut self, instruction: &str, rest: &str) -> Result<Value, String> {
        if let Some(words) = list(rest)? {
            return Ok(words.into());
        }
        if rest.is_empty() {
            return Ok(Value::Null);
        }
        if rest.starts_with('[') {
            self.warnings.push(format!(
                "{instruction} {rest} is no list in JSON, so it is a line for the shell, which will hardly find a program \
                 of that name; in a list each word stands in double quotes: {instruction} {}",
                meant(rest)
            ));
        }
        let shell = self.config.get("Shell").and_then(Value::as_array).filter(|shell| !shell.is_empty());
        let mut command = shell.cloned().unwrap_or_else(|| SHELL.iter().map(|word| json!(word)).collect());
        command.push(rest.into());
        Ok(command.into())
    }

    fn env(&mut self, rest: &str) -> Applied {
        let pairs = self.pairs("ENV", rest)?;
        let variables = self.config.entry("Env").or_insert_with(|| json!([]));
        if !variables.is_array() {
            *variables = json!([]);
        }
        let Some(variables) = variables.as_array_mut() else { return Ok(()) };
        for (name, value) in pairs {
            let is = |variable: &Value| variable.as_str().is_some_and(|v| v.split('=').next() == Some(&name));
            let variable = json!(format!("{name}={value}"));
            match variables.iter_mut().find(|variable| is(variable)) {
                Some(there) => *there = variable,
                None => variables.push(variable),
            }
        }
        Ok(())
    }

    /// `NAME=VALUE …`, or the old form `NAME VALUE`, whose value goes to the end of the line.
    fn pairs(&self, instruction: &str, rest: &str) -> Result<Vec<(String, String)>, String> {
        let words = words::split(rest);
        let Some(first) = words.first() else { return Ok(Vec::new()) };
        if !first.contains('=') {
            let value = rest[first.len()..].trim();
            if value.is_empty() {
                return Err(format!("{instruction} must have two arguments"));
            }
            return Ok(vec![(self.expand(first)?, self.expand(value)?)]);
        }
        let mut pairs = Vec::new();
        for word in &words {
            let (name, value) = word
                .split_once('=')
                .ok_or_else(|| format!("Syntax error - can't find = in \"{word}\". Must be of the form: name=value"))?;
            let name = self.expand(name)?;
            if name.is_empty() {
                return Err(format!("{instruction} names can not be blank"));
            }
            pairs.push((name, self.expand(value)?));
        }
        Ok(pairs)
    }

    fn text(&mut self, key: &str, rest: &str) -> Applied {
        let value = self.expand(rest)?;
        self.config.insert(key.into(), value.into());
        Ok(())
    }

    fn on_build(&mut self, rest: &str) -> Applied {
        let word = rest.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
        match word.as_str() {
            "ONBUILD" => return Err("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed".into()),
            "MAINTAINER" | "FROM" => return Err(format!("{word} isn't allowed as an ONBUILD trigger")),
            _ => {}
        }
        let triggers = self.config.entry("OnBuild").or_insert_with(|| json!([]));
        match triggers.as_array_mut() {
            Some(triggers) => triggers.push(rest.into()),
            None => *triggers = json!([rest]),
        }
        Ok(())
    }

    /// Puts a member into one of the configuration's objects.
    fn put(&mut self, key: &str, name: String, value: Value) {
        match self.config.get_mut(key).and_then(Value::as_object_mut) {
            Some(object) => drop(object.insert(name, value)),
            None => drop(self.config.insert(key.into(), Map::from_iter([(name, value)]).into())),
        }
    }

    fn expand(&self, word: &str) -> Result<String, String> {
        let env = self.config.get("Env").and_then(Value::as_array);
        let variable = |name: &str| {
            let pairs = env.into_iter().flatten().filter_map(|v| v.as_str()?.split_once('='));
            pairs.filter(|(key, _)| *key == name).map(|(_, value)| value.to_owned()).next_back()
        };
        words::expand(word, &variable)
    }
}

/// A list in JSON; `None` where it is none.
fn list(text: &str) -> Result<Option<Vec<String>>, String> {
    if !text.starts_with('[') {
        return Ok(None);
    }
    let Ok(items) = serde_json::from_str::<Vec<Value>>(text) else { return Ok(None) };
    let strings: Option<Vec<String>> = items.into_iter().map(|item| item.as_str().map(str::to_owned)).collect();
    match strings {
        Some(strings) => Ok(Some(strings)),
        None => Err("When using JSON array syntax, arrays must be comprised of strings only.".into()),
    }
}

/// What a list was probably meant to be that is none: its words in double quotes, and a single one with blanks taken apart.
fn meant(text: &str) -> String {
    let inner = text.trim_start_matches('[').trim_end_matches(']');
    let mut words: Vec<String> = inner
        .split(',')
        .map(|word| word.trim().trim_matches(['\'', '"', '\u{201c}', '\u{201d}', '\u{2018}', '\u{2019}']).to_owned())
        .filter(|word| !word.is_empty())
        .collect();
    if let [only] = words.as_slice() {
        words = only.split_whitespace().map(str::to_owned).collect();
    }
    Value::from(words).to_string()
}

/// "80", "80/udp", "8000-8002/tcp"
fn ports(text: &str) -> Result<Vec<String>, String> {
    let invalid = || format!("invalid containerPort: {text}");
    let (numbers, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(format!("invalid proto: {protocol}"));
    }
    let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
    let number = |text: &str| text.parse::<u16>().map_err(|_| invalid());
    let (first, last) = (number(first)?, number(last)?);
    if first > last {
        return Err(invalid());
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

/// A directory, seen from another, without `.` and `..`.
fn normal(from: &str, to: &str) -> String {
    let whole = if to.starts_with('/') { to.to_owned() } else { format!("{from}/{to}") };
    let mut parts = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(before: Value, changes: &[&str]) -> Result<(Value, Vec<String>), String> {
        let mut config = before.as_object().unwrap().clone();
        let changes: Vec<String> = changes.iter().map(|change| (*change).to_owned()).collect();
        let warnings = apply(&mut config, &changes).map_err(|error| error.to_string())?;
        Ok((config.into(), warnings))
    }

    fn after(before: Value, changes: &[&str]) -> Value {
        applied(before, changes).unwrap().0
    }

    #[test]
    fn a_malformed_list_is_a_line_for_the_shell_and_said_to_be_one() {
        let (config, warnings) = applied(json!({}), &["CMD ['/bin/httpd -f -h /data/web/html']"]).unwrap();
        assert_eq!(config["Cmd"], json!(["/bin/sh", "-c", "['/bin/httpd -f -h /data/web/html']"]));
        assert!(
            warnings[0].contains(r#"double quotes: CMD ["/bin/httpd","-f","-h","/data/web/html"]"#),
            "{warnings:?}"
        );
        let (_, warnings) = applied(json!({}), &["ENTRYPOINT ['a', 'b c']"]).unwrap();
        assert!(warnings[0].ends_with(r#"ENTRYPOINT ["a","b c"]"#), "{warnings:?}");
        assert!(applied(json!({}), &[r#"CMD ["a"]"#, "CMD a [b]"]).unwrap().1.is_empty());
    }

    #[test]
    fn commands_in_both_forms() {
        assert_eq!(after(json!({}), &[r#"cmd ["a", "b c"]"#])["Cmd"], json!(["a", "b c"]));
        assert_eq!(after(json!({}), &["CMD a  b"])["Cmd"], json!(["/bin/sh", "-c", "a  b"]));
        assert_eq!(after(json!({"Shell": ["/bin/bash", "-ec"]}), &["CMD a"])["Cmd"], json!(["/bin/bash", "-ec", "a"]));
        let both = after(json!({"Cmd": ["old"]}), &[r#"ENTRYPOINT ["e"]"#]);
        assert_eq!((&both["Entrypoint"], both.get("Cmd")), (&json!(["e"]), None));
        let both = after(json!({"Cmd": ["old"]}), &["CMD x", r#"ENTRYPOINT ["e"]"#]);
        assert_eq!(both["Cmd"], json!(["/bin/sh", "-c", "x"]));
        assert!(applied(json!({}), &["CMD [1]"]).unwrap_err().contains("strings only"));
    }

    #[test]
    fn variables_and_labels() {
        let env = after(json!({"Env": ["PATH=/bin", "A=old"]}), &["ENV A=1 B=\"x y\" PATH=$PATH:/opt", "ENV C a  b "]);
        assert_eq!(env["Env"], json!(["PATH=/bin:/opt", "A=1", "B=x y", "C=a  b"]));
        assert_eq!(after(json!({}), &["LABEL a=b 'c d'=e\\ f"])["Labels"], json!({"a": "b", "c d": "e f"}));
        assert!(applied(json!({}), &["ENV A"]).unwrap_err().contains("ENV must have two arguments"));
        assert!(applied(json!({}), &["ENV A=1 B"]).unwrap_err().contains("can't find = in \"B\""));
        assert!(applied(json!({}), &["ENV =1"]).unwrap_err().contains("names can not be blank"));
    }

    #[test]
    fn the_rest() {
        let config = after(
            json!({"WorkingDir": "/srv", "Env": ["P=9"]}),
            &[
                "EXPOSE 80 53/udp 8000-8001 $P",
                "VOLUME /a /b",
                r#"VOLUME ["/c d"]"#,
                "USER me:us",
                "WORKDIR x/../y",
                "STOPSIGNAL SIGQUIT",
                "ONBUILD RUN make",
                "# nothing",
                "ONBUILD COPY \\",
                "  a b",
            ],
        );
        let keys = |key: &str| config[key].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys("ExposedPorts"), ["53/udp", "80/tcp", "8000/tcp", "8001/tcp", "9/tcp"]);
        assert_eq!(keys("Volumes"), ["/a", "/b", "/c d"]);
        assert_eq!((&config["User"], &config["WorkingDir"]), (&json!("me:us"), &json!("/srv/y")));
        assert_eq!(config["StopSignal"], "SIGQUIT");
        assert_eq!(config["OnBuild"], json!(["RUN make", "COPY   a b"]));
    }

    #[test]
    fn what_is_no_change_is_refused_in_dockers_words() {
        for (change, why) in [
            ("RUN x", "RUN is not a valid change command"),
            ("nonsense", "nonsense is not a valid change command"),
            ("ENV", "ENV requires at least one argument"),
            ("USER", "USER requires exactly one argument"),
            ("EXPOSE 70000", "invalid containerPort: 70000"),
            ("EXPOSE 1/x", "invalid proto: x"),
            ("EXPOSE 9-1", "invalid containerPort: 9-1"),
            ("ONBUILD ONBUILD RUN x", "Chaining ONBUILD"),
            ("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
        ] {
            let error = applied(json!({}), &[change]).unwrap_err();
            assert!(error.contains(why), "{change}: {error}");
        }
    }
}
