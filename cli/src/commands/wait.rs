//! `wait`: until containers end, and with which exit codes.

use berth_proto::berth::runtime::v1::WaitRequest;

use super::{
    each::each,
    foreground::{lost, revive},
};
use crate::{
    args::{Completes, Entry, Given},
    client::Client,
    outcome::Error,
};

pub(crate) const ENTRY: Entry = Entry {
    paths: &["wait", "container wait"],
    about: "Wait until containers end, then print their exit codes",
    usage: "CONTAINER [CONTAINER...]",
    operands: (1, usize::MAX),
    completes: Completes::Running,
    run: |client, given| Box::pin(wait(client, given)),
    ..Entry::PLAIN
};

async fn wait(client: Client, given: Given) -> Result<u8, Error> {
    // Connected before the waits are, so that they share it.
    client.containers().await?;
    each(given.operands(), |container| {
        let client = client.clone();
        async move {
            loop {
                let request = WaitRequest { container: container.clone(), ..WaitRequest::default() };
                match client.containers().await?.wait(request).await {
                    Ok(answer) => {
                        let answer = answer.into_inner();
                        return if answer.error.is_empty() {
                            Ok(answer.exit_code.to_string())
                        } else {
                            Err(Error::Invalid(answer.error))
                        };
                    }
                    Err(status) if lost(&status) => revive(&client).await?,
                    Err(status) => return Err(status.into()),
                }
            }
        }
    })
    .await
}
