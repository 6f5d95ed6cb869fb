//! What two engines cannot say alike is made alike: ids become numbers in the order of their appearance, instants, durations,
//! hardware addresses and chosen ports become words, blanks that align columns become two; errors lose the words that introduce
//! them, those that name the program, and the flag whose value is refused, which Docker's do not always say. Errors of
//! Docker 20.10 begin with a capital letter here and there, today's do not.

use std::{collections::BTreeMap, sync::LazyLock};

use regex_lite::{Captures, Regex};

/// What one engine has said in a case so far.
#[derive(Debug, Default)]
pub(crate) struct Normal {
    /// The first 12 digits of an id and its number.
    ids: BTreeMap<String, usize>,
}

/// Pattern and what stands for it.
static WORDS: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    let regex = |pattern| Regex::new(pattern).expect("a pattern of ours is right");
    vec![
        (regex(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)? ?(Z|[+-]\d\d:?\d\d)( UTC)?"), "<instant>"),
        (
            regex(r"(Less than a second|About an? (minute|hour)|\d+ (second|minute|hour|day|week|month|year)s?)"),
            "<time>",
        ),
        (regex(r"([0-9a-f]{2}:){5}[0-9a-f]{2}"), "<mac>"),
        (regex(r":(3[2-9]|4\d|5\d|6[0-5])\d{3}\b"), ":<port>"),
    ]
});
static IDS: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\b([0-9a-f]{64}|[0-9a-f]{12})\b").expect("it is right"));
/// How Docker 20.10 says that operands are missing; today's says it as [`Normal::error`] gives it.
static OPERANDS: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r#""berth ([a-z ]+)" (requires|accepts) (exactly )?"#).expect("it is right"));
/// Which value of which flag is refused.
static FLAG: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r#"^invalid argument ".*?" for "(-., )?--[a-z-]+" flag: "#).expect("it is right"));
/// How Rust numbers what the system says.
static NUMBER: LazyLock<Regex> = LazyLock::new(|| Regex::new(r" \(os error \d+\)").expect("it is right"));
static CAPITAL: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"^[A-Z][a-z]").expect("it is right"));
static COLUMNS: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"   +").expect("it is right"));
static LOGGED: LazyLock<Regex> = LazyLock::new(|| Regex::new(r#"^time="[^"]*" level="#).expect("it is right"));
static HELP: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"^See '.* --help'\.$").expect("it is right"));
static INTRODUCED: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"^((docker|berth|Error response from daemon|Error|error|Error processing tar file\(exit status 1\)): )+",
    )
    .expect("it is right")
});

impl Normal {
    /// Standard output.
    pub(crate) fn output(&mut self, text: &str) -> String {
        let mut text = IDS.replace_all(text, |found: &Captures| self.id(&found[0])).into_owned();
        for (pattern, word) in WORDS.iter() {
            text = pattern.replace_all(&text, *word).into_owned();
        }
        let text = COLUMNS.replace_all(&text, "  ");
        text.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
    }

    /// Standard error: without the lines that tell of usage and point to help, and those that a client logs.
    pub(crate) fn error(&mut self, text: &str) -> String {
        let text = self.output(text);
        let said = text.lines().take_while(|line| !line.starts_with("Usage:"));
        let said = said.filter(|line| !line.is_empty() && !LOGGED.is_match(line) && !HELP.is_match(line));
        let line = |line: &str| {
            let line = INTRODUCED.replace(line, "").trim_end_matches('.').replace("docker ", "berth ");
            let line = OPERANDS.replace(&line, "'berth $1' $2 ");
            let line = NUMBER.replace_all(&line, "").replace("No such file or directory", "no such file or directory");
            let line = FLAG.replace(&line, "");
            let line = CAPITAL.replace(&line, |found: &Captures| found[0].to_lowercase());
            line.replace(": Container ", ": container ").replace(": No such ", ": no such ") + "\n"
        };
        said.map(line).collect()
    }

    fn id(&mut self, id: &str) -> String {
        // A number in ordinary figures is none.
        if id.len() == 12 && id.bytes().all(|digit| digit.is_ascii_digit()) {
            return id.to_owned();
        }
        let next = self.ids.len() + 1;
        let number = *self.ids.entry(id[..12].to_owned()).or_insert(next);
        format!("<{} {number}>", if id.len() == 12 { "id" } else { "long id" })
    }
}
