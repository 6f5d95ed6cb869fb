//! Mounts: `-v [source:]target[:options]`, `--mount type=…,source=…,target=…`, `--tmpfs target[:options]`.
//!
//! What is read here is only how they are written. Whether a source exists is the node's to say.

use berth_proto::berth::runtime::v1::{Mount, mount::Type};

use super::size;

/// What one `--volume` means.
///
/// # Errors
/// It is none; the message is close to Docker's.
pub(crate) fn volume(text: &str) -> Result<Mount, String> {
    let parts: Vec<_> = text.split(':').collect();
    let (source, target, options) = match parts[..] {
        [target] => ("", target, ""),
        [source, target] => (source, target, ""),
        [source, target, options] => (source, target, options),
        _ => return Err(format!("invalid volume specification: '{text}'")),
    };
    if parts.len() > 1 && source.is_empty() {
        return Err(format!("invalid volume specification: '{text}': the part before the colon is empty"));
    }
    check_target(target).map_err(|why| format!("invalid volume specification: '{text}': {why}"))?;
    let mut mount = Mount { target: target.to_owned(), ..Mount::default() };
    if source.starts_with(['/', '.', '~']) {
        mount.set_type(Type::Bind);
        mount.source = absolute(source)?;
        mount.create_source = true;
    } else {
        mount.set_type(Type::Volume);
        if !source.is_empty() && !is_volume_name(source) {
            return Err(format!(
                "\"{source}\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are \
                 allowed. If you intended to pass a host directory, use absolute path"
            ));
        }
        mount.source = source.to_owned();
    }
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" | "readonly" => mount.read_only = true,
            "rw" => mount.read_only = false,
            "nocopy" => mount.no_copy = true,
            "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave" => mount.propagation = option.to_owned(),
            // Labels of SELinux, which this node's kernel may not have: as in Docker there, without effect.
            "z" | "Z" | "cached" | "delegated" | "consistent" => {}
            _ => return Err(format!("invalid mode: {option} in '{text}'")),
        }
    }
    Ok(mount)
}

/// What one `--mount` means.
///
/// # Errors
/// It is none; the message is close to Docker's.
pub(crate) fn long(text: &str) -> Result<Mount, String> {
    let mut mount = Mount { long_form: true, ..Mount::default() };
    mount.set_type(Type::Volume);
    for field in csv(text)? {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.trim().to_ascii_lowercase(), Some(value)),
            None => (field.trim().to_ascii_lowercase(), None),
        };
        let needed = || value.ok_or(format!("invalid field '{field}' must be a key=value pair"));
        let flag = || match value {
            None | Some("true" | "1") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(value) => Err(format!("invalid value for {key}: {value}")),
        };
        match key.as_str() {
            "type" => mount.set_type(match needed()?.to_ascii_lowercase().as_str() {
                "bind" => Type::Bind,
                "volume" => Type::Volume,
                "tmpfs" => Type::Tmpfs,
                other => {
                    return Err(format!(
                        "mounts of type {other:?} are not there yet; the types are bind, volume and tmpfs"
                    ));
                }
            }),
            "source" | "src" => mount.source = needed()?.to_owned(),
            "target" | "dst" | "destination" => mount.target = needed()?.to_owned(),
            "readonly" | "ro" => mount.read_only = flag()?,
            "bind-propagation" => mount.propagation = needed()?.to_owned(),
            "bind-create-src" => mount.create_source = flag()?,
            "volume-nocopy" => mount.no_copy = flag()?,
            "tmpfs-size" => mount.tmpfs_size = size::bytes(needed()?)?.unsigned_abs(),
            "tmpfs-mode" => {
                let mode = needed()?;
                mount.tmpfs_mode =
                    u32::from_str_radix(mode, 8).map_err(|_| format!("invalid value for {key}: {mode}"))?;
            }
            "consistency" => {}
            _ => return Err(format!("unexpected key '{key}' in '{field}'")),
        }
    }
    check_target(&mount.target).map_err(|why| format!("invalid mount '{text}': {why}"))?;
    match mount.r#type() {
        Type::Bind if mount.source.is_empty() => return Err("invalid mount: field Source must not be empty".into()),
        Type::Bind => mount.source = absolute(&mount.source)?,
        Type::Tmpfs if !mount.source.is_empty() => {
            return Err("invalid mount: field Source must not be specified".into());
        }
        Type::Volume if !mount.source.is_empty() && !is_volume_name(&mount.source) => {
            return Err(format!(
                "invalid mount: \"{}\" includes invalid characters for a local volume name",
                mount.source
            ));
        }
        _ => {}
    }
    Ok(mount)
}

