//! The history of a fleet, for benches: what a hundred devices write.

use std::time::{Duration, Instant};

use osiris_ledger::{
    Author, BlobHash, FleetId, Founding, Ledger, Now, Payload, Roles, Session, SigningKey, World, Writer,
    join_proof, op,
};

/// Devices, each with one chain.
pub(crate) const CHAINS: u16 = 100;
/// Blocks that a device writes in a row: the first cites the deepest other head, the rest only their own.
const BURST: usize = 5;

pub(crate) fn key(kind: u8, n: u16) -> SigningKey {
    let mut seed = [kind; 32];
    seed[..2].copy_from_slice(&n.to_le_bytes());
    SigningKey::from_bytes(&seed)
}

pub(crate) fn author(key: &SigningKey) -> Author {
    Author(key.verifying_key().to_bytes())
}

/// A fleet's blocks, in the order in which they were written.
pub(crate) struct History {
    pub(crate) fleet: FleetId,
    pub(crate) entries: Vec<Vec<u8>>,
}

impl History {
    pub(crate) fn write(blocks: usize) -> Self {
        let mut founder = Writer::new(key(1, u16::MAX), Session([9; 16]));
        let admin = key(2, 0);
        let (mut ledger, genesis) = founder
            .found(
                Now::default(),
                Founding {
                    name: "bench".to_owned(),
                    label: "founder".to_owned(),
                    admin: &admin,
                    recovery: author(&key(3, 0)),
                    nonce: Session::ZERO,
                },
            )
            .expect("a valid founding");
        let fleet = ledger.fleet();
        let mut entries = vec![genesis.entry().to_vec()];
        let mut append = |ledger: &mut Ledger, writer: &mut Writer, payload| {
            let block = writer.append(ledger, Now::default(), payload).expect("allowed");
            entries.push(block.entry().to_vec());
            block.id()
        };
        let ticket = key(4, 0);
        let invited = op::Invited {
            key: author(&ticket),
            uses: CHAINS.into(),
            roles: Roles::NODE,
            device: None,
            note: String::new(),
        };
        let invitation = append(&mut ledger, &mut founder, Payload::Invited(invited));
        let deployed = op::Deployed {
            name: "hello".to_owned(),
            component: BlobHash([1; 32]),
            size: 1,
            world: World::Native,
            manifest: BlobHash([1; 32]),
            manifest_size: 1,
            replaces: Vec::new(),
        };
        let revision = append(&mut ledger, &mut founder, Payload::Deployed(deployed));
        let mut writers = Vec::new();
        for n in 1..CHAINS {
            let device = author(&key(1, n));
            let proof = join_proof(&ticket, &fleet, &invitation, &device);
            let label = format!("device-{n}");
            append(
                &mut ledger,
                &mut founder,
                Payload::Admitted(op::Admitted { invitation, device, proof, label }),
            );
            writers.push(Writer::new(key(1, n), Session([7; 16])));
        }
        let count = writers.len();
        let turns = (0..).map(|n| n / BURST % count);
        let left = blocks.saturating_sub(CHAINS.into());
        for (writer, concurrency) in turns.zip(1..).take(left) {
            let serving = Payload::Serving(op::Serving { revision, concurrency });
            append(&mut ledger, &mut writers[writer], serving);
        }
        Self { fleet, entries }
    }

    pub(crate) fn replica(&self, blocks: usize) -> Ledger {
        let mut ledger = Ledger::new(self.fleet);
        // What applying changes costs is measured, however many there are.
        ledger.hold_document(usize::MAX);
        assert!(ledger.replay_all(&self.entries[..blocks]).iter().all(Result::is_ok));
        ledger.publish();
        ledger.document_heads();
        ledger
    }
}

/// Time that something took, on the clock and of all cores together. Where other processes share the machine,
/// only the second says what it costs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Took {
    pub(crate) wall: Duration,
    pub(crate) cpu: Duration,
}

impl Took {
    pub(crate) fn by<T>(work: impl FnOnce() -> T) -> (Self, T) {
        let (start, before) = (Instant::now(), cpu());
        let result = work();
        (Self { wall: start.elapsed(), cpu: cpu() - before }, result)
    }

    /// Of several runs, each time's median.
    pub(crate) fn median(runs: &[Self]) -> Self {
        let middle = |time: fn(&Self) -> Duration| {
            let mut times: Vec<_> = runs.iter().map(time).collect();
            times.sort_unstable();
            times[times.len() / 2]
        };
        Self { wall: middle(|run| run.wall), cpu: middle(|run| run.cpu) }
    }

    /// This beside a floor: seconds on the clock and of the cores, each as a multiple of the floor's.
    pub(crate) fn beside(&self, floor: &Self) -> String {
        let (wall, cpu) = (self.wall.as_secs_f64(), self.cpu.as_secs_f64());
        format!(
            "{wall:.2} s = {:.2} of it, {cpu:.2} s of the cores = {:.2} of its",
            wall / floor.wall.as_secs_f64(),
            cpu / floor.cpu.as_secs_f64()
        )
    }
}

fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).expect("time goes on");
    Duration::from_secs(seconds) + Duration::from_nanos(time.tv_nsec.unsigned_abs())
}

/// As many signatures checked as there are blocks, on all cores, and nothing else.
pub(crate) fn floor(blocks: usize) -> Took {
    use rayon::iter::{IntoParallelIterator as _, ParallelIterator as _};

    let signer = key(1, 1);
    let signature = ed25519_dalek::Signer::sign(&signer, &[5; 32]);
    let public = signer.verifying_key();
    let check = || {
        (0..blocks).into_par_iter().for_each(|_| {
            let message = std::hint::black_box(&[5; 32]);
            public.verify_strict(message, &signature).expect("good");
        });
    };
    Took::by(check).0
}
