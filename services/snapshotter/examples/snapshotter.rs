//! The snapshotter as a process of its own, below one directory: `snapshotter DIRECTORY DRIVER`. The tests start, kill
//! and start it again.

use std::path::Path;

use berth_core::config::Node;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), berth_snapshotter::Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [directory, driver] = arguments.as_slice() else {
        eprintln!("usage: snapshotter DIRECTORY DRIVER");
        std::process::exit(2);
    };
    let directory = Path::new(directory);
    let mut node = Node { root: directory.join("root"), state: directory.join("state"), ..Node::default() };
    node.set(berth_snapshotter::NAME, "driver", driver)?;
    let _telemetry = berth_core::telemetry::init(&node, "berth-snapshotter");
    berth_snapshotter::run(node).await
}
