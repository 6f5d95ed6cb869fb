//! How often, and after how long, something is tried again.

use std::time::Duration;

use berth_proto::berth::image::v1::pull_progress::Message;
use rand::Rng as _;

use super::Progress;
use crate::{error::Error, registry::Attempt};

/// Attempts at a host when there is no other.
pub(crate) const ATTEMPTS: u32 = 6;
/// Attempts at a host that has another one behind it.
pub(super) const ATTEMPTS_AT_MIRROR: u32 = 2;
const FIRST_WAIT: Duration = Duration::from_millis(200);

/// Twice as long each time, and never the same for two clients.
pub(crate) fn back_off(attempt: u32) -> Duration {
    let longest = FIRST_WAIT * 2u32.pow(attempt.min(6));
    rand::rng().random_range(longest / 2..=longest)
}

/// Tries again what may succeed the next time; each further attempt is told.
pub(super) async fn retried<T, F>(
    progress: &Progress,
    attempts: u32,
    mut attempt: impl FnMut() -> F,
) -> Result<T, Error>
where
    F: Future<Output = Result<T, Attempt>>,
{
    let mut number = 1;
    loop {
        match attempt().await {
            Ok(done) => return Ok(done),
            Err(failed) => {
                let Some(wait) = failed.retry.filter(|_| number < attempts) else { return Err(failed.error) };
                let wait = wait.max(back_off(number));
                let text = format!("{}; trying again in {:.1} s", failed.error, wait.as_secs_f64());
                progress.tell(Message::Notice(text));
                tokio::time::sleep(wait).await;
                number += 1;
            }
        }
    }
}
