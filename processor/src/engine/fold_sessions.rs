//! Rows into sessions: which session each row belongs to, and the new states of the sessions that rows touch.
//!
//! A row extends the open session that it meets, begins one, or makes one of several. The decision is made row by row against the watermark
//! that the row met, so it does not depend on batches; and states are merged and folded in the order in which that happened, so floats do
//! not either.
//!
//! ```text
//! gap 10:   rows at 0, 25, 12      0 ▸ A [0 10]    25 ▸ B [25 35]    12 ▸ meets neither: C [12 22]
//!           then 18                18 meets C only: C [12 28], which now meets B: one session [12 35] of C's and B's states, and 18
//! ```

use arrow::array::{ArrayRef, UInt32Array};
use datafusion_common::Result;
use hashbrown::HashMap;

use super::Partition;
use super::clock::Clock;
use super::entry::{LineKey, LineNumber, SessionState};
use super::judge::Used;
use super::sessions::{Held, Session};
use crate::query::{Grouping, RowBytes, StreamQuery};

/// A session as it was for a while: until a row made one of it and others.
struct Node<'a> {
    session: Session,
    /// What it was made of.
    before: Before<'a>,
    /// The rows that were folded onto that, as places among the used rows.
    rows: Vec<u32>,
    /// How many unions lie below.
    level: usize,
}

enum Before<'a> {
    Nothing,
    State(&'a RowBytes),
    /// In order of their starts.
    Union(Vec<usize>),
}

/// The sessions of one key.
struct KeyNodes {
    line: LineNumber,
    key: RowBytes,
    /// Those that stand, by start.
    standing: Vec<usize>,
}

struct Graph<'a> {
    gap: i64,
    nodes: Vec<Node<'a>>,
    keys: Vec<KeyNodes>,
    by_key: HashMap<(LineNumber, RowBytes), usize>,
}

/// Folds the rows onto the sessions of `partition`. Gives all sessions of every key that a row touched.
pub(crate) fn fold_sessions(
    query: &StreamQuery,
    grouping: &Grouping,
    gap: i64,
    (number, partition): (i32, &Partition),
    used: &Used,
    clock: &Clock,
) -> Result<Vec<SessionState>> {
    if used.rows.is_empty() {
        return Ok(Vec::new());
    }
    let keys = grouping.group_keys.rows(&used.keys)?;
    let mut graph = Graph { gap, nodes: Vec::new(), keys: Vec::new(), by_key: HashMap::new() };
    for (place, row) in (0u32..).zip(used.rows.values()) {
        let line = clock.line(*row);
        let held = |key: &[u8]| clock.line_state(partition, line).map_or(&[][..], |line| line.sessions.get(key));
        let key = graph.key(line, keys.row(place as usize), held);
        graph.add(key, place, clock.times[*row as usize], clock.window_watermark(query, *row as usize));
    }
    let states = graph.fold(grouping, used)?;
    Ok(graph.sessions(number, &states))
}

impl<'a> Graph<'a> {
    fn key(&mut self, line: LineNumber, key: &[u8], held: impl FnOnce(&[u8]) -> &'a [Held]) -> usize {
        if let Some(found) = self.by_key.get(&LineKey(line, key)) {
            return *found;
        }
        let first = self.nodes.len();
        self.nodes.extend(held(key).iter().map(|held| Node {
            session: held.session,
            before: Before::State(&held.state),
            rows: Vec::new(),
            level: 0,
        }));
        let number = self.keys.len();
        self.keys.push(KeyNodes { line, key: key.into(), standing: (first..self.nodes.len()).collect() });
        self.by_key.insert((line, key.into()), number);
        number
    }

    /// Puts a row at `time`, which met `watermark`, into the sessions of a key.
    fn add(&mut self, key: usize, place: u32, time: i64, watermark: i64) {
        let mut session = Session { start: time, end: time.saturating_add(self.gap), from: time.max(watermark.saturating_add(1)) };
        let is_open = |session: &Session| session.end > watermark;
        let mut met: Vec<usize> = Vec::new();
        // A session that has grown may meet others: until it meets no more.
        loop {
            let next = self.keys[key].standing.iter().copied().find(|node| {
                let other = &self.nodes[*node].session;
                is_open(other) && !met.contains(node) && session.meets(other)
            });
            let Some(next) = next else { break };
            session = session.union(&self.nodes[next].session);
            met.push(next);
        }
        met.sort_by_key(|node| self.nodes[*node].session.start);
        let node = match met.as_slice() {
            [only] => {
                self.nodes[*only].session = session;
                self.nodes[*only].rows.push(place);
                *only
            }
            _ => {
                let level = met.iter().map(|node| self.nodes[*node].level + 1).max().unwrap_or(0);
                let before = if met.is_empty() { Before::Nothing } else { Before::Union(met.clone()) };
                self.nodes.push(Node { session, before, rows: vec![place], level });
                self.nodes.len() - 1
            }
        };
        let standing = &mut self.keys[key].standing;
        standing.retain(|other| !met.contains(other));
        standing.push(node);
        let nodes = &self.nodes;
        standing.sort_by_key(|node| nodes[*node].session);
    }

