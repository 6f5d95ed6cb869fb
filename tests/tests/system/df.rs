//! `system df`: true numbers, and those that `prune` then frees.

use berth_tests::Setup;

use crate::node;

#[test]
fn what_is_shared_is_counted_once_and_what_is_unused_is_freed() {
    let node = node(Setup::default());
    let df = |format: &str| node.berth(&["system", "df", "--format", format]).ok().to_owned();
    let empty = "Images 1 0\nContainers 0 0\nLocal Volumes 0 0\nBuild Cache 0 0";
    assert_eq!(df("{{.Type}} {{.TotalCount}} {{.Active}}"), empty);
    let size = || df("{{.Type}} {{.Size}}").lines().next().unwrap().to_owned();
    let before = size();
    node.berth(&["tag", "busybox", "other:1"]).ok();
    assert_eq!(size(), before, "a name takes nothing");
    node.berth(&[
        "run",
        "--name",
        "c",
        "-v",
        "data:/data",
        "busybox",
        "dd",
        "if=/dev/zero",
        "of=/data/x",
        "bs=1M",
        "count=3",
    ])
    .ok();
    node.berth(&["run", "-d", "--name", "d", "busybox", "sh", "-c", "head -c 2000000 /dev/zero > /x; sleep 1000"]).ok();
    node.berth(&["exec", "d", "sh", "-c", "until test $(stat -c %s /x) = 2000000; do :; done; sync"]).ok();
    let counts = "Images 1 1\nContainers 2 1\nLocal Volumes 1 1\nBuild Cache 0 0";
    assert_eq!(df("{{.Type}} {{.TotalCount}} {{.Active}}"), counts);
    let rows = df("{{.Size}} {{.Reclaimable}}");
    let rows: Vec<_> = rows.lines().collect();
    assert!(rows[0].ends_with(" 0B (0%)"), "its image is used: {rows:?}");
    assert!(rows[1].starts_with("2.0") && rows[2].starts_with("3.1") && rows[2].ends_with(" 0B (0%)"), "{rows:?}");
    let each = node.berth(&["system", "df", "-v"]).ok().to_owned();
    for words in
        ["Images space usage:\n\nREPOSITORY ", "\nContainers space usage:\n\nCONTAINER ID ", "\nVOLUME NAME ", "other "]
    {
        assert!(each.contains(words), "{words}: {each}");
    }
    let json = node.berth(&["system", "df", "-v", "--format", "json"]).ok().to_owned();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["Containers"].as_array().unwrap().len(), 2);
    assert_eq!((json["Volumes"][0]["Name"].as_str(), json["Volumes"][0]["Links"].as_str()), (Some("data"), Some("1")));
    node.berth(&["rm", "-f", "c", "d"]).ok();
    let freed = df("{{.Reclaimable}}").lines().next().unwrap().split(' ').next().unwrap().to_owned();
    let pruned = node.berth(&["image", "prune", "-af"]).ok().to_owned();
    assert!(pruned.ends_with(&format!("Total reclaimed space: {freed}")), "{freed}: {pruned}");
    node.finish();
}
