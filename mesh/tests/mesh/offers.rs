use std::path::Path;

use osiris_mesh::Artifact;

use crate::support::{Node, id};

fn artifact(dir: &Path, name: &str, bytes: &[u8]) -> Artifact {
    let file = dir.join(name);
    std::fs::write(&file, bytes).expect("a writable directory");
    Artifact { hash: *blake3::hash(bytes).as_bytes(), file }
}

/// Two nodes with a link; the second takes artifacts, into the folder.
async fn pair() -> (Node, Node, tempfile::TempDir) {
    let (a, b) = crate::support::pair().await;
    let dir = tempfile::tempdir().expect("a directory");
    *b.services.taking.lock().expect("not poisoned") = Some(dir.path().to_owned());
    (a, b, dir)
}

#[tokio::test]
async fn a_member_has_all_that_was_offered_and_takes_it_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let artifacts = [artifact(dir.path(), "a", &[7; 900_000]), artifact(dir.path(), "b", b"manifest")];
    let (a, b, kept) = pair().await;
    a.mesh.offer(id(2), &artifacts).await.expect("taken");
    for artifact in &artifacts {
        let held = b.services.files.lock().expect("not poisoned").get(&artifact.hash).cloned();
        let held = std::fs::read(held.expect("kept")).expect("readable");
        assert_eq!(*blake3::hash(&held).as_bytes(), artifact.hash);
    }
    // More than one connection takes.
    let many: Vec<_> = (0..150_u8).map(|n| artifact(dir.path(), &format!("many-{n}"), &[n; 9])).collect();
    a.mesh.offer(id(2), &many).await.expect("taken");
    let files = b.services.files.lock().expect("not poisoned").clone();
    assert!(many.iter().all(|artifact| files.contains_key(&artifact.hash)));
    *b.services.taking.lock().expect("not poisoned") = None;
    a.mesh.offer(id(2), &artifacts).await.expect("it has them");
    assert_eq!(std::fs::read_dir(kept.path()).expect("a directory").count(), 152);
}

#[tokio::test]
async fn nothing_is_taken_that_is_not_what_was_said_or_from_whom_it_may_not_come() {
    let dir = tempfile::tempdir().expect("a directory");
    let (a, b, kept) = pair().await;
    let mut other = artifact(dir.path(), "a", b"one thing");
    other.hash = *blake3::hash(b"another").as_bytes();
    let large = artifact(dir.path(), "b", &[0; (1 << 20) + 1]);
    let gone = Artifact { hash: [1; 32], file: dir.path().join("none") };
    for refused in [other, large, gone] {
        a.mesh.offer(id(2), &[refused]).await.expect_err("refused");
    }
    let fine = [artifact(dir.path(), "c", b"fine")];
    b.mesh.offer(id(1), &fine).await.expect_err("that one takes nothing");
    b.mesh.offer(id(9), &fine).await.expect_err("nobody is there");
    // A stranger's connection is closed before it can say anything.
    let stranger = Node::start(9, &[2, 9], &[b.addr()]).await;
    stranger.mesh.offer(id(2), &fine).await.expect_err("a stranger");
    assert_eq!(std::fs::read_dir(kept.path()).expect("a directory").count(), 0, "nothing stays behind");
    a.mesh.offer(id(2), &fine).await.expect("taken");
}
