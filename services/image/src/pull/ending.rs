//! The parts of one pull end together: the first failure is the pull's reason, and the other parts come to an orderly end,
//! which is waited for. What is taken away afterwards is therefore nobody's any more.

use tokio::sync::watch;

use crate::error::Error;

/// Why the parts end, once any has failed.
#[derive(Debug, Default)]
pub(super) struct Ending(watch::Sender<Option<Error>>);

impl Ending {
    /// One part has failed. The first reason counts; what fails because of it does not.
    pub(super) fn fail(&self, error: Error) {
        self.0.send_if_modified(|reason| {
            let first = reason.is_none();
            if first {
                *reason = Some(error);
            }
            first
        });
    }

    /// Goes on with `work` until a part has failed. What cannot be dropped in the middle does not belong in here.
    pub(super) async fn unless<T>(&self, work: impl Future<Output = T>) -> Result<T, Error> {
        let mut failed = self.0.subscribe();
        tokio::select! {
            biased;
            () = async { drop(failed.wait_for(Option::is_some).await) } => Err(Error::Cancelled),
            done = work => Ok(done),
        }
    }

    /// The reason, once every part has ended.
    pub(super) fn reason(&self) -> Result<(), Error> {
        self.0.send_replace(None).map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_failure_ends_all_and_is_the_reason() {
        let ending = Ending::default();
        assert_eq!(ending.unless(async { 1 }).await.unwrap(), 1);
        let waiting = ending.unless(std::future::pending::<()>());
        let failing = async {
            ending.fail(Error::Request("first"));
            ending.fail(Error::Request("second"));
        };
        let (waited, ()) = tokio::join!(waiting, failing);
        assert!(matches!(waited, Err(Error::Cancelled)));
        assert!(matches!(ending.unless(async {}).await, Err(Error::Cancelled)), "also who comes later");
        assert!(matches!(ending.reason(), Err(Error::Request("first"))));
        assert!(ending.reason().is_ok());
    }
}
