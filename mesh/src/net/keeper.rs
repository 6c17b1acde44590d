//! Keeps links: dials whom this node wants one to, for ever, with pauses.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use iroh::Watcher;
use n0_future::StreamExt;

use super::{link, shared::Shared};
use crate::{
    PeerId,
    limits::{DIALS_MAX, KEEPER_IDLE},
    proto::membership::neighbours,
};

pub(super) async fn keep(shared: Arc<Shared>) {
    loop {
        let members: BTreeSet<PeerId> = shared.roster.members().into_iter().collect();
        let kept = shared.roster.kept().into_iter().filter(|peer| *peer != shared.me);
        let choose = |is_gone: &dyn Fn(&PeerId) -> bool| {
            let mut chosen = neighbours(&shared.me, members.iter(), is_gone);
            chosen.extend(kept);
            chosen
        };
        let (due, next_ms) = shared.due_dials(choose, DIALS_MAX);
        for dial in due {
            tokio::spawn(link::dial(Arc::clone(&shared), dial));
        }
        let pause = next_ms.map_or(KEEPER_IDLE, |next_ms| {
            let millis = (next_ms - shared.now_ms()).max(1);
            Duration::from_millis(millis.unsigned_abs()).min(KEEPER_IDLE)
        });
        tokio::select! {
            () = shared.wake.notified() => {}
            () = tokio::time::sleep(pause) => {}
            () = shared.stop.cancelled() => return,
        }
    }
}

/// Tells every link when this node's own addresses change.
pub(super) async fn watch_own_addrs(shared: Arc<Shared>) {
    let mut changes = shared.endpoint.watch_addr().stream();
    loop {
        tokio::select! {
            change = changes.next() => {
                if change.is_none() {
                    return;
                }
                shared.addresses_changed.send_replace(());
            }
            () = shared.stop.cancelled() => return,
        }
    }
}
