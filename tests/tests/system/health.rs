//! Health checks: what becomes of their results, and that they go on.

use berth_tests::Setup;

use crate::node;

on_both_runtimes!(
    health_is_told_everywhere,
    results_are_kept_and_bounded,
    an_images_check_and_its_refusal,
    checks_survive_the_service_and_hold_with_a_pause,
);

/// Checks every few milliseconds, and says nothing of its own.
const OFTEN: [&str; 4] = ["--health-interval", "20ms", "--health-retries", "2"];

fn health_is_told_everywhere(setup: Setup) {
    let node = node(setup);
    let mut events = node.lines(&[
        "events",
        "--filter",
        "event=health_status",
        "--format",
        "{{.Action}} {{.Actor.Attributes.name}}",
    ]);
    let command =
        [&["run", "-d", "--name", "c", "--health-cmd", "test -e /well"], &OFTEN[..], &["busybox", "sleep", "1000"]];
    // Listening before anything happens: the first event is of this container, whichever came before it.
    node.berth(&command.concat()).ok();
    assert_eq!(events.next().as_deref(), Some("health_status: unhealthy c"));
    assert!(node.berth(&["ps", "--format", "{{.Status}} {{.HealthStatus}}"]).ok().ends_with("(unhealthy) unhealthy"));
    let why = node.berth(&["why", "c"]).ok().to_owned();
    assert!(why.contains("unhealthy: its health check failed") && why.contains("exit code 1"), "{why}");
    node.berth(&["exec", "c", "touch", "/well"]).ok();
    assert_eq!(events.next().as_deref(), Some("health_status: healthy c"));
    assert!(node.berth(&["ps"]).ok().contains("(healthy)"));
    assert_eq!(node.inspect("c", "{{.State.Health.Status}} {{.State.Health.FailingStreak}}"), "healthy 0");
    assert_eq!(
        node.inspect("c", "{{.Config.Healthcheck.Test}} {{.Config.Healthcheck.Interval}}"),
        "[CMD-SHELL test -e /well] 20000000"
    );
    node.berth(&["run", "-d", "--name", "d", "busybox", "sleep", "1000"]).ok();
    let named = |filter: &str| node.berth(&["ps", "-a", "--format", "{{.Names}}", "--filter", filter]).ok().to_owned();
    assert_eq!(
        (named("health=healthy"), named("health=none"), named("health=unhealthy")),
        ("c".into(), "d".into(), "".into())
    );
    node.berth(&["stop", "-t", "0", "c"]).ok();
    // In Docker's word, what is not looked at is not healthy.
    assert_eq!(node.inspect("c", "{{.State.Health.Status}}"), "unhealthy");
    node.berth(&["start", "c"]).ok();
    assert_eq!(events.next().as_deref(), Some("health_status: healthy c"));
    node.finish();
}

fn results_are_kept_and_bounded(setup: Setup) {
    let node = node(setup);
    let mut events = node.lines(&[
        "events",
        "--filter",
        "event=health_status",
        "--format",
        "{{.Action}} {{.Actor.Attributes.name}}",
    ]);
    let run = |name: &str, check: &str, more: &[&str]| {
        let command =
            [&["run", "-d", "--name", name, "--health-cmd", check], &OFTEN[..], more, &["busybox", "sleep", "1000"]];
        node.berth(&command.concat()).ok();
    };
    run("loud", "echo begins; yes | head -c 100000; exit 3", &[]);
    assert_eq!(events.next().as_deref(), Some("health_status: unhealthy loud"));
    let told = node.inspect("loud", "{{range .State.Health.Log}}{{.ExitCode}} {{len .Output}};{{end}}");
    assert!(told.starts_with("3 4096;") && told.split_terminator(';').count() <= 5, "{told}");
    assert!(node.inspect("loud", "{{(index .State.Health.Log 0).Output}}").starts_with("begins\ny\n"));
    node.berth(&["rm", "-f", "loud"]).ok();
    // The last check is made while it is removed, and says nothing.
    run("hangs", "echo asked; sleep 1000", &["--health-timeout", "100ms"]);
    assert_eq!(events.next().as_deref(), Some("health_status: unhealthy hangs"));
    assert_eq!(
        node.inspect("hangs", "{{with index .State.Health.Log 0}}{{.ExitCode}} {{.Output}}{{end}}"),
        "-1 Health check exceeded timeout (100ms): asked"
    );
    run("absent", "x", &["--health-start-period", "1h", "--health-start-interval", "10ms"]);
    let mut checks = node.lines(&["events", "--filter", "container=absent", "--filter", "event=exec_die"]);
    for _ in 0..7 {
        assert!(checks.next().unwrap().contains("exitCode=127"));
    }
    assert_eq!(node.inspect("absent", "{{.State.Health.Status}} {{len .State.Health.Log}}"), "starting 5");
    node.finish();
}

