//! Completion. A shell's script asks `berth __complete WORD…`, whose last word is the one to be completed, and takes a
//! candidate with its meaning from each line.

use std::collections::VecDeque;

use berth_proto::berth::{image::v1::ListRequest as ListImages, runtime::v1::ListRequest};

use super::{Completes, Entry, Global};
use crate::{
    client::Client,
    commands::{COMMANDS, GROUPS},
};

const BASH: &str = r#"# bash completion for berth: source this, or put it into /etc/bash_completion.d/berth
_berth() {
    local line candidates=()
    while IFS= read -r line; do candidates+=("${line%%$'\t'*}"); done \
        < <("${COMP_WORDS[0]}" __complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
    COMPREPLY=("${candidates[@]}")
    [[ ${#COMPREPLY[@]} -gt 0 ]] || compopt -o default
    __ltrim_colon_completions "${COMP_WORDS[COMP_CWORD]}" 2>/dev/null || true
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
        Found::Command(entry) if current.starts_with('-') => flags(entry, &mut candidates),
        Found::Command(entry) => names(entry, &words, Client::new(global.host), &mut candidates).await,
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
async fn names(entry: &Entry, words: &VecDeque<String>, client: Client, candidates: &mut Vec<(String, String)>) {
    // Behind the first operand of these comes the program's own command line.
    let operands = words.iter().filter(|word| !word.starts_with('-')).count();
    if entry.ends_at > 0 && operands >= entry.ends_at {
        return;
    }
    if entry.paths.contains(&"completion") {
        candidates.extend(["bash", "zsh", "fish"].map(|shell| (shell.to_owned(), String::new())));
    }
    let wanted = entry.completes;
    if matches!(wanted, Completes::Containers | Completes::Running | Completes::Both)
        && let Ok(mut containers) = client.containers().await
        && let Ok(answer) =
            containers.list(ListRequest { all: wanted != Completes::Running, ..ListRequest::default() }).await
    {
        candidates.extend(answer.into_inner().containers.into_iter().map(|one| (one.name, one.image)));
    }
    if matches!(wanted, Completes::Images | Completes::Both)
        && let Ok(mut images) = client.images().await
        && let Ok(answer) = images.list(ListImages::default()).await
    {
        let names = answer.into_inner().images.into_iter().flat_map(|image| image.names);
        let familiar = names.filter_map(|name| name.parse::<berth_core::Reference>().ok()).map(|name| name.familiar());
        candidates.extend(familiar.map(|name| (name, "image".to_owned())));
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
        assert!(candidates(&["push", ""]).len() > 10, "what is not known is completed as a command");
        for shell in ["bash", "zsh", "fish"] {
            assert!(script(shell).unwrap().contains("__complete"));
        }
    }
}
