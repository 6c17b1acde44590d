use std::path::{Path, PathBuf};

use osiris_mesh::FetchError;

use crate::support::{Node, id, pair};

fn offer(node: &Node, dir: &Path, name: &str, bytes: &[u8]) -> ([u8; 32], PathBuf) {
    let (hash, path) = (*blake3::hash(bytes).as_bytes(), dir.join(name));
    std::fs::write(&path, bytes).expect("a writable directory");
    let mut files = node.services.files.lock().expect("not poisoned");
    files.insert(hash, path.clone());
    (hash, path)
}

#[tokio::test]
async fn an_artifact_arrives_whole_and_verified() {
    let dir = tempfile::tempdir().expect("a directory");
    let (a, b) = pair().await;
    for len in [0_usize, 1, 3_000_000] {
        let bytes: Vec<u8> = (0..len).map(|n| (n % 253) as u8).collect();
        let (hash, _) = offer(&b, dir.path(), "offered", &bytes);
        let to = dir.path().join("fetched");
        let size = a.mesh.fetch(id(2), hash, &to, 3_000_000).await.expect("fetched");
        assert_eq!(size, len as u64);
        assert!(std::fs::read(&to).expect("kept") == bytes);
    }
}

#[tokio::test]
async fn what_is_not_the_artifact_leaves_no_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let (a, b) = pair().await;
    let to = dir.path().join("fetched");
    let (hash, path) = offer(&b, dir.path(), "offered", &[1; 100_000]);

    let absent = a.mesh.fetch(id(2), [0; 32], &to, 1 << 20).await;
    assert!(matches!(absent, Err(FetchError::Absent { .. })), "{absent:?}");

    let large = a.mesh.fetch(id(2), hash, &to, 99_999).await;
    assert!(matches!(large, Err(FetchError::TooLarge { size: 100_000, .. })), "{large:?}");

    std::fs::write(&path, [2; 100_000]).expect("a writable directory");
    let wrong = a.mesh.fetch(id(2), hash, &to, 1 << 20).await;
    assert!(matches!(wrong, Err(FetchError::WrongHash { .. })), "{wrong:?}");

    std::fs::remove_file(&path).expect("a writable directory");
    let gone = a.mesh.fetch(id(2), hash, &to, 1 << 20).await;
    assert!(matches!(gone, Err(FetchError::Absent { .. })), "{gone:?}");

    let nobody = a.mesh.fetch(id(9), hash, &to, 1 << 20).await;
    assert!(matches!(nobody, Err(FetchError::NotConnected { .. })), "{nobody:?}");
    assert!(!to.exists());
}