fn an_images_check_and_its_refusal(setup: Setup) {
    let node = node(setup);
    node.berth(&["create", "--name", "base", "busybox", "sleep", "1000"]).ok();
    let check = "HEALTHCHECK --interval=20ms --retries=1 CMD [\"false\"]";
    node.berth(&["commit", "-c", check, "base", "checked"]).ok();
    let mut events = node.lines(&["events", "--filter", "event=health_status", "--format", "{{.Action}}"]);
    node.berth(&["run", "-d", "--name", "c", "checked"]).ok();
    assert_eq!(events.next().as_deref(), Some("health_status: unhealthy"));
    node.berth(&["run", "-d", "--name", "ours", "--health-cmd", "true", "checked"]).ok();
    assert_eq!(events.next().as_deref(), Some("health_status: healthy"));
    assert_eq!(node.inspect("ours", "{{.Config.Healthcheck.Interval}} {{.Config.Healthcheck.Retries}}"), "20000000 1");
    node.berth(&["run", "-d", "--name", "none", "--no-healthcheck", "checked"]).ok();
    assert_eq!(node.inspect("none", "{{.Config.Healthcheck.Test}} {{json .State.Health}}"), "[NONE] null");
    let refused = node.berth(&["run", "--health-cmd", "true", "--health-interval", "5us", "busybox"]).fails(125);
    assert!(refused.contains("Interval in Healthcheck cannot be less than 1ms"), "{refused}");
    node.finish();
}

fn checks_survive_the_service_and_hold_with_a_pause(setup: Setup) {
    let node = node(setup);
    let check = "echo $(($(cat /n 2>/dev/null) + 1)) > /n; cat /n";
    let command = [&["run", "-d", "--name", "c", "--health-cmd", check], &OFTEN[..], &["busybox", "sleep", "1000"]];
    node.berth(&command.concat()).ok();
    let checks = || node.lines(&["events", "--since", "0", "--filter", "event=exec_die", "--filter", "container=c"]);
    assert!(checks().nth(6).is_some());
    let before = node.inspect("c", "{{(index .State.Health.Log 0).Output}}");
    node.crash("runtime");
    node.answers();
    // What was known is known, and the next check comes by itself.
    assert_eq!(node.inspect("c", "{{.State.Health.Status}} {{len .State.Health.Log}}"), "healthy 5");
    assert!(checks().nth(1).is_some());
    let number = |text: &str| text.trim().parse::<u32>().unwrap();
    let after = node.inspect("c", "{{(index .State.Health.Log 0).Output}}");
    assert!(number(&after) > number(&before), "{before} {after}");

    node.berth(&["pause", "c"]).ok();
    let frozen = node.inspect("c", "{{json .State.Health}}");
    assert!(node.berth(&["ps"]).ok().contains("(Paused)"));
    assert_eq!(node.inspect("c", "{{json .State.Health}}"), frozen);
    node.berth(&["unpause", "c"]).ok();
    let mut more = node.lines(&["events", "--filter", "event=exec_die", "--filter", "container=c"]);
    assert!(more.next().is_some());
    node.finish();
}
