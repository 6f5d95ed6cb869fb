//! A database as people run it: a password in the environment, its data on a volume, its port published.

use berth_tests::{Node, Setup};

on_both_runtimes!(a_database_keeps_its_rows);

/// Starts a server on the volume `rows` and waits for it to accept connections.
fn serve(node: &Node, name: &str) {
    let volume = ["-v", "rows:/var/lib/mysql", "-p", "3306:3306"];
    let run = ["run", "--name", name, "-d", "-e", "MYSQL_ROOT_PASSWORD=secret"];
    node.berth(&[&run, &volume[..], &["mariadb"]].concat()).ok();
    // The server tells its readiness on standard error; the line of the first start's setup has no port.
    let mut log = node.lines_of_both(&["logs", "-f", name]);
    assert!(log.any(|line| line.contains("port: 3306")), "{name} starts");
}

fn a_database_keeps_its_rows(setup: Setup) {
    let node = Node::with(setup);
    node.load("mariadb");
    let refused = node.berth(&["run", "--rm", "mariadb"]);
    assert!(refused.fails(2).contains("MYSQL_ROOT_PASSWORD"), "{refused:?}");
    serve(&node, "db");
    let sql = |name: &str, query: &str| {
        node.berth(&["exec", name, "mariadb", "-uroot", "-psecret", "-N", "-e", query]).ok().to_owned()
    };
    sql("db", "create database shop; create table shop.t (n int); insert into shop.t values (42)");
    let gateway = node.inspect("db", "{{.NetworkSettings.Gateway}}");
    let client = ["run", "--rm", "--entrypoint", "mariadb", "mariadb", "-h", &gateway, "-uroot", "-psecret", "-N"];
    let asked = node.berth(&[&client[..], &["-e", "select n from shop.t"]].concat());
    assert_eq!(asked.ok(), "42", "by the published port, from another container");
    node.berth(&["stop", "db"]).ok();
    assert_eq!(node.inspect("db", "{{.State.ExitCode}}"), "0", "it ends by itself when it is asked to");
    node.berth(&["rm", "-v", "db"]).ok();
    serve(&node, "again");
    assert_eq!(sql("again", "select n from shop.t"), "42", "what is on a volume outlives its containers");
    node.berth(&["rm", "-f", "again"]).ok();
    node.berth(&["volume", "rm", "rows"]).ok();
    node.finish();
}
