//! Blobs that are still arriving, calls that break off, and calls that share their work.

use std::io::Write as _;

use berth_core::Kind;
use berth_proto::berth::snapshotter::v1::{ApplyFinish, StatRequest, apply_request::Message};
use berth_tests::patience::until;

use crate::{
    archive::{Archive, Layer, gzip, noise},
    both_drivers,
    mounted::Mounted,
    service::{Apply, Service},
};

both_drivers!(
    grows_while_it_is_read,
    broken_off_leaves_nothing,
    two_calls_share_the_work,
    the_second_takes_over_when_the_first_fails,
    a_blob_that_is_renamed_is_still_read,
    who_goes_away_is_forgotten_whatever_was_said_before,
);

fn layer() -> Layer {
    Archive::new().file("a", noise(900_000, 5)).file("b", noise(900_000, 6)).layer().blob(gzip)
}

async fn begin(service: &Service, path: &std::path::Path, layer: &Layer) -> Apply {
    service.begin(path, &layer.diff_id, "application/vnd.oci.image.layer.v1.tar+gzip").await.unwrap()
}

async fn grows_while_it_is_read(driver: &'static str) {
    let service = Service::start(driver).await;
    let layer = layer();
    let path = service.blob(b"");
    let mut file = std::fs::File::create(&path).unwrap();
    let mut apply = begin(&service, &path, &layer).await;
    let mut written = 0;
    for part in layer.blob.chunks(60_000) {
        file.write_all(part).unwrap();
        written += part.len() as u64;
        apply.say(Message::Available(written)).await;
        // All of it is read before there is more: nothing waits for the end.
        apply.until_consumed(written).await;
    }
    let stat = StatRequest { diff_ids: vec![layer.diff_id.clone()] };
    assert!(service.layers().stat(stat.clone()).await.unwrap().into_inner().diff_ids.is_empty());
    assert_eq!(service.compose(std::slice::from_ref(&layer)).await.unwrap_err().kind, Kind::NotFound);
    apply.say(Message::Finish(ApplyFinish {})).await;
    assert!(!apply.done().await.unwrap().existed);
    assert!(service.layers().stat(stat.clone()).await.unwrap().into_inner().diff_ids.is_empty(), "not durable yet");
    let top = service.compose(std::slice::from_ref(&layer)).await.unwrap().remove(0);
    assert_eq!(service.layers().stat(stat).await.unwrap().into_inner().diff_ids, [layer.diff_id]);
    assert_eq!(Mounted::new(&service.view("v", &top).await.unwrap()).read("b"), noise(900_000, 6));
}

async fn broken_off_leaves_nothing(driver: &'static str) {
    let service = Service::start(driver).await;
    let layer = layer();
    let path = service.blob(&layer.blob);
    // At the start, in the middle, with all bytes but no `finish`.
    for bytes in [0, 300_000, layer.blob.len() as u64] {
        let mut apply = begin(&service, &path, &layer).await;
        apply.say(Message::Available(bytes)).await;
        apply.until_consumed(bytes).await;
        assert_eq!(apply.break_off().await.unwrap_err().kind, Kind::Aborted);
        service.assert_directories(0).await;
    }
    // A caller that is cancelled hears nothing; the next one gets its turn when all of it is gone.
    let mut apply = begin(&service, &path, &layer).await;
    apply.say(Message::Available(300_000)).await;
    apply.until_consumed(300_000).await;
    drop(apply);
    assert!(!service.apply(&layer).await.unwrap().existed);
    service.assert_directories(1).await;
    // More than the file has.
    let short = service.blob(&layer.blob[..1000]);
    let other = Archive::new().file("other", "").layer();
    let apply = begin(&service, &short, &Layer { diff_id: other.diff_id, ..layer }).await;
    apply.say(Message::Available(1_000_000)).await;
    assert!(apply.done().await.unwrap_err().message.contains("shorter"));
    service.assert_directories(1).await;
}

