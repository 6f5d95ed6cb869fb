//! From a reference to a manifest: the hosts are asked in order, indexes are followed to the platform's image.

use berth_core::Digest;
use berth_proto::berth::image::v1::pull_progress::Message;
use bytes::Bytes;

use super::{
    Progress, Wanted,
    retry::{ATTEMPTS, retried},
};
use crate::{
    error::Error,
    manifest::{self, Document, Manifest},
    registry::Session,
};

/// Indexes may point to indexes; more than this is a loop or an attack.
const MAX_DEPTH: usize = 4;

/// An image's documents, fetched and checked.
pub(super) struct Resolved {
    /// The image's name as people write it.
    pub(super) name: String,
    /// What the reference named.
    pub(super) named: Digest,
    pub(super) index: Option<Digest>,
    pub(super) manifest_digest: Digest,
    pub(super) manifest: Manifest,
    /// The host that had it, then those that may have the rest of it.
    pub(super) sessions: Vec<Session>,
    /// What is stored: the index, the manifest.
    pub(super) documents: Vec<(Digest, Bytes)>,
}

impl Resolved {
    /// Everything that the image is made of.
    pub(super) fn content(&self) -> impl Iterator<Item = &Digest> {
        let blobs = [&self.manifest.config].into_iter().chain(&self.manifest.layers);
        blobs.map(|blob| &blob.digest).chain([&self.manifest_digest, &self.named])
    }

    /// Bytes of all layers.
    pub(super) fn compressed(&self) -> u64 {
        self.manifest.layers.iter().fold(0, |sum, layer| sum.saturating_add(layer.size))
    }
}

/// Asks the hosts in order for what a reference names.
pub(super) async fn resolve(
    mut sessions: Vec<Session>,
    wanted: &Wanted,
    progress: &Progress,
) -> Result<Resolved, Error> {
    let reference = &wanted.reference;
    let mut failures: Vec<(String, Error)> = Vec::new();
    for at in 0..sessions.len() {
        let last = at + 1 == sessions.len();
        // A mirror that does not answer at once is passed over.
        let attempts = if last { ATTEMPTS } else { 1 };
        match documents(&sessions[at], wanted, attempts, progress).await {
            Ok(mut resolved) => {
                let session = sessions.remove(at);
                // Those that failed before are the last to be asked for blobs.
                sessions.rotate_left(at);
                sessions.insert(0, session);
                resolved.sessions = sessions;
                return Ok(resolved);
            }
            Err(error) => {
                if !last {
                    let text = format!("the mirror {} is passed over: {}", sessions[at].host(), error.of_host());
                    progress.tell(Message::Notice(text));
                }
                failures.push((sessions[at].host().to_owned(), error));
            }
        }
    }
    // What the registry itself says counts. Where it is away, a mirror may have said something about the image.
    let own = failures.pop().map_or(Error::Cancelled, |(_, error)| error);
    let telling = |error: &Error| matches!(error, Error::NoPlatform { .. } | Error::Unusable { .. });
    if matches!(own, Error::Registry { .. })
        && let Some(at) = failures.iter().position(|(_, error)| telling(error))
    {
        return Err(failures.swap_remove(at).1);
    }
    let with_mirrors = |why: String| {
        let mirrors = failures.iter().map(|(host, error)| format!("the mirror {host}: {}", error.of_host()));
        [why].into_iter().chain(mirrors).collect::<Vec<_>>().join("; ")
    };
    Err(match own {
        Error::ManifestUnknown { reference: inner, why } => {
            // An index may name a manifest that is not there.
            let digest = inner.split_once('@').map(|(_, digest)| digest.to_owned());
            let why = match digest.filter(|digest| *digest != reference.target()) {
                Some(digest) => format!("it names {digest}, and that is missing: {}", with_mirrors(why)),
                None => with_mirrors(why),
            };
            Error::ManifestUnknown { reference: reference.familiar(), why }
        }
        Error::Denied { repository, why } => Error::Denied { repository, why: with_mirrors(why) },
        Error::Registry { host, why } => Error::Registry { host, why: with_mirrors(why) },
        error => error,
    })
}

async fn documents(session: &Session, wanted: &Wanted, attempts: u32, progress: &Progress) -> Result<Resolved, Error> {
    let name = wanted.reference.familiar();
    let mut target = wanted.reference.target();
    let mut named = None;
    let mut index = None;
    for _ in 0..MAX_DEPTH {
        let served = retried(progress, attempts, || session.manifest(&target)).await?;
        let manifest_digest = served.digest.clone();
        named.get_or_insert_with(|| manifest_digest.clone());
        let document = (served.digest, served.bytes.clone());
        match manifest::parse(&served.bytes, &served.content_type, &name)? {
            Document::Manifest(manifest) => {
                let named = named.unwrap_or_else(|| manifest_digest.clone());
                // Of several indexes only the outermost is kept with the image.
                let outer: Option<(Digest, Bytes)> = index;
                let kept = outer.as_ref().map(|(digest, _)| digest.clone());
                let documents = outer.into_iter().chain([document]).collect();
                let sessions = Vec::new();
                return Ok(Resolved { name, named, index: kept, manifest_digest, manifest, sessions, documents });
            }
            Document::Index(document_index) => {
                target = document_index.choose(&wanted.platform, &name)?.digest.to_string();
                index.get_or_insert(document);
            }
        }
    }
    Err(Error::Unusable { what: name, why: format!("its indexes are nested more than {MAX_DEPTH} deep") })
}