    /// The state of every node that has rows, level by level: what a node was made of comes first.
    fn fold(&self, grouping: &Grouping, used: &Used) -> Result<Vec<Option<RowBytes>>> {
        let mut states: Vec<Option<RowBytes>> = vec![None; self.nodes.len()];
        let levels = self.nodes.iter().map(|node| node.level).max().unwrap_or(0);
        for level in 0..=levels {
            let mut members: Vec<usize> =
                (0..self.nodes.len()).filter(|node| self.nodes[*node].level == level && !self.nodes[*node].rows.is_empty()).collect();
            // Accumulators take all groups of a call as seen in it: those with a state come first, and are merged alone.
            members.sort_by_key(|node| matches!(self.nodes[*node].before, Before::Nothing));
            // Some accumulators have no states to show for no groups.
            if members.is_empty() {
                continue;
            }
            let folded = self.fold_level(grouping, used, &members, &states)?;
            for (node, state) in members.into_iter().zip(folded) {
                states[node] = Some(state);
            }
        }
        Ok(states)
    }

    fn fold_level(&self, grouping: &Grouping, used: &Used, members: &[usize], states: &[Option<RowBytes>]) -> Result<Vec<RowBytes>> {
        let mut fold = grouping.aggregates.fold()?;
        let (mut ids, mut old): (Vec<usize>, Vec<&RowBytes>) = (Vec::new(), Vec::new());
        for (id, node) in members.iter().enumerate() {
            let parts: Vec<&RowBytes> = match &self.nodes[*node].before {
                Before::Nothing => Vec::new(),
                Before::State(state) => vec![state],
                Before::Union(parts) => parts.iter().filter_map(|part| self.state(*part, states)).collect(),
            };
            ids.extend(parts.iter().map(|_| id));
            old.extend(parts);
        }
        if !ids.is_empty() {
            let columns: Vec<ArrayRef> = grouping.state_rows.columns(old.iter().map(|state| &***state))?;
            fold.merge(&columns, &ids, ids.last().map_or(0, |last| last + 1))?;
        }
        // In log order, whichever session a row is in.
        let mut rows: Vec<(u32, usize)> =
            members.iter().enumerate().flat_map(|(id, node)| self.nodes[*node].rows.iter().map(move |row| (*row, id))).collect();
        rows.sort_unstable();
        let ids: Vec<usize> = rows.iter().map(|(_, id)| *id).collect();
        if rows.len() == used.rows.len() {
            fold.update(&used.arguments, &ids, members.len())?;
        } else {
            let taken = UInt32Array::from_iter_values(rows.iter().map(|(row, _)| *row));
            fold.update(&used.arguments.take(&taken)?, &ids, members.len())?;
        }
        let states = grouping.state_rows.rows(&fold.states()?)?;
        Ok((0..members.len()).map(|id| states.row(id).into()).collect())
    }

    /// The state of a node that lies below the one that asks.
    fn state<'s>(&'s self, node: usize, states: &'s [Option<RowBytes>]) -> Option<&'s RowBytes> {
        states[node].as_ref().or(match &self.nodes[node].before {
            Before::State(state) => Some(state),
            Before::Nothing | Before::Union(_) => None,
        })
    }

    fn sessions(&self, partition: i32, states: &[Option<RowBytes>]) -> Vec<SessionState> {
        let mut all = Vec::new();
        for KeyNodes { line, key, standing } in &self.keys {
            for node in standing {
                let Some(state) = self.state(*node, states) else { continue };
                let session = self.nodes[*node].session;
                all.push(SessionState { partition, line: *line, key: key.clone(), session, state: state.clone() });
            }
        }
        all
    }
}
