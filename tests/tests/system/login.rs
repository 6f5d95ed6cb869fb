//! Who a user is at a registry: asked, kept as Docker keeps it, used, forgotten.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use berth_tests::{Node, Registry, Setup, Terminal, fixtures};
use nix::{
    sys::{
        signal::{Signal, kill},
        termios::{LocalFlags, tcgetattr},
    },
    unistd::Pid,
};

const PRIVATE: &str = "127.0.0.1:5001";

/// A node, and a registry with the fixtures that only `user` may use.
fn place() -> (Node, Registry) {
    let node = Node::with(Setup::default());
    let registry = Registry::private(&node.netns, fixtures::registry_storage(), PRIVATE);
    (node, registry)
}

fn config(node: &Node) -> serde_json::Value {
    serde_json::from_slice(&fs::read(node.path(".docker/config.json")).unwrap()).unwrap()
}

#[test]
fn a_login_opens_the_registry_and_a_logout_closes_it() {
    let (node, registry) = place();
    let image = format!("{PRIVATE}/library/busybox");
    assert!(node.berth(&["pull", &image]).fails(1).contains("pull access denied"));
    let wrong = node.berth_with(&["login", "-u", "user", "--password-stdin", PRIVATE], b"guessed\n");
    let said =
        "Error response from daemon: login attempt to http://127.0.0.1:5001/v2/ failed with status: 401 Unauthorized";
    assert!(wrong.fails(1).contains(said), "{wrong:?}");
    assert!(!node.path(".docker").exists(), "nothing is kept of what was refused");
    let login = node.berth_with(&["login", "-u", "user", "--password-stdin", PRIVATE], b"secret\r\n");
    assert_eq!(login.ok(), "Login Succeeded");
    let path = node.path(".docker/config.json");
    let warning = format!(
        "\nWARNING! Your credentials are stored unencrypted in '{}'.\nConfigure a credential helper to remove this warning. \
         See\nhttps://docs.docker.com/go/credential-store/\n\n",
        path.display()
    );
    assert_eq!(login.error(), warning);
    assert_eq!(config(&node), serde_json::json!({ "auths": { PRIVATE: { "auth": "dXNlcjpzZWNyZXQ=" } } }));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(fs::metadata(node.path(".docker")).unwrap().permissions().mode() & 0o7777, 0o700);
    node.berth(&["pull", &image]).ok();
    // What is known already is used, and nothing is said of what did not change.
    let again = node.berth(&["login", PRIVATE]);
    assert_eq!(again.ok(), "Login Succeeded");
    assert!(again.error().starts_with("Authenticating with existing credentials... [Username: user]\n"), "{again:?}");
    assert!(!again.error().contains("unencrypted"), "{again:?}");
    let logout = node.berth(&["logout", &format!("https://{PRIVATE}/v2/")]);
    assert_eq!(logout.ok(), format!("Removing login credentials for {PRIVATE}"));
    assert_eq!(config(&node), serde_json::json!({ "auths": {} }));
    node.berth(&["rmi", &image]).ok();
    node.berth(&["pull", &image]).fails(1);
    node.berth(&["logout", PRIVATE]).ok();
    assert_eq!(node.berth(&["logout"]).ok(), "Removing login credentials for https://index.docker.io/v1/");
    assert!(!node.log().contains("secret") && !node.log().contains("dXNlcjpzZWNyZXQ"), "{}", node.log());
    drop(registry);
    node.finish();
}

#[test]
fn flags_and_inputs_that_cannot_be_meant() {
    let (node, registry) = place();
    let fails = |arguments: &[&str], said: &str| {
        let failed = node.berth(arguments);
        assert!(failed.fails(1).contains(said), "{failed:?}");
    };
    fails(&["login", PRIVATE], "Error: Cannot perform an interactive login from a non TTY device");
    fails(&["login", "-u", "user", PRIVATE], "Error: Cannot perform an interactive login from a non TTY device");
    fails(&["login", "--password-stdin", PRIVATE], "the --password-stdin option requires --username to be set");
    fails(
        &["login", "-u", "a", "-p", "b", "--password-stdin", PRIVATE],
        "conflicting options: cannot specify both --password and --password-stdin",
    );
    fails(&["login", "-u", "u", "-p", "p", "127.0.0.1:1"], "127.0.0.1:1: it cannot be connected to");
    fails(&["login", "-u", "u", "-p", "p", "me@host"], "a server is a host");
    // A file that is not what it should be is nobody's to write over.
    fs::create_dir(node.path(".docker")).unwrap();
    fs::write(node.path(".docker/config.json"), "{ \"auths\": ").unwrap();
    fails(&["login", "-u", "user", "-p", "secret", PRIVATE], "config.json is not read");
    fails(&["logout", PRIVATE], "config.json is not read");
    assert_eq!(fs::read_to_string(node.path(".docker/config.json")).unwrap(), "{ \"auths\": ");
    drop(registry);
    node.finish();
}

