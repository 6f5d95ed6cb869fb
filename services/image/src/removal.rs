//! `rmi` by Docker's rules (its classic image store, ImageDelete): by a name it takes the name away, and the image with
//! its last one; by an ID it deletes, unless several names are given to the image. What a container uses stays.

use std::{collections::HashSet, sync::Arc};

use berth_core::{Digest, Reference, digest::chain_ids};

use crate::{
    error::Error,
    held::Hold,
    images::{Images, blocking, find_in},
    leftovers::to_its_end,
    store::{All, Record},
};

/// What a removal did, in order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Removed {
    Untagged(String),
    Deleted(String),
}

impl Images {
    /// Takes a name away, and the image with its last one.
    pub(crate) async fn remove(self: &Arc<Self>, text: &str, force: bool) -> Result<Vec<Removed>, Error> {
        let (images, text) = (Arc::clone(self), text.to_owned());
        let (mut removed, gone) = blocking(move || images.remove_record(&text, force)).await?;
        let Some(record) = gone else { return Ok(removed) };
        removed.push(Removed::Deleted(record.id.to_string()));
        let images = Arc::clone(self);
        let removing = async move { Ok(images.remove_stack(&record).await) };
        removed.extend(to_its_end((), removing).await?);
        Ok(removed)
    }

    /// Takes the snapshots of an image away that is gone, from the top down, until one is still needed.
    async fn remove_stack(&self, record: &Record) -> Vec<Removed> {
        let mut removed = Vec::new();
        for chain_id in chain_ids(&record.diff_ids).iter().rev() {
            match self.remove_snapshot(chain_id).await {
                Ok(true) => removed.push(Removed::Deleted(chain_id.to_string())),
                Ok(false) => break,
                Err(error) => {
                    // The image is gone all the same; its snapshots are looked for again when the service starts.
                    tracing::warn!(%error, image = record.id.short(), "its snapshots could not be removed now");
                    break;
                }
            }
        }
        removed
    }

    /// Takes a snapshot away that neither an image nor work under way needs; false where it stays.
    pub(crate) async fn remove_snapshot(&self, chain_id: &Digest) -> Result<bool, Error> {
        // Who begins to need it now waits until it is gone, see `hold_stack`.
        let _turn = self.removals.wait(chain_id).await;
        // Asked in this order: who lets go has recorded before.
        if self.held.still().holds(chain_id) {
            return Ok(false);
        }
        let all = self.store.records.all();
        if all.values().any(|record| chain_ids(&record.diff_ids).contains(chain_id)) {
            return Ok(false);
        }
        self.snapshots.remove(chain_id).await
    }

    /// Holds the snapshots of a stack of layers until the answer is dropped.
    pub(crate) async fn hold_stack(&self, diff_ids: &[Digest]) -> Hold {
        let chain = chain_ids(diff_ids);
        let hold = self.held.hold(chain.iter().cloned());
        for chain_id in &chain {
            drop(self.removals.wait(chain_id).await);
        }
        hold
    }

    fn remove_record(&self, text: &str, force: bool) -> Result<(Vec<Removed>, Option<Record>), Error> {
        let mut leaving = None;
        let (removed, gone) = self.store.records.change(|all| {
            let found = find_in(all, text)?.cloned();
            let record = found.ok_or_else(|| Error::absent(text))?;
            leaving = Some(self.uses.leave(&record.id));
            let user = self.uses.of(&record.id).first().map(|owner| owner.chars().take(12).collect());
            plan(all, &record, text, force, user)
        })?;
        drop(leaving);
        if let Some(record) = &gone {
            self.store.configs.forget(&record.id);
            self.discard(record.blobs())?;
        }
        Ok((removed, gone))
    }

    /// Deletes content that neither a record nor work under way needs. Blocks.
    pub(crate) fn discard<'a>(&self, digests: impl Iterator<Item = &'a Digest>) -> Result<(), Error> {
        let mut taken = Vec::new();
        {
            // Asked in this order: who lets go has recorded before.
            let still = self.held.still();
            let referenced = self.store.records.referenced();
            for digest in digests.filter(|digest| !referenced.contains(*digest) && !still.holds(digest)) {
                taken.extend(self.store.blobs.take_away(digest)?);
            }
        }
        self.store.blobs.empty(&taken);
        Ok(())
    }
}

/// Changes `all`; answers with what was untagged, and with the record where the image goes.
fn plan(
    all: &mut All,
    record: &Record,
    text: &str,
    force: bool,
    user: Option<String>,
) -> Result<(Vec<Removed>, Option<Record>), Error> {
    let Some(entry) = all.get_mut(&record.id) else { return Ok((Vec::new(), None)) };
    let single = is_single(entry);
    let short = record.id.short();
    let mut removed = Vec::new();
    if let Some(reference) = named(entry, text) {
        if single && let (Some(user), false) = (&user, force) {
            return Err(Error::Conflict(format!(
                "unable to remove repository reference {text:?} (must force) - container {user} is using its referenced \
                 image {short}"
            )));
        }
        let repository = reference.repository();
        if reference.digest().is_some() {
            let name = format!("{repository}@{}", reference.target());
            entry.repo_digests.remove(&name);
            removed.push(Removed::Untagged(familiar(&name)));
        } else {
            let name = reference.to_string();
            entry.names.remove(&name);
            removed.push(Removed::Untagged(familiar(&name)));
            // Digests of a repository go with its last tag.
            if !entry.names.iter().any(|other| repository_of(other) == repository) {
                entry.repo_digests.retain(|digest| {
                    let goes = repository_of(digest) == repository;
                    if goes {
                        removed.push(Removed::Untagged(familiar(digest)));
                    }
                    !goes
                });
            }
        }
        if !entry.names.is_empty() || !entry.repo_digests.is_empty() || user.is_some() {
            return Ok((removed, None));
        }
    } else {
        if !single && !force {
            return Err(Error::Conflict(format!(
                "unable to delete {short} (must be forced) - image is referenced in multiple repositories"
            )));
        }
        if let Some(user) = user {
            return Err(Error::Conflict(format!(
                "unable to delete {short} (cannot be forced) - image is being used by container {user}"
            )));
        }
        removed.extend(entry.names.iter().chain(&entry.repo_digests).map(|name| Removed::Untagged(familiar(name))));
    }
    let gone = all.remove(&record.id);
    Ok((removed, gone))
}

