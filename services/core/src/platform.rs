//! Platforms: what an image is built for and what a machine can run (OCI image-spec, "Platform Variants").

use std::{fmt, str::FromStr};

/// An operating system, an architecture and its variant, in Go's spelling (`linux/arm64/v8`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`, `arm64`, `arm`, …
    pub architecture: String,
    /// `v8`, `v7`, …; empty where the architecture has none.
    pub variant: String,
}

/// A text that names no platform.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a platform; write os/architecture or os/architecture/variant, as linux/arm64/v8")]
pub struct InvalidPlatform(String);

impl Platform {
    /// The platform of this machine.
    pub fn host() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", ""),
            "x86" => ("386", ""),
            "aarch64" => ("arm64", "v8"),
            "arm" => ("arm", "v7"),
            "powerpc64" => ("ppc64le", ""),
            other => (other, ""),
        };
        Self { os: "linux".into(), architecture: architecture.into(), variant: variant.into() }
    }

    /// How well an image for `offered` runs where `self` is wanted: `None` not at all, else lower is better. A newer
    /// machine runs images for older variants; images that say no variant mean the architecture's base.
    pub fn rank(&self, offered: &Platform) -> Option<u32> {
        if self.os != offered.os || self.architecture != offered.architecture {
            return None;
        }
        let (wanted, offered) = (self.level(), offered.level());
        (offered <= wanted).then(|| wanted - offered)
    }

    /// The number in the variant, or the architecture's base level.
    fn level(&self) -> u32 {
        let base = match self.architecture.as_str() {
            "arm64" => 8,
            "arm" => 7,
            _ => 1,
        };
        self.variant.strip_prefix('v').and_then(|digits| digits.parse().ok()).unwrap_or(base)
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() { Ok(()) } else { write!(f, "/{}", self.variant) }
    }
}

impl FromStr for Platform {
    type Err = InvalidPlatform;

    /// Reads `os/architecture[/variant]`, in lower case, with the other common names of architectures.
    fn from_str(text: &str) -> Result<Self, InvalidPlatform> {
        let lower = text.to_ascii_lowercase();
        let parts: Vec<&str> = lower.split('/').collect();
        let plain = |part: &&str| {
            part.starts_with(|c: char| c.is_ascii_alphanumeric())
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        };
        if !(2..=3).contains(&parts.len()) || !parts.iter().all(plain) {
            return Err(InvalidPlatform(text.into()));
        }
        let (architecture, implied) = match parts[1] {
            "x86_64" | "x86-64" => ("amd64", ""),
            "aarch64" => ("arm64", ""),
            "i386" | "x86" => ("386", ""),
            "armhf" => ("arm", "v7"),
            "armel" => ("arm", "v6"),
            other => (other, ""),
        };
        let variant = parts.get(2).copied().unwrap_or(implied);
        Ok(Self { os: parts[0].into(), architecture: architecture.into(), variant: variant.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn prefers_the_nearest_older_variant() {
        let wanted = platform("linux/arm/v7");
        assert_eq!(wanted.rank(&platform("linux/arm/v7")), Some(0));
        assert_eq!(wanted.rank(&platform("linux/arm/v6")), Some(1));
        assert_eq!(wanted.rank(&platform("linux/arm64")), None);
        assert_eq!(platform("linux/arm/v6").rank(&platform("linux/arm/v7")), None);
        assert_eq!(platform("linux/arm64/v8").rank(&platform("linux/arm64")), Some(0));
        assert_eq!(platform("linux/amd64").rank(&platform("linux/amd64/v3")), None);
    }

    #[test]
    fn reads_other_names_and_refuses_nonsense() {
        assert_eq!(platform("Linux/x86_64"), platform("linux/amd64"));
        for text in ["", "linux", "linux/", "a/b/c/d", "linux/../x"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }
}
