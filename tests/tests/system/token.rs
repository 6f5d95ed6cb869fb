//! A registry that wants tokens: the real one verifies what a token server (ours, with openssl's signatures) has signed.

use std::{
    collections::HashMap,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use berth_tests::{Node, Registry, run};
use serde_json::{Value, json};

const REGISTRY: &str = "127.0.0.1:5001";
const SERVER: &str = "127.0.0.1:5004";
const REFRESH: &str = "for-later-and-longer";

/// RFC 4648, section 5, without padding.
fn base64url(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let all = group.iter().chain(&[0, 0]).take(3).fold(0_usize, |all, byte| all << 8 | usize::from(*byte));
        for at in 0..=group.len() {
            text.push(LETTERS[all >> (18 - 6 * at) & 63].into());
        }
    }
    text
}

fn unescaped(text: &str) -> String {
    text.replace("%3A", ":").replace("%2F", "/").replace("%2C", ",").replace('+', " ").replace("%20", " ")
}

/// A token server; it keeps what it was asked.
struct Server {
    directory: PathBuf,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start(node: &Node) -> Self {
        let directory = node.path("tokens");
        fs::create_dir(&directory).unwrap();
        let (key, certificate) = (directory.join("key.pem"), directory.join("cert.pem"));
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=tests", "-keyout"]);
        run(openssl.arg(&key).arg("-out").arg(&certificate), b"").ok();
        let listener = node.netns.within(|| TcpListener::bind(SERVER).unwrap());
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let server = Self { directory: directory.clone(), asked: Arc::clone(&asked) };
        thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else { return };
                let _ = answer(client, &directory, &asked);
            }
        });
        server
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn answer(mut client: TcpStream, directory: &Path, asked: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let header = |name: &str| {
        let of = |line: &String| {
            Some(line.split_once(": ")?).filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.to_owned())
        };
        lines.iter().find_map(of)
    };
    let mut body = vec![0; header("content-length").map_or(0, |length| length.parse().unwrap())];
    reader.read_exact(&mut body)?;
    let target = lines[0].split(' ').nth(1).unwrap();
    let query = target.split_once('?').map_or("", |(_, query)| query).to_owned();
    let form = format!("{query}&{}", String::from_utf8(body).unwrap());
    asked.lock().unwrap().push(format!("{} {form}", lines[0].split(' ').next().unwrap()));
    let mut scopes = Vec::new();
    let mut fields = HashMap::new();
    for (name, value) in form.split('&').filter_map(|pair| pair.split_once('=')) {
        match name {
            "scope" => scopes.extend(unescaped(value).split(' ').map(str::to_owned).collect::<Vec<_>>()),
            name => drop(fields.insert(name.to_owned(), unescaped(value))),
        }
    }
    // "user:secret"
    let known = header("authorization").as_deref() == Some("Basic dXNlcjpzZWNyZXQ=");
    let refreshed = fields.get("refresh_token").is_some_and(|token| token == REFRESH);
    if (header("authorization").is_some() || fields.contains_key("refresh_token")) && !known && !refreshed {
        let body = r#"{"errors":[{"code":"UNAUTHORIZED","message":"incorrect username or password"}]}"#;
        return write!(client, "HTTP/1.1 401 X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
    }
    let access: Vec<Value> = scopes
        .iter()
        .filter(|_| known || refreshed)
        .map(|scope| {
            let parts: Vec<&str> = scope.splitn(3, ':').collect();
            json!({ "type": parts[0], "name": parts[1], "actions": parts[2].split(',').collect::<Vec<_>>() })
        })
        .collect();
    let mut answer = json!({ "token": token(directory, &access), "expires_in": 300 });
    if fields.contains_key("offline_token") && known {
        answer["refresh_token"] = REFRESH.into();
    }
    let body = answer.to_string();
    write!(client, "HTTP/1.1 200 X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

/// A signed token (RFC 7519), as docker-registry verifies it.
fn token(directory: &Path, access: &[Value]) -> String {
    let certificate = fs::read_to_string(directory.join("cert.pem")).unwrap();
    let der: String = certificate.lines().filter(|line| !line.starts_with("-----")).collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let claims = json!({
        "iss": "tests", "sub": "user", "aud": "here", "exp": now + 300, "nbf": now - 60, "iat": now, "jti": "x", "access": access,
    });
    let header = json!({ "typ": "JWT", "alg": "RS256", "x5c": [der] });
    let signed = format!("{}.{}", base64url(header.to_string().as_bytes()), base64url(claims.to_string().as_bytes()));
    let mut openssl = Command::new("openssl");
    let signature = run(openssl.args(["dgst", "-sha256", "-sign"]).arg(directory.join("key.pem")), signed.as_bytes());
    assert_eq!(signature.code, 0, "openssl signs: {}", signature.error());
    format!("{signed}.{}", base64url(&signature.stdout))
}

#[test]
fn tokens_are_got_for_what_is_to_be_done() {
    let node = Node::start();
    let server = Server::start(&node);
    fs::create_dir(node.path("pushed")).unwrap();
    let auth = format!(
        "auth: {{token: {{realm: \"http://{SERVER}/token\", service: here, issuer: tests, rootcertbundle: {:?}}}}}\n",
        server.directory.join("cert.pem")
    );
    let registry = Registry::serve_with(&node.netns, &node.path("pushed"), REGISTRY, &auth);
    let name = format!("{REGISTRY}/team/box:1");
    node.berth(&["tag", "busybox", &name]).ok();
    let denied = node.berth(&["push", &name]).fails(1);
    assert!(denied.contains("denied: requested access to the resource is denied"), "{denied}");
    let wrong = node.berth_with(&["login", "-u", "user", "--password-stdin", REGISTRY], b"guessed").fails(1);
    assert!(wrong.contains("unauthorized: incorrect username or password"), "{wrong}");
    node.berth_with(&["login", "-u", "user", "--password-stdin", REGISTRY], b"secret").ok();
    // The refresh token stands for the password from now on.
    let config = fs::read_to_string(node.path(".docker/config.json")).unwrap();
    let config: Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["auths"][REGISTRY]["identitytoken"], REFRESH);
    assert_eq!(config["auths"][REGISTRY]["auth"], "dXNlcjo=", "the user and no password");
    let pushed = node.berth(&["push", &name]);
    assert!(pushed.ok().contains(": Pushed\n"), "{pushed:?}");
    let asked = server.asked();
    let last = asked.last().unwrap();
    assert!(last.starts_with("POST ") && last.contains("grant_type=refresh_token"), "{last}");
    assert!(last.contains("scope=repository%3Ateam%2Fbox%3Apull%2Cpush"), "{last}");
    // To mount something it must be readable where it is.
    let other = format!("{REGISTRY}/other:1");
    node.berth(&["tag", "busybox", &other]).ok();
    let mounted = node.berth(&["push", &other]);
    assert!(mounted.ok().contains(": Mounted from team/box\n"), "{mounted:?} {:?}", server.asked());
    node.berth(&["rmi", &name, &other]).ok();
    node.berth(&["pull", &name]).ok();
    assert_eq!(
        node.berth(&["search", "--format", "{{.Name}}", &format!("{REGISTRY}/box")]).ok(),
        format!("{REGISTRY}/team/box")
    );
    node.berth(&["logout", REGISTRY]).ok();
    node.berth(&["rmi", &name]).ok();
    assert!(node.berth(&["pull", &name]).fails(1).contains("pull access denied"));
    for secret in [REFRESH, "secret", "guessed"] {
        assert!(!node.log().contains(secret), "{secret} is in the log");
    }
    drop(registry);
    node.finish();
}