/// The name of the image that the text is; `None` where it is its ID.
fn named(record: &Record, text: &str) -> Option<Reference> {
    let reference: Reference = text.parse().ok()?;
    let is = match reference.digest() {
        Some(digest) => record.repo_digests.contains(&format!("{}@{digest}", reference.repository())),
        None => record.names.contains(&reference.to_string()),
    };
    is.then_some(reference)
}

/// Whether there is one name at most, and digests of its repository only.
fn is_single(record: &Record) -> bool {
    let mut repositories: HashSet<&str> = record.repo_digests.iter().map(|name| repository_of(name)).collect();
    repositories.extend(record.names.iter().map(|name| repository_of(name)));
    record.names.len() <= 1 && repositories.len() <= 1
}

/// The repository of a canonical name, which has either a tag or a digest.
fn repository_of(name: &str) -> &str {
    match name.split_once('@') {
        Some((repository, _)) => repository,
        None => name.rsplit_once(':').map_or(name, |(repository, _)| repository),
    }
}

fn familiar(name: &str) -> String {
    name.parse::<Reference>().map_or_else(|_| name.to_owned(), |reference| reference.familiar())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::tests::{all, record};

    struct Case(All);

    impl Case {
        fn remove(&mut self, text: &str, force: bool, user: Option<&str>) -> Result<(Vec<String>, bool), Error> {
            let record = find_in(&self.0, text).unwrap().unwrap().clone();
            let (removed, gone) = plan(&mut self.0, &record, text, force, user.map(str::to_owned))?;
            let removed = removed.into_iter().map(|removed| match removed {
                Removed::Untagged(name) | Removed::Deleted(name) => name,
            });
            Ok((removed.collect(), gone.is_some()))
        }
    }

    #[test]
    fn names_go_one_by_one_and_the_image_with_the_last() {
        let one = record("one", &["a:1", "b:1"]);
        let mut images = Case(all(std::slice::from_ref(&one)));
        assert_eq!(images.remove("a:1", false, Some("c")).unwrap(), (vec!["a:1".into()], false));
        let refused = images.remove("b:1", false, Some("c")).unwrap_err().to_string();
        assert!(refused.contains("(must force) - container c is using its referenced image"), "{refused}");
        assert_eq!(images.remove("b:1", false, None).unwrap(), (vec!["b:1".into()], true));
        assert!(images.0.is_empty());
    }

    #[test]
    fn by_id_only_what_has_one_name() {
        for (names, single) in [(&["a:1", "b:1"][..], false), (&["a:1", "a:2"], false), (&["a:1"], true), (&[], true)] {
            let one = record("one", names);
            let id = one.id.hex()[..12].to_owned();
            let mut images = Case(all(std::slice::from_ref(&one)));
            let result = images.remove(&id, false, None);
            assert_eq!(result.is_ok(), single, "{names:?}");
            if let Err(error) = result {
                assert!(error.to_string().contains("(must be forced) - image is referenced in multiple"), "{error}");
                let used = images.remove(&id, true, Some("c")).unwrap_err().to_string();
                assert!(used.contains("(cannot be forced) - image is being used by container c"), "{used}");
                assert!(images.remove(&id, true, None).unwrap().1);
            }
        }
    }

    #[test]
    fn digests_go_with_the_last_tag_of_their_repository() {
        let mut one = record("one", &["a:1", "a:2"]);
        let digest = format!("docker.io/library/a@{}", one.id);
        one.repo_digests.insert(digest);
        let short = format!("a@{}", one.id);
        let mut images = Case(all(std::slice::from_ref(&one)));
        assert_eq!(images.remove("a:1", false, None).unwrap(), (vec!["a:1".into()], false));
        assert_eq!(images.remove("a:2", false, None).unwrap(), (vec!["a:2".into(), short.clone()], true));
        let mut images = Case(all(std::slice::from_ref(&one)));
        assert_eq!(images.remove(&short, false, None).unwrap(), (vec![short], false));
    }

    #[test]
    fn forced_by_name_a_used_image_loses_its_name_only() {
        let one = record("one", &["a:1"]);
        let mut images = Case(all(std::slice::from_ref(&one)));
        assert_eq!(images.remove("a:1", true, Some("c")).unwrap(), (vec!["a:1".into()], false));
        assert!(images.0[&one.id].names.is_empty());
    }
}
