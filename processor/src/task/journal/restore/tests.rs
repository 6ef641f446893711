//! A restore that is interrupted anywhere, and before whose rest the journal is cut, ends as one that was not.

use std::path::Path;

use super::super::record::{Piece, fence};
use super::*;
use crate::engine::Input;
use crate::query::QueryFile;

fn query() -> Arc<StreamQuery> {
    let text = "name='q'\n[source]\ntopic='iot'\nschema='ts TIMESTAMP, k STRING'\nevent_time='ts'\nwatermark='5s'\npartition_key='k'\n\
                [query]\nsql=\"SELECT k, count(*) AS n FROM iot GROUP BY window(ts, '10s'), k\"\n";
    Arc::new(StreamQuery::compile(QueryFile::parse(text, Path::new("q.toml")).unwrap()).unwrap())
}

/// Writes a journal as owners do that take over from one another.
struct Owners {
    query: Arc<StreamQuery>,
    engine: Engine,
    journal: Vec<Vec<u8>>,
    epoch: i64,
    /// Where each snapshot begins: the places before which a journal is cut.
    snapshots: Vec<usize>,
}

impl Owners {
    fn take_over(&mut self) {
        self.epoch = i64::try_from(self.journal.len()).unwrap();
        self.journal.push(fence());
    }

    fn write(&mut self, entry: &Entry, epoch: i64) {
        let bytes = codec::encode(&self.query, entry).unwrap();
        let chunks: Vec<&[u8]> = bytes.chunks(bytes.len().div_ceil(3)).collect();
        let pieces = u32::try_from(chunks.len()).unwrap();
        for (piece, bytes) in (0..).zip(chunks) {
            self.journal.push(Piece { snapshot: entry.snapshot, epoch, piece, pieces, bytes }.to_bytes());
        }
    }

    fn step(&mut self, keys: &[&str]) {
        let from = self.engine.partitions()[&0].position.unwrap_or(0);
        let rows: Vec<String> = keys.iter().zip(0..).map(|(key, row)| format!(r#"{{"ts":{},"k":"{key}"}}"#, (from + row) * 700)).collect();
        let decoded = self.query.decoder().decode(rows.iter().map(|row| Some(row.as_bytes()))).unwrap();
        let to = from + i64::try_from(keys.len()).unwrap();
        let input = Input { partition: 0, from, to, received: vec![1_000_000; keys.len()], decoded };
        let entry = self.engine.prepare(vec![input]).unwrap().entry;
        self.write(&entry, self.epoch);
        self.engine.apply(&entry).unwrap();
    }

    fn snapshot(&mut self) {
        self.snapshots.push(self.journal.len());
        let entry = self.engine.snapshot();
        self.write(&entry, self.epoch);
    }
}

fn owners() -> Owners {
    let query = query();
    let engine = Engine::new(Arc::clone(&query), [0]);
    let mut owners = Owners { query, engine, journal: Vec::new(), epoch: 0, snapshots: Vec::new() };
    owners.take_over();
    owners.step(&["a", "b", "a", "c"]);
    owners.step(&["b", "d"]);
    owners.take_over();
    owners.step(&["a", "e", "e"]);
    // Of the first owner, who does not know yet; nobody counts it.
    let stale = owners.engine.snapshot();
    owners.write(&stale, 0);
    owners.snapshot();
    owners.step(&["f", "a", "a", "a", "a", "a", "a", "b"]);
    owners.take_over();
    owners.snapshot();
    owners.step(&["g", "a"]);
    owners.step(&["a"]);
    owners.take_over();
    owners
}

fn begin(query: &Arc<StreamQuery>, first: usize) -> Replay {
    Replay::new(Arc::clone(query), Engine::new(Arc::clone(query), [0]), "journal".into(), i64::try_from(first).unwrap())
}

fn read(replay: &mut Replay, journal: &[Vec<u8>], from: usize, to: usize) {
    for (record, offset) in journal[from..to].iter().zip(from..) {
        replay.record(i64::try_from(offset).unwrap(), record).unwrap();
    }
}

/// What an owner would go on with: the newest entries, and all groups once they are applied.
fn outcome(replay: Replay) -> (Vec<Entry>, Vec<String>) {
    let mut restored = replay.end().unwrap();
    for entry in &restored.newest {
        restored.engine.apply(entry).unwrap();
    }
    let state = restored.engine.snapshot();
    let mut groups: Vec<String> = state.groups.iter().map(|group| format!("{group:?}")).collect();
    groups.sort_unstable();
    let newest = restored.newest.into_iter().map(|newest| Entry { groups: Vec::new(), ..newest });
    (newest.collect(), groups)
}

#[test]
fn a_restore_in_pieces_is_one_in_one_piece() {
    let owners = owners();
    let (journal, end) = (&owners.journal, owners.journal.len());
    let mut straight = begin(&owners.query, 0);
    read(&mut straight, journal, 0, end);
    let want = outcome(straight);
    assert!(want.0.len() == 2 && want.1.len() > 5);
    for first in std::iter::once(0).chain(owners.snapshots.iter().copied()) {
        for stopped in 0..=end {
            let mut replay = begin(&owners.query, 0);
            read(&mut replay, journal, 0, stopped);
            read(&mut replay, journal, stopped.max(first), end);
            assert_eq!(outcome(replay), want, "stopped at {stopped}, then the journal was cut before {first}");
        }
    }
}

#[test]
fn what_goes_on_after_a_gap_without_a_snapshot_is_damage() {
    let owners = owners();
    let mut replay = begin(&owners.query, 0);
    read(&mut replay, &owners.journal, 0, 2);
    let error = replay.record(4, &owners.journal[4]).unwrap_err().to_string();
    assert!(error.contains("its beginning is missing"), "{error}");
}

#[test]
fn another_journal_at_the_same_place_begins_anew() {
    let owners = owners();
    let mut replay = begin(&owners.query, 0);
    read(&mut replay, &owners.journal, 0, owners.journal.len());
    // The topic was made anew.
    replay.record(0, &fence()).unwrap();
    let restored = replay.end().unwrap();
    assert_eq!((restored.engine.state_rows(), restored.newest.len(), restored.bytes), (0, 0, 0));
}

#[test]
fn a_standby_may_have_read_the_fence_of_its_successor() {
    let owners = owners();
    let epoch = owners.epoch;
    let mut replay = begin(&owners.query, 0);
    read(&mut replay, &owners.journal, 0, owners.journal.len() - 1);
    assert!(replay.leads_to(epoch), "the fence comes next");
    read(&mut replay, &owners.journal, owners.journal.len() - 1, owners.journal.len());
    assert!(replay.leads_to(epoch), "the fence was the last record");
    assert!(!replay.leads_to(epoch - 1), "another owner's place");
    replay.record(epoch + 1, &fence()).unwrap();
    assert!(!replay.leads_to(epoch), "somebody has taken over");
    // A journal that begins behind the fence: its owner has cut it.
    assert!(!begin(&owners.query, owners.journal.len()).leads_to(epoch));
}
