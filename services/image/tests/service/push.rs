//! Pushes to a registry that can tell how much of an upload has arrived.

use berth_core::Failure;
use berth_proto::berth::image::v1::{PushRequest, PushedTag, push_progress::Message};

use crate::{
    made::{Layer, Made},
    node::Node,
    upstream::Upstream,
};

/// Pushes and gives all that was said.
async fn push(node: &Node, reference: &str) -> Result<Vec<Message>, Failure> {
    let request = PushRequest { reference: reference.into(), ..Default::default() };
    let mut answers = node.client().push(request).await.map_err(Failure::from)?.into_inner();
    let mut said = Vec::new();
    while let Some(progress) = answers.message().await.map_err(Failure::from)? {
        said.extend(progress.message);
    }
    Ok(said)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_goes_on_from_what_has_arrived() {
    let (upstream, node) = Upstream::with_node("").await;
    let layer = Layer::noise(1, 5_000_000);
    let made = Made::new(&[layer]);
    let from = upstream.image("from/a:1", &made);
    node.pull(&from).await.done();
    let to = format!("{}/to/b:1", upstream.address);
    node.tag(&from, &to).await.unwrap();
    upstream.cut_uploads(&[700_000, 1_000_000]);
    let said = push(&node, &to).await.unwrap();
    let notices = said.iter().filter(|message| matches!(message, Message::Notice(_))).count();
    assert_eq!(notices, 2, "{said:?}");
    let patches: Vec<_> = upstream.asked().into_iter().filter(|asked| asked.method == "PATCH").collect();
    let ranges: Vec<_> = patches.iter().map(|asked| asked.headers.get("content-range").map(String::as_str)).collect();
    let size = made.blobs().map(|blob| blob.len()).max().unwrap();
    let rest = |from: usize| format!("{from}-{}", size - 1);
    assert_eq!(ranges, [None, Some(rest(1_000_000).as_str()), Some(rest(1_700_000).as_str())]);
    let Some(Message::Tag(PushedTag { tag, digest, size })) = said.last() else { panic!("{said:?}") };
    let expected = berth_core::Digest::sha256(&made.manifest).to_string();
    assert_eq!((tag.as_str(), digest, *size), ("1", &expected, made.manifest.len() as u64));
    // It is whole there: another node's pull verifies all of it.
    let other = Node::start_in(node.place.clone(), tempfile::tempdir().unwrap(), "");
    other.pull(&to).await.done();
}
