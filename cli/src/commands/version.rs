//! `version`: of the command line and of the node.

use berth_proto::berth::runtime::v1::{VersionRequest, VersionResponse};

use super::each::print;
use crate::{
    args::{Entry, Given, flag::value},
    client::Client,
    format::{
        json::{Json, object},
        template::Format,
    },
    outcome::Error,
};

pub(crate) const ENTRY: Entry = Entry {
    paths: &["version"],
    about: "Show the versions of the command line and the node",
    usage: "[OPTIONS]",
    flags: || vec![value("format", "string", "json, or a Go template").short('f')],
    run: |client, given| Box::pin(version(client, given)),
    ..Entry::PLAIN
};

async fn version(client: Client, given: Given) -> Result<u8, Error> {
    let format = match given.text("format") {
        None | Some("") => None,
        Some(format) => Some(Format::parse(if format == "json" { "{{json .}}" } else { format })?),
    };
    let server = match client.system().await {
        Ok(mut system) => system.version(VersionRequest {}).await.map(tonic::Response::into_inner).map_err(Error::from),
        Err(error) => Err(error),
    };
    match (&format, &server) {
        (Some(format), server) => print(&(format.execute(&json(server.as_ref().ok()).to_template())? + "\n"))?,
        (None, server) => print(&text(server.as_ref().ok()))?,
    }
    // The client's part is told in any case.
    server.map(|_| 0)
}

fn text(server: Option<&VersionResponse>) -> String {
    let mut text = format!(
        "Client:\n Version:       {}\n OS/Arch:       {}/{}\n",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::OS,
        architecture()
    );
    if let Some(server) = server {
        text += &format!(
            "\nServer:\n Version:       {}\n API version:   {}\n Revision:      {}\n OS/Arch:       {}/{}\n Kernel:        {}\n",
            server.version, server.api_version, server.revision, server.os, server.architecture, server.kernel
        );
    }
    text
}

fn architecture() -> String {
    berth_core::Platform::host().to_string().split('/').nth(1).unwrap_or_default().to_owned()
}

/// The calls that this command line makes.
const API_VERSION: &str = "v1";

/// What templates may call a member too, because that is its name in Docker's program.
fn alias(value: &str) -> Json {
    Json::from(value).omitted_if(true)
}

fn json(server: Option<&VersionResponse>) -> Json {
    let server = server.map(|server| {
        object! {
            "Version": server.version.as_str(),
            "ApiVersion": server.api_version.as_str(),
            "APIVersion": alias(server.api_version.as_str()),
            "GitCommit": server.revision.as_str(),
            "Os": server.os.as_str(),
            "Arch": server.architecture.as_str(),
            "KernelVersion": server.kernel.as_str(),
        }
    });
    object! {
        "Client": object! {
            "Version": env!("CARGO_PKG_VERSION"),
            "ApiVersion": API_VERSION,
            "APIVersion": alias(API_VERSION),
            "Os": std::env::consts::OS,
            "Arch": architecture(),
        },
        "Server": Json::from(server),
    }
}