async fn two_calls_share_the_work(driver: &'static str) {
    let service = Service::start(driver).await;
    let layer = layer();
    let path = service.blob(&layer.blob);
    let mut first = begin(&service, &path, &layer).await;
    first.say(Message::Available(1000)).await;
    first.until_consumed(1000).await;
    let second = begin(&service, &path, &layer).await;
    second.say(Message::Available(layer.blob.len() as u64)).await;
    second.say(Message::Finish(ApplyFinish {})).await;
    assert_eq!(service.directories().len(), 1);
    first.say(Message::Finish(ApplyFinish {})).await;
    let (first, second) = (first.done().await.unwrap(), second.done().await.unwrap());
    assert_eq!((first.existed, second.existed, first.size), (false, true, second.size));
    assert!(service.apply(&layer).await.unwrap().existed);
    service.assert_directories(1).await;
}

async fn the_second_takes_over_when_the_first_fails(driver: &'static str) {
    let service = Service::start(driver).await;
    let layer = layer();
    let path = service.blob(&layer.blob);
    let mut first = begin(&service, &path, &layer).await;
    first.say(Message::Available(1000)).await;
    first.until_consumed(1000).await;
    let second = begin(&service, &path, &layer).await;
    second.say(Message::Available(layer.blob.len() as u64)).await;
    let third = begin(&service, &path, &layer).await;
    // One that waits and goes away is not waited for.
    assert_eq!(third.break_off().await.unwrap_err().kind, Kind::Aborted);
    assert_eq!(first.break_off().await.unwrap_err().kind, Kind::Aborted);
    second.say(Message::Finish(ApplyFinish {})).await;
    assert!(!second.done().await.unwrap().existed);
    service.assert_directories(1).await;
}

async fn a_blob_that_is_renamed_is_still_read(driver: &'static str) {
    let service = Service::start(driver).await;
    let layer = layer();
    let path = service.blob(&layer.blob);
    let mut first = begin(&service, &path, &layer).await;
    first.say(Message::Available(1000)).await;
    first.until_consumed(1000).await;
    let second = begin(&service, &path, &layer).await;
    // Both calls have opened it by now, also the one that waits.
    std::fs::rename(&path, path.with_extension("moved")).unwrap();
    first.break_off().await.unwrap_err();
    second.say(Message::Finish(ApplyFinish {})).await;
    second.done().await.unwrap();
}

async fn who_goes_away_is_forgotten_whatever_was_said_before(driver: &'static str) {
    let service = Service::start(driver).await;
    let layer = layer();
    let path = service.blob(&layer.blob);
    let mut first = begin(&service, &path, &layer).await;
    first.say(Message::Available(1000)).await;
    first.until_consumed(1000).await;
    // Of one that waits for its turn everything has come, and it would be laid down when the first fails.
    let other = service.blob(&layer.blob);
    let second = begin(&service, &other, &layer).await;
    second.say(Message::Available(layer.blob.len() as u64)).await;
    second.say(Message::Finish(ApplyFinish {})).await;
    let open = || {
        let files = std::fs::read_dir(format!("/proc/{}/fd", service.pid())).unwrap().flatten();
        files.filter_map(|file| std::fs::read_link(file.path()).ok()).any(|file| file == other)
    };
    assert!(open());
    drop(second);
    let events = nix::sys::inotify::AddWatchFlags::IN_CLOSE_NOWRITE;
    let there = || "the blob of a call whose caller is gone is open".into();
    tokio::task::block_in_place(|| until([&*other], events, || !open(), there));
    assert_eq!(first.break_off().await.unwrap_err().kind, Kind::Aborted);
    service.assert_directories(0).await;
    // One in the middle of its work stops, or what it has made is thrown away: nobody knows of it.
    for _ in 0..5 {
        let apply = begin(&service, &path, &layer).await;
        apply.say(Message::Available(layer.blob.len() as u64)).await;
        apply.say(Message::Finish(ApplyFinish {})).await;
        drop(apply);
        service.forget().await;
        service.until_directories(0);
    }
    service.image(&[layer]).await.unwrap();
}
