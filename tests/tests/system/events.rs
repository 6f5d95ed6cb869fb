//! `events`: of everything, in order, also those of the image service.

use berth_tests::{Node, Setup};

use crate::node;

fn told(node: &Node, filters: &[&str]) -> Vec<String> {
    let filters = filters.iter().flat_map(|filter| ["--filter", filter]);
    let words =
        ["events", "--since", "1h", "--until", "0s", "--format", "{{.Type}} {{.Action}} {{.Actor.Attributes.name}}"];
    let words: Vec<_> = words.into_iter().chain(filters).collect();
    node.berth(&words).ok().lines().map(str::to_owned).collect()
}

#[test]
fn of_images_and_of_volumes() {
    let node = node(Setup::default());
    // What is told by another service comes when it comes: the last is waited for.
    let mut last =
        node.lines(&["events", "--filter", "type=image", "--filter", "event=prune", "--format", "{{.Action}}"]);
    let id = node.berth(&["images", "-q", "--no-trunc"]).ok().to_owned();
    node.berth(&["tag", "busybox", "mine:1"]).ok();
    node.berth(&["save", "-o", "/dev/null", "mine:1"]).ok();
    node.berth(&["rmi", "mine:1"]).ok();
    node.berth(&["image", "prune", "-f"]).ok();
    assert_eq!(last.next().as_deref(), Some("prune"));
    let expected = [
        "image load busybox:latest".to_owned(),
        "image tag mine:1".into(),
        format!("image save {id}"),
        format!("image untag {id}"),
        "image prune <no value>".into(),
    ];
    assert_eq!(told(&node, &["type=image"]), expected);
    node.berth(&["run", "--name", "c", "-v", "data:/data", "busybox", "true"]).ok();
    node.berth(&["rm", "c"]).ok();
    node.berth(&["volume", "rm", "data"]).ok();
    let words = ["events", "--since", "1h", "--until", "0s", "--filter", "volume=data", "--format"];
    let volumes = node.berth(&[&words[..], &["{{.Action}} {{.Actor.ID}} {{.Actor.Attributes.destination}}"]].concat());
    let expected = "create data <no value>\nmount data /data\nunmount data <no value>\ndestroy data <no value>";
    assert_eq!(volumes.ok(), expected);
    assert_eq!(told(&node, &["type=volume", "event=destroy"]).len(), 1);
    // Those that a service which was killed tells after it is back are heard, too.
    node.crash("image");
    node.answers();
    let mut tags =
        node.lines(&["events", "--filter", "type=image", "--filter", "event=tag", "--format", "{{.Action}}"]);
    // The runtime service listens again a moment after the image service answers.
    let heard = std::thread::scope(|scope| {
        let heard = scope.spawn(|| tags.next());
        for number in 0.. {
            if heard.is_finished() || number > 1000 {
                break;
            }
            node.berth(&["tag", "busybox", &format!("again:{number}")]).ok();
        }
        heard.join().unwrap()
    });
    assert_eq!(heard.as_deref(), Some("tag"));
    drop((last, tags));
    node.finish();
}
