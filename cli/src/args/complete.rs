//! Completion. A shell's script asks `berth __complete WORD…`, whose last word is the one to be completed, and takes a
//! candidate with its meaning from each line.

use std::collections::VecDeque;

use clap::{Arg, ArgAction};

use berth_proto::berth::{image::v1::ListRequest as ListImages, runtime::v1::ListRequest};

use super::{Completes, Entry, Global};
use crate::{
    client::Client,
    commands::{COMMANDS, GROUPS},
};

const BASH: &str = r#"# bash completion for berth: source this, or put it into /etc/bash_completion.d/berth
_berth() {
    local word line glue='' cut='' words=() candidates=()
    # bash cuts words at = and at :, berth does not.
    for word in "${COMP_WORDS[@]:1:COMP_CWORD}"; do
        if [[ ${#words[@]} -gt 0 && ( -n $glue || $word == [=:]* ) ]]; then words[-1]+=$word; else words+=("$word"); fi
        if [[ $word == *[=:] && $COMP_WORDBREAKS == *[=:]* ]]; then glue=1; else glue=''; fi
    done
    word=${words[-1]}
    [[ $COMP_WORDBREAKS != *[=:]* ]] || cut=${word%"${word##*[=:]}"}
    while IFS= read -r line; do line=${line%%$'\t'*}; candidates+=("${line#"$cut"}"); done \
        < <("${COMP_WORDS[0]}" __complete "${words[@]}" 2>/dev/null)
    COMPREPLY=("${candidates[@]}")
    [[ ${#COMPREPLY[@]} -gt 0 ]] || compopt -o default
}
complete -F _berth berth
"#;

const ZSH: &str = r#"#compdef berth
# zsh completion for berth: put it into a directory of $fpath as _berth
_berth() {
    local line
    local -a candidates
    while IFS= read -r line; do
        candidates+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}")
    done < <("${words[1]}" __complete "${(@)words[2,CURRENT]}" 2>/dev/null)
    if (( ${#candidates} )); then _describe berth candidates; else _files; fi
}
if [[ "${funcstack[1]}" = _berth ]]; then _berth; else compdef _berth berth; fi
"#;

const FISH: &str = r#"# fish completion for berth: put it into ~/.config/fish/completions/berth.fish
function __berth_complete
    set -l words (commandline -opc) (commandline -ct)
    $words[1] __complete $words[2..-1] 2>/dev/null
end
complete -c berth -a '(__berth_complete)'
"#;

/// The script for a shell.
pub(crate) fn script(shell: &str) -> Option<&'static str> {
    match shell {
        "bash" => Some(BASH),
        "zsh" => Some(ZSH),
        "fish" => Some(FISH),
        _ => None,
    }
}

/// The candidates for the last word, one a line.
pub(crate) async fn complete(mut words: VecDeque<String>) -> String {
    let current = words.pop_back().unwrap_or_default();
    let Ok(global) = Global::take(&mut words) else { return String::new() };
    let mut candidates = Vec::new();
    match find(&mut words) {
        Found::Command(entry) => {
            let client = Client::new(global.host);
            // "--flag=val" is completed as a whole.
            let attached = current.split_once('=').filter(|(flag, _)| flag.starts_with("--"));
            let program =
                matches!(behind(entry, words.iter()), Behind::Operands(n) if entry.ends_at > 0 && n >= entry.ends_at);
            match (behind(entry, words.iter()), attached) {
                // The program's own command line.
                _ if program => {}
                (Behind::Flag(flag), _) => values(&flag, &client, &mut candidates).await,
                (_, Some((word, _))) => {
                    if let Some(flag) = flag(entry, word) {
                        values(&flag, &client, &mut candidates).await;
                    }
                    candidates.iter_mut().for_each(|(value, _)| *value = format!("{word}={value}"));
                }
                (Behind::Operands(_), None) if current.starts_with('-') => flags(entry, &mut candidates),
                (Behind::Operands(_), None) => names(entry, &client, &mut candidates).await,
            }
        }
        Found::Group(group) => {
            for entry in COMMANDS {
                let within = entry.paths.iter().filter_map(|path| path.split_once(' '));
                let name = within.filter(|(first, _)| *first == group).map(|(_, name)| name).next();
                candidates.extend(name.map(|name| (name.to_owned(), entry.about.to_owned())));
            }
        }
        Found::Nothing => {
            let top = COMMANDS.iter().filter(|entry| !entry.paths[0].contains(' '));
            candidates.extend(top.map(|entry| (entry.paths[0].to_owned(), entry.about.to_owned())));
            candidates.extend(GROUPS.iter().map(|(group, about)| ((*group).to_owned(), (*about).to_owned())));
        }
    }
    candidates.retain(|(candidate, _)| candidate.starts_with(&current));
    candidates.iter().map(|(candidate, about)| format!("{candidate}\t{about}\n")).collect()
}

/// What stands before the word that is completed.
enum Behind {
    /// A flag that awaits its value.
    Flag(Box<Arg>),
    /// So many operands.
    Operands(usize),
}

fn behind<'a>(entry: &Entry, words: impl Iterator<Item = &'a String>) -> Behind {
    let (mut awaits, mut operands) = (None, 0);
    for word in words {
        if awaits.take().is_some() {
            continue;
        }
        if entry.ends_at > 0 && operands >= entry.ends_at || !word.starts_with('-') {
            operands += 1;
        } else if !word.contains('=') {
            awaits = flag(entry, word);
        }
    }
    awaits.map_or(Behind::Operands(operands), |flag| Behind::Flag(Box::new(flag)))
}

/// The flag of a word, where it takes a value that is not in the word.
fn flag(entry: &Entry, word: &str) -> Option<Arg> {
    let takes_value = |flag: &Arg| !matches!(flag.get_action(), ArgAction::SetTrue) && !flag.is_require_equals_set();
    let flags = (entry.flags)();
    if let Some(name) = word.strip_prefix("--") {
        return flags.into_iter().find(|flag| flag.get_long() == Some(name) && takes_value(flag));
    }
    // In "-itp" the last letter may await a value; one before it has the rest as its own.
    let letters = word.strip_prefix('-')?;
    let (at, flag) = letters.char_indices().find_map(|(at, letter)| {
        let flag = flags.iter().find(|flag| flag.get_short() == Some(letter) && takes_value(flag))?;
        Some((at + letter.len_utf8(), flag.clone()))
    })?;
    (at == letters.len()).then_some(flag)
}

/// What a flag's value may be, where that is known.
async fn values(flag: &Arg, client: &Client, candidates: &mut Vec<(String, String)>) {
    let known: &[&str] = match flag.get_long().unwrap_or_default() {
        "network" | "net" => &["bridge", "host", "none"],
        "restart" => &["no", "always", "on-failure", "unless-stopped"],
        "pull" => &["missing", "always", "never"],
        "log-driver" => &["json-file", "none"],
        "format" => &["json", "table"],
        "signal" | "stop-signal" => &["HUP", "INT", "KILL", "QUIT", "TERM", "USR1", "USR2", "WINCH"],
        "type" => &["container", "image", "network", "volume"],
        "platform" => &["linux/amd64", "linux/arm64"],
        "attach" => &["stdin", "stdout", "stderr"],
        "pid" | "uts" | "userns" => &["host"],
        "cgroupns" => &["private", "host"],
        "ipc" => &["private", "shareable", "none", "host"],
        "volumes-from" => return containers(Completes::Containers, client, candidates).await,
        _ => &[],
    };
    candidates.extend(known.iter().map(|value| ((*value).to_owned(), String::new())));
}

enum Found {
    Command(&'static Entry),
    Group(&'static str),
    Nothing,
}

fn find(words: &mut VecDeque<String>) -> Found {
    let Some(first) = words.pop_front() else { return Found::Nothing };
    let mut path = first;
    if let Some((group, _)) = GROUPS.iter().find(|(group, _)| *group == path) {
        match words.pop_front() {
            Some(word) => path = format!("{path} {word}"),
            None => return Found::Group(group),
        }
    }
    COMMANDS.iter().find(|entry| entry.paths.contains(&path.as_str())).map_or(Found::Nothing, Found::Command)
}

fn flags(entry: &Entry, candidates: &mut Vec<(String, String)>) {
    for flag in (entry.flags)().iter().filter(|flag| !flag.is_hide_set()) {
        let about = flag.get_help().map(ToString::to_string).unwrap_or_default();
        candidates.extend(flag.get_long().map(|long| (format!("--{long}"), about)));
    }
    candidates.push(("--help".into(), "Print usage".into()));
}

/// Names that the node knows; none where it does not answer.
async fn names(entry: &Entry, client: &Client, candidates: &mut Vec<(String, String)>) {
    if entry.paths.contains(&"completion") {
        candidates.extend(["bash", "zsh", "fish"].map(|shell| (shell.to_owned(), String::new())));
    }
    containers(entry.completes, client, candidates).await;
    if matches!(entry.completes, Completes::Images | Completes::Both)
        && let Ok(mut images) = client.images().await
        && let Ok(answer) = images.list(ListImages::default()).await
    {
        let names = answer.into_inner().images.into_iter().flat_map(|image| image.names);
        let familiar = names.filter_map(|name| name.parse::<berth_core::Reference>().ok()).map(|name| name.familiar());
        candidates.extend(familiar.map(|name| (name, "image".to_owned())));
    }
}

/// Containers in a state that the command has a use for.
async fn containers(wanted: Completes, client: &Client, candidates: &mut Vec<(String, String)>) {
    let states: &[&str] = match wanted {
        Completes::Containers | Completes::Both => &[],
        Completes::Running => &["running", "paused", "restarting"],
        Completes::Startable => &["created", "exited", "dead"],
        Completes::Paused => &["paused"],
        Completes::Images | Completes::Nothing => return,
    };
    let filters = states.iter().map(|state| format!("status={state}")).collect();
    let request = ListRequest { all: true, filters, ..ListRequest::default() };
    if let Ok(mut containers) = client.containers().await
        && let Ok(answer) = containers.list(request).await
    {
        let named = answer.into_inner().containers.into_iter();
        candidates.extend(named.map(|one| (one.name.trim_start_matches('/').to_owned(), one.image)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(words: &[&str]) -> Vec<String> {
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        let text = futures::executor::block_on(complete(words));
        text.lines().map(|line| line.split('\t').next().unwrap_or_default().to_owned()).collect()
    }

    #[test]
    fn commands_and_flags() {
        assert_eq!(candidates(&["pau"]), ["pause"]);
        assert_eq!(candidates(&["container", "re"]), ["rename", "restart"].map(str::to_owned).as_slice());
        assert_eq!(candidates(&["run", "--detach-"]), ["--detach-keys"]);
        assert_eq!(candidates(&["completion", "z"]), ["zsh"]);
        assert_eq!(candidates(&["run", "--network", "h"]), ["host"]);
        assert_eq!(candidates(&["run", "--rm", "-it", "--restart=on"]), ["--restart=on-failure"]);
        assert_eq!(candidates(&["kill", "-s", "US"]), ["USR1", "USR2"]);
        assert!(candidates(&["run", "--name", "--p"]).is_empty(), "a value that nobody knows");
        assert!(candidates(&["run", "-p", "80:80", "busybox", "--p"]).is_empty(), "the program's own");
        assert_eq!(candidates(&["run", "-p80:80", "--log-driver", "json"]), ["json-file"]);
        assert!(candidates(&["build", ""]).len() > 10, "what is not known is completed as a command");
        for shell in ["bash", "zsh", "fish"] {
            assert!(script(shell).unwrap().contains("__complete"));
        }
    }

    #[test]
    fn bash_itself_completes() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let berth = directory.path().join("berth");
        // Stands for us: says what it was asked, and offers what fits.
        let program = "#!/bin/sh\nprintf '%s\\n' \"$@\" >\"$0.asked\"\nprintf '%s\\t\\n' $OFFER\n";
        std::fs::write(&berth, program).unwrap();
        std::fs::set_permissions(&berth, std::fs::Permissions::from_mode(0o755)).unwrap();
        for (words, asked, offer, reply) in [
            ("berth run --network = h", "run\n--network=h", "--network=host", "host"),
            ("berth run redis : 7", "run\nredis:7", "redis:7.2", "7.2"),
            ("berth stop w", "stop\nw", "web", "web"),
        ] {
            let text = format!(
                "{BASH}\nCOMP_WORDS=({words}); COMP_WORDS[0]={berth}; COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))\n\
                 _berth; printf '%s' \"${{COMPREPLY[*]}}\"",
                berth = berth.display()
            );
            let output = std::process::Command::new("bash").args(["-c", &text]).env("OFFER", offer).output().unwrap();
            assert_eq!(String::from_utf8_lossy(&output.stdout), reply, "{}", String::from_utf8_lossy(&output.stderr));
            let said = std::fs::read_to_string(berth.with_extension("asked")).unwrap();
            assert_eq!(said.trim_end(), format!("__complete\n{asked}"));
        }
    }
}
