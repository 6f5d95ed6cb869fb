//! Environments: later ones replace earlier ones by name, in place.

/// Where programs are looked for unless the image or the user says otherwise.
pub(super) const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What a program with a terminal believes it is.
pub(super) const TERM: &str = "TERM=xterm";

pub(super) fn name(variable: &str) -> &str {
    variable.split_once('=').map_or(variable, |(name, _)| name)
}

/// `over` put over `base`. A name without a value takes the variable away.
pub(super) fn put_over(base: &mut Vec<String>, over: &[String]) {
    for variable in over {
        let place = base.iter().position(|other| name(other) == name(variable));
        match (place, variable.contains('=')) {
            (Some(place), true) => base[place].clone_from(variable),
            (Some(place), false) => {
                base.remove(place);
            }
            (None, true) => base.push(variable.clone()),
            (None, false) => {}
        }
    }
}

/// What a container's first process starts with.
pub(super) fn first(hostname: &str, tty: bool, own: &[String]) -> Vec<String> {
    let mut environment = vec![PATH.to_owned(), format!("HOSTNAME={hostname}")];
    if tty {
        environment.push(TERM.into());
    }
    put_over(&mut environment, own);
    environment
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_ones_replace_earlier_ones_in_place() {
        let own = ["A=1", "PATH=/x", "A=2", "HOSTNAME", "B"].map(str::to_owned);
        assert_eq!(first("h", true, &own), ["PATH=/x", TERM, "A=2"]);
        assert_eq!(first("h", false, &[]), [PATH, "HOSTNAME=h"]);
    }
}