/// What one `--tmpfs` means.
///
/// # Errors
/// Its target is none.
pub(crate) fn tmpfs(text: &str) -> Result<Mount, String> {
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    check_target(target).map_err(|why| format!("invalid tmpfs '{text}': {why}"))?;
    let options = options.split(',').filter(|option| !option.is_empty()).map(str::to_owned).collect();
    let mut mount = Mount { target: target.to_owned(), options, ..Mount::default() };
    mount.set_type(Type::Tmpfs);
    Ok(mount)
}

fn check_target(target: &str) -> Result<(), String> {
    let plain = target.split('/').any(|part| !part.is_empty() && part != ".");
    match target {
        "" => Err("field Target must not be empty".into()),
        _ if !target.starts_with('/') => Err(format!("invalid mount path: '{target}' mount path must be absolute")),
        _ if !plain => Err("destination can't be '/'".into()),
        _ => Ok(()),
    }
}

/// A host path relative to where the caller stands.
fn absolute(source: &str) -> Result<String, String> {
    let path = std::path::absolute(source).map_err(|e| format!("invalid path '{source}': {e}"))?;
    path.into_os_string().into_string().map_err(|_| format!("the path of '{source}' is not UTF-8"))
}

fn is_volume_name(name: &str) -> bool {
    name.len() > 1
        && name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

/// The fields of a line of comma-separated values; quotes hold a comma together.
fn csv(text: &str) -> Result<Vec<String>, String> {
    let (mut fields, mut field, mut quoted) = (Vec::new(), String::new(), false);
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            c => field.push(c),
        }
    }
    if quoted {
        return Err(format!("a quote is not closed in '{text}'"));
    }
    fields.push(field);
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn volumes() {
        let bind = volume("/host:/in:ro,rslave").unwrap();
        assert_eq!((bind.r#type(), bind.source.as_str(), bind.target.as_str()), (Type::Bind, "/host", "/in"));
        assert!(bind.read_only && bind.create_source && bind.propagation == "rslave");
        let named = volume("data:/data:nocopy").unwrap();
        assert!(named.r#type() == Type::Volume && named.source == "data" && named.no_copy);
        let anonymous = volume("/data").unwrap();
        assert!(anonymous.r#type() == Type::Volume && anonymous.source.is_empty());
        assert!(volume("./here:/in").unwrap().source.starts_with('/'));
    }

    #[test]
    fn mounts() {
        let bind = long("type=bind,source=/a,target=/b,readonly,bind-propagation=rshared").unwrap();
        assert!(bind.r#type() == Type::Bind && bind.read_only && !bind.create_source && bind.propagation == "rshared");
        let tmp = long("type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1770").unwrap();
        assert_eq!((tmp.tmpfs_size, tmp.tmpfs_mode), (1 << 20, 0o1770));
        assert_eq!(long("src=data,\"dst=/a,b\"").unwrap().target, "/a,b");
        assert_eq!(tmpfs("/run:rw,size=64m").unwrap().options, ["rw", "size=64m"]);
    }

    #[test]
    fn errors_say_what_is_wrong() {
        for (text, why) in [
            ("relative/../path:x", "mount path must be absolute"),
            ("relative/../path:/x", "use absolute path"),
            ("/a:/b:what", "invalid mode: what"),
            ("a:b:c:d", "invalid volume specification"),
            (":/x", "before the colon"),
            ("/a:/", "can't be '/'"),
        ] {
            let error = volume(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
        for (text, why) in [
            ("type=bind,target=/x", "Source must not be empty"),
            ("type=image,source=a,target=/x", "not there yet"),
            ("type=tmpfs,source=a,target=/x", "must not be specified"),
            ("target", "key=value"),
            ("nonsense=1,target=/x", "unexpected key"),
            ("source=a", "Target must not be empty"),
        ] {
            let error = long(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "[a-z=:,./\"~]{0,40}") {
            let _ = volume(&text);
            let _ = long(&text);
            let _ = tmpfs(&text);
        }
    }
}