#[test]
fn what_others_wrote_into_the_file_stays() {
    let (node, registry) = place();
    let before = serde_json::json!({
        "auths": { "r.example": { "auth": "YTpi", "email": "x" } }, "psFormat": "table {{.ID}}", "proxies": { "default": {} },
    });
    fs::create_dir_all(node.path("elsewhere")).unwrap();
    fs::create_dir(node.path(".docker")).unwrap();
    let real = node.path("elsewhere/real.json");
    fs::write(&real, before.to_string()).unwrap();
    std::os::unix::fs::symlink(&real, node.path(".docker/config.json")).unwrap();
    let login = node.berth(&["login", "-u", "user", "-p", "secret", PRIVATE]);
    login.ok();
    assert!(login.error().starts_with("WARNING! Using --password via the CLI is insecure. Use --password-stdin.\n"));
    let mut after = before.clone();
    after["auths"][PRIVATE] = serde_json::json!({ "auth": "dXNlcjpzZWNyZXQ=" });
    assert_eq!(config(&node), after);
    assert!(fs::symlink_metadata(node.path(".docker/config.json")).unwrap().is_symlink(), "a link stays one");
    node.berth(&["logout", PRIVATE]).ok();
    assert_eq!(config(&node), before);
    assert_eq!(fs::read_dir(node.path("elsewhere")).unwrap().count(), 1, "nothing lies beside it");
    drop(registry);
    node.finish();
}

#[test]
fn a_person_is_asked_and_the_password_is_not_shown() {
    let (node, registry) = place();
    let shown = |terminal: &Terminal| tcgetattr(&terminal.slave).unwrap().local_flags.contains(LocalFlags::ECHO);
    let mut terminal = Terminal::start(&mut node.command(&["login", PRIVATE]));
    terminal.expect("Username: ");
    terminal.say("user\n");
    terminal.expect("Password: ");
    assert!(!shown(&terminal), "what is typed is not shown");
    terminal.say("secret\n");
    // Nothing stands between the two but what the command says.
    terminal.expect("\r\n\r\nWARNING!");
    terminal.expect("Login Succeeded");
    assert_eq!(terminal.end(), 0);
    let mut terminal = Terminal::start(&mut node.command(&["login", "-u", "user", PRIVATE]));
    terminal.expect("Password: ");
    kill(Pid::from_raw(terminal.child.id().cast_signed()), Signal::SIGINT).unwrap();
    assert_eq!(terminal.end(), 130);
    let mut terminal = Terminal::start(&mut node.command(&["login", "-u", "user", PRIVATE]));
    terminal.expect("Password: ");
    terminal.say("\n");
    terminal.expect("Error: Password Required");
    assert_eq!(terminal.end(), 1);
    drop(registry);
    node.finish();
}

/// A helper in the shell that keeps what it is told in a file for each registry.
const HELPER: &str = r#"#!/bin/sh
dir=$(dirname "$0")/kept; mkdir -p "$dir"; input=$(cat)
name() { printf %s "$1" | tr -c 'A-Za-z0-9' _; }
case "$1" in
store) server=$(printf %s "$input" | sed 's/.*"ServerURL":"\([^"]*\)".*/\1/'); printf %s "$input" >"$dir/$(name "$server")" ;;
get) cat "$dir/$(name "$input")" 2>/dev/null || { echo "credentials not found in native keychain"; exit 1; } ;;
erase) rm "$dir/$(name "$input")" 2>/dev/null || { echo "credentials not found in native keychain"; exit 1; } ;;
esac
"#;

#[test]
fn helpers_keep_what_the_file_does_not() {
    let (node, registry) = place();
    let bin = node.path("bin");
    fs::create_dir(&bin).unwrap();
    fs::write(bin.join("docker-credential-shell"), HELPER).unwrap();
    fs::set_permissions(bin.join("docker-credential-shell"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(node.path(".docker")).unwrap();
    let berth = |arguments: &[&str], input: &[u8]| {
        let mut command = node.command(arguments);
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        berth_tests::run(command.env("PATH", path), input)
    };
    for section in
        [serde_json::json!({ "credsStore": "shell" }), serde_json::json!({ "credHelpers": { PRIVATE: "shell" } })]
    {
        fs::write(node.path(".docker/config.json"), section.to_string()).unwrap();
        let login = berth(&["login", "-u", "user", "--password-stdin", PRIVATE], b"secret");
        assert_eq!((login.ok(), login.error().as_str()), ("Login Succeeded", ""));
        assert_eq!(config(&node)["auths"], serde_json::json!({ PRIVATE: {} }));
        let kept = fs::read_dir(bin.join("kept")).unwrap().next().unwrap().unwrap();
        let kept: serde_json::Value = serde_json::from_slice(&fs::read(kept.path()).unwrap()).unwrap();
        let stored = serde_json::json!({ "ServerURL": PRIVATE, "Username": "user", "Secret": "secret" });
        assert_eq!(kept, stored);
        let image = format!("{PRIVATE}/library/busybox");
        berth(&["pull", &image], b"").ok();
        assert!(berth(&["login", PRIVATE], b"").error().contains("existing credentials... [Username: user]"));
        let logout = berth(&["logout", PRIVATE], b"");
        logout.ok();
        assert_eq!(logout.error(), "");
        assert!(is_empty(&bin.join("kept")));
        berth(&["rmi", &image], b"").ok();
        berth(&["pull", &image], b"").fails(1);
    }
    fs::write(node.path(".docker/config.json"), r#"{ "credsStore": "none-such" }"#).unwrap();
    let login = berth(&["login", "-u", "user", "--password-stdin", PRIVATE], b"secret");
    assert!(
        login.fails(1).contains("Error saving credentials: docker-credential-none-such cannot be run"),
        "{login:?}"
    );
    assert!(!login.error().contains("secret\"") && config(&node).get("auths").is_none(), "it is not kept elsewhere");
    drop(registry);
    node.finish();
}

fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).unwrap().next().is_none()
}
