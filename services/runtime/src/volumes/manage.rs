//! What people do with volumes by their names.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Error,
    filter::Filter,
    size,
    store::{Inner, Volumes, blocking},
    volume::{Purpose, Volume, check_name, invented_name},
};

/// A volume, who has it, and how much disk it takes where that was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) volume: Volume,
    pub(crate) users: Vec<String>,
    pub(crate) size: Option<u64>,
}

impl Volumes {
    /// Makes a volume, of an invented name where none is given; one that is there is left as it is.
    ///
    /// # Errors
    /// The name, the driver or an option cannot be meant, or it cannot be made.
    pub(crate) async fn create(
        &self,
        name: String,
        driver: &str,
        labels: BTreeMap<String, String>,
        options: &BTreeMap<String, String>,
    ) -> Result<Told, Error> {
        let anonymous = name.is_empty();
        let name = if anonymous { invented_name() } else { name };
        check_name(&name)?;
        if !matches!(driver, "" | "local") {
            return Err(Error::NoDriver { name, driver: driver.into() });
        }
        if let Some(option) = options.keys().next() {
            return Err(Error::NoOption { name, option: option.clone() });
        }
        let inner = Arc::clone(&self.0);
        let make = move || {
            let volume = inner.volume(&name)?;
            inner.make(&volume, Purpose { anonymous, container: "", labels: Some(&labels) })?;
            inner.tell(&name, false)
        };
        blocking("making a volume", make).await
    }

    /// The volumes that are wanted, by name.
    ///
    /// # Errors
    /// A filter cannot be meant, or the directory cannot be read.
    pub(crate) async fn wanted(&self, filters: &[String], with_size: bool) -> Result<Vec<Told>, Error> {
        let filter = Filter::parse(filters)?;
        let inner = Arc::clone(&self.0);
        let list = move || {
            let all = inner.list()?;
            let users = inner.users().clone();
            let wanted = all.into_iter().filter(|volume| filter.admits(volume, users.contains_key(&volume.name)));
            let told = wanted.map(|volume| Told {
                users: users.get(&volume.name).into_iter().flatten().cloned().collect(),
                size: with_size.then(|| size::of(&volume.mountpoint)),
                volume,
            });
            Ok(told.collect())
        };
        blocking("listing volumes", list).await
    }

    /// One volume.
    ///
    /// # Errors
    /// It is not there.
    pub(crate) async fn inspect(&self, name: String, with_size: bool) -> Result<Told, Error> {
        let inner = Arc::clone(&self.0);
        blocking("looking at a volume", move || inner.tell(&name, with_size)).await
    }

    /// Removes a volume that no container has.
    ///
    /// # Errors
    /// It is in use, or, unless `force`, it is not there.
    pub(crate) async fn remove(&self, name: &str, force: bool) -> Result<(), Error> {
        let (inner, name) = (Arc::clone(&self.0), name.to_owned());
        let remove = move || {
            let users = inner.users();
            if let Some(by) = users.get(&name) {
                return Err(Error::InUse { name: name.clone(), by: by.iter().cloned().collect() });
            }
            match inner.remove(&name) {
                Err(Error::NotFound { .. }) if force => Ok(()),
                removed => removed,
            }
        };
        blocking("removing a volume", remove).await
    }

    /// Removes the volumes that no container has, the anonymous ones alone unless `all`. Answers with their names and
    /// the bytes of their files.
    ///
    /// # Errors
    /// A filter cannot be meant, or the directory cannot be read.
    pub(crate) async fn prune(&self, all: bool, filters: &[String]) -> Result<(Vec<String>, u64), Error> {
        let filter = Filter::parse(filters)?;
        let inner = Arc::clone(&self.0);
        let prune = move || {
            let (mut pruned, mut bytes) = (Vec::new(), 0);
            for volume in inner.list()? {
                if !(all || volume.details.anonymous) || !filter.admits(&volume, false) {
                    continue;
                }
                if inner.users().contains_key(&volume.name) {
                    continue;
                }
                let size = size::of(&volume.mountpoint);
                // A container may have got it meanwhile.
                let users = inner.users();
                if users.contains_key(&volume.name) {
                    continue;
                }
                match inner.remove(&volume.name) {
                    Ok(()) => {
                        bytes += size;
                        pruned.push(volume.name);
                    }
                    Err(error) => tracing::warn!(volume = volume.name, %error, "a volume that nobody has stays"),
                }
            }
            Ok((pruned, bytes))
        };
        blocking("pruning volumes", prune).await
    }
}

impl Inner {
    fn tell(&self, name: &str, with_size: bool) -> Result<Told, Error> {
        let missing = || Error::NotFound { name: name.into() };
        let volume = self.volume(name).ok().filter(Volume::exists).ok_or_else(missing)?;
        let users = self.users().get(name).into_iter().flatten().cloned().collect();
        Ok(Told { users, size: with_size.then(|| size::of(&volume.mountpoint)), volume })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::Events;

    async fn names(volumes: &Volumes, filters: &[&str]) -> Vec<String> {
        let filters: Vec<_> = filters.iter().map(|filter| (*filter).to_owned()).collect();
        volumes.wanted(&filters, false).await.unwrap().into_iter().map(|told| told.volume.name).collect()
    }

    #[tokio::test]
    async fn from_making_to_pruning() {
        let directory = tempfile::tempdir().unwrap();
        let volumes = Volumes::open(directory.path(), Events::default()).unwrap();
        let (none, labels) = (BTreeMap::new(), BTreeMap::from([("tier".to_owned(), "db".to_owned())]));
        volumes.create("data".into(), "local", labels, &none).await.unwrap();
        volumes.create("data".into(), "", none.clone(), &none).await.unwrap();
        let invented = volumes.create(String::new(), "", none.clone(), &none).await.unwrap();
        assert!(invented.volume.details.anonymous && invented.volume.name.len() == 64);
        for (driver, options) in [("nfs", none.clone()), ("", BTreeMap::from([("type".to_owned(), "x".to_owned())]))] {
            assert!(volumes.create("other".into(), driver, none.clone(), &options).await.is_err());
        }
        assert_eq!(names(&volumes, &["name=at"]).await, ["data"]);
        assert_eq!(names(&volumes, &["label=tier=db", "dangling=true"]).await, ["data"]);
        assert_eq!(names(&volumes, &["label!=tier"]).await, std::slice::from_ref(&invented.volume.name));
        assert!(names(&volumes, &["dangling=false"]).await.is_empty());
        assert!(volumes.wanted(&["color=red".into()], false).await.is_err());

        volumes.0.take("c", "data");
        assert_eq!(names(&volumes, &["dangling=false"]).await, ["data"]);
        assert_eq!(volumes.inspect("data".into(), true).await.unwrap().users, ["c"]);
        assert!(volumes.remove("data", true).await.unwrap_err().to_string().contains("volume is in use - [c]"));
        assert_eq!(volumes.prune(true, &[]).await.unwrap().0, [invented.volume.name]);
        volumes.0.give_back("c", ["data"].into_iter());
        assert!(volumes.prune(false, &[]).await.unwrap().0.is_empty(), "a name is a reason to stay");
        assert!(volumes.prune(true, &["label!=tier".into()]).await.unwrap().0.is_empty());
        assert_eq!(volumes.prune(true, &[]).await.unwrap().0, ["data"]);
        volumes.remove("data", true).await.unwrap();
        assert!(volumes.remove("data", false).await.unwrap_err().to_string().contains("no such volume"));
        assert!(volumes.inspect("../data".into(), false).await.is_err());
    }
}
