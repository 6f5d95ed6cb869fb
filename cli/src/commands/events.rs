//! `events`: what happens on the node.

use std::collections::BTreeMap;

use berth_proto::berth::runtime::v1::{Event, EventsRequest};
use clap::Arg;
use jiff::Timestamp;

use super::each::line;
use crate::{
    args::{
        Entry, Given,
        flag::{list, value},
    },
    client::Client,
    format::{
        json::{Json, object},
        template::Format,
    },
    outcome::Error,
    spec,
};

pub(crate) const ENTRY: Entry = Entry {
    paths: &["events", "system events"],
    about: "Show what happens on the node, as it happens",
    usage: "[OPTIONS]",
    flags,
    run: |client, given| Box::pin(events(client, given)),
    ..Entry::PLAIN
};

fn flags() -> Vec<Arg> {
    vec![
        list("filter", "filter", "Only those for which this holds (event=start, container=web, type=container, …)")
            .short('f'),
        value("format", "string", "json, or a Go template for each"),
        value("since", "string", "From then on: a timestamp, or a duration back from now"),
        value("until", "string", "Until then: a timestamp, or a duration back from now"),
    ]
}

async fn events(client: Client, given: Given) -> Result<u8, Error> {
    let time = |flag: &str| given.text(flag).filter(|text| !text.is_empty()).map(spec::instant).transpose();
    let format = match given.text("format") {
        None | Some("") => None,
        Some("json") => Some(Format::parse("{{json .}}")?),
        Some(format) => Some(Format::parse(format)?),
    };
    let request = EventsRequest {
        since: time("since")?.unwrap_or_default(),
        until: time("until")?.unwrap_or_default(),
        filters: given.owned("filter"),
    };
    let mut answers = client.system().await?.events(request).await?.into_inner();
    while let Some(event) = answers.message().await? {
        match &format {
            Some(format) => line(&format.execute(&json(&event).to_template())?)?,
            None => line(&text(&event))?,
        }
    }
    Ok(0)
}

/// "2026-11-25T10:00:00.000000000Z container start ID (image=busybox, name=c)"
fn text(event: &Event) -> String {
    let attributes: BTreeMap<_, _> = event.attributes.iter().collect();
    let attributes: Vec<_> = attributes.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    let end = if attributes.is_empty() { String::new() } else { format!(" ({})", attributes.join(", ")) };
    format!("{} {} {} {}{end}", event.time, event.r#type, event.action, event.id)
}

fn json(event: &Event) -> Json {
    let time = event.time.parse::<Timestamp>().unwrap_or_default();
    let nanoseconds = i64::try_from(time.as_nanosecond()).unwrap_or_default();
    let image = event.attributes.get("image").cloned().unwrap_or_default();
    let container = event.r#type == "container";
    object! {
        "status": Json::from(event.action.as_str()).omitted_if(!container),
        "id": Json::from(event.id.as_str()).omitted_if(!container),
        "from": Json::from(image.as_str()).omitted_if(!container),
        "Status": Json::from(event.action.as_str()).omitted_if(true),
        "ID": Json::from(event.id.as_str()).omitted_if(true),
        "From": Json::from(image.as_str()).omitted_if(true),
        "Type": event.r#type.as_str(),
        "Action": event.action.as_str(),
        "Actor": object! { "ID": event.id.as_str(), "Attributes": Json::map(event.attributes.clone()) },
        "Time": Json::from(time.as_second()).omitted_if(true),
        "TimeNano": Json::from(nanoseconds).omitted_if(true),
        "scope": "local",
        "time": time.as_second(),
        "timeNano": nanoseconds,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_templates() {
        let event = Event {
            time: "2026-01-01T00:00:00Z".into(),
            r#type: "container".into(),
            action: "start".into(),
            id: "abc".into(),
            attributes: [("name".to_owned(), "c".to_owned()), ("image".to_owned(), "i".to_owned())].into(),
        };
        assert_eq!(text(&event), "2026-01-01T00:00:00Z container start abc (image=i, name=c)");
        let format = Format::parse("{{.Action}} {{.Actor.ID}} {{.Actor.Attributes.name}} {{.Time}}").unwrap();
        assert_eq!(format.execute(&json(&event).to_template()).unwrap(), "start abc c 1767225600");
    }
}
