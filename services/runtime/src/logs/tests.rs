use std::{fs, io::Write as _, path::Path};

use tokio::sync::oneshot;

use super::*;

fn write(path: &Path, numbers: std::ops::Range<u64>) {
    let mut file = fs::File::options().append(true).create(true).open(path).unwrap();
    for n in numbers {
        let stream = if n % 10 == 9 { "stderr" } else { "stdout" };
        let time = Time(n * 1_000_000_000).rfc3339();
        writeln!(file, r#"{{"log":"{n}\n","stream":"{stream}","time":"{time}"}}"#).unwrap();
    }
}

fn rotate(path: &Path) {
    let aged = |n: usize| path.with_extension(format!("log.{n}"));
    for n in (1..9).rev() {
        let _ = fs::rename(aged(n), aged(n + 1));
    }
    fs::rename(path, aged(1)).unwrap();
}

fn both() -> Query {
    Query { stdout: true, stderr: true, ..Query::default() }
}

async fn collect(mut lines: mpsc::Receiver<Result<(Lines, Time)>>) -> String {
    let mut text = String::new();
    while let Some(lines) = lines.recv().await {
        let (Lines::Stdout(bytes) | Lines::Stderr(bytes), _) = lines.unwrap();
        text.push_str(std::str::from_utf8(&bytes).unwrap());
    }
    text
}

async fn all(path: &Path, query: Query) -> Vec<u64> {
    let text = collect(read(path.into(), query, std::future::ready(()))).await;
    text.lines().map(|line| line.parse().unwrap()).collect()
}

#[tokio::test]
async fn reads_through_rotated_files_from_any_place() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("json.log");
    write(&path, 0..1000);
    rotate(&path);
    write(&path, 1000..2000);
    rotate(&path);
    write(&path, 2000..2500);
    assert_eq!(all(&path, both()).await, (0..2500).collect::<Vec<_>>());
    for n in [1, 499, 500, 501, 1600, 2500, 9999] {
        let tail = Query { tail: Some(n), ..both() };
        assert_eq!(all(&path, tail).await, (2500u64.saturating_sub(n)..2500).collect::<Vec<_>>(), "tail {n}");
    }
    assert!(all(&path, Query { tail: Some(0), ..both() }).await.is_empty());
    let since = Query { since: Some(Time(1_700_000_000_000)), until: Some(Time(1_705_000_000_000)), ..both() };
    assert_eq!(all(&path, since).await, (1700..=1705).collect::<Vec<_>>());
    let errors = Query { stdout: false, tail: Some(20), ..both() };
    assert_eq!(all(&path, errors).await, [2489, 2499]);
}

#[tokio::test]
async fn lines_carry_what_is_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("json.log");
    write(&path, 1..2);
    let query = Query { timestamps: true, details: true, ..both() };
    assert_eq!(collect(read(path, query, std::future::ready(()))).await, "1970-01-01T00:00:01.000000000Z  1\n");
}

#[tokio::test]
async fn following_survives_rotation_and_ends_with_the_container() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("json.log");
    let (end, ended) = oneshot::channel::<()>();
    let ended = async move { drop(ended.await) };
    let mut lines = read(path.clone(), Query { follow: true, ..both() }, ended);
    let mut next = 0;
    for (round, to) in [50u64, 100, 150, 200].into_iter().enumerate() {
        write(&path, next..to);
        while next < to {
            let (Lines::Stdout(bytes) | Lines::Stderr(bytes), _) = lines.recv().await.unwrap().unwrap();
            for line in std::str::from_utf8(&bytes).unwrap().lines() {
                assert_eq!(line, next.to_string());
                next += 1;
            }
        }
        if round % 2 == 0 {
            rotate(&path);
        }
    }
    write(&path, 200..210);
    end.send(()).unwrap();
    let rest: Vec<u64> = collect(lines).await.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(rest, (200..210).collect::<Vec<_>>(), "what was written before the end is read");
}

#[tokio::test]
async fn a_log_that_is_not_there_is_empty() {
    let directory = tempfile::tempdir().unwrap();
    assert!(all(&directory.path().join("json.log"), both()).await.is_empty());
}
