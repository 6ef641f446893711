//! Runs of panes that windows of many panes are merged from.
//!
//! A window of 60 panes that moves on by one of them is 60 merges for each of its rows. Panes of 8 at a time, counted from a fixed beginning, make
//! it some 14: those before its first whole block, its whole blocks, and those after them. For windows that move by panes this is what
//! *panes* themselves are for rows (Li et al., "No pane, no gain", SIGMOD Record 2005), once more.

use std::ops::Range;

use crate::query::WindowSpec;

/// Windows of fewer panes are merged pane by pane.
const FEWEST: i64 = 8;

/// How the panes of a window's grid are put together.
#[derive(Debug)]
pub(super) struct BlockSpec<'a> {
    window: &'a WindowSpec,
    /// In steps of the window's grid.
    length: i64,
}

impl<'a> BlockSpec<'a> {
    /// `None` for windows of few panes. About as many panes in a block as there are blocks in a window make the fewest merges.
    pub(super) fn of(window: &'a WindowSpec) -> Option<Self> {
        let panes = window.size / window.pane_size();
        let mut in_block = 1;
        // The power of two that is nearest to the root, as a ratio.
        while 2 * in_block * in_block < panes {
            in_block *= 2;
        }
        (panes >= FEWEST).then_some(Self { window, length: in_block * window.pane_size() })
    }

    /// The step at which something begins, counted from the beginning of block 0.
    fn step(&self, start: i64) -> i64 {
        self.window.grid.step(start).saturating_sub(self.window.start)
    }

    /// The block of the pane that starts at `start`.
    pub(super) fn number(&self, start: i64) -> i64 {
        self.step(start).div_euclid(self.length)
    }

    /// The blocks that lie in a window as a whole.
    pub(super) fn within(&self, start: i64, end: i64) -> Range<i64> {
        let first = -(-self.step(start)).div_euclid(self.length);
        first..self.step(end).div_euclid(self.length).max(first)
    }

    /// Whether some window over the whole block starts before `since`, which is the start of a window.
    pub(super) fn is_late(&self, number: i64, since: i64) -> bool {
        let end = number.saturating_add(1).saturating_mul(self.length);
        self.step(since) >= end.saturating_sub(self.window.size).saturating_add(self.window.slide)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn blocks_are_as_many_as_their_panes_or_nearly() {
        let in_block = |size: i64, slide: i64| {
            let window = WindowSpec { slide, ..WindowSpec::tumbling(size) };
            BlockSpec::of(&window).map(|spec| spec.length / window.pane_size())
        };
        assert_eq!([7, 8, 12, 60, 300, 3_600].map(|size| in_block(size, 1)), [None, Some(2), Some(4), Some(8), Some(16), Some(64)]);
        assert_eq!(in_block(600, 250), Some(4), "12 panes of 50");
    }

    proptest! {
        /// For each block in a window: all its panes are in the window, and a row counts for every window over it unless it is late for one.
        #[test]
        fn a_block_within_a_window_has_no_pane_outside_of_it(
            (size, slide) in prop_oneof![Just((60, 1)), Just((12, 1)), Just((60, 7)), Just((600, 250)), Just((64, 4))],
            offset in 0i64..50, window in -40i64..40, pane in -100i64..100, watermark in -300i64..400,
        ) {
            let spec = WindowSpec { slide, start: offset % slide, ..WindowSpec::tumbling(size) };
            let blocks = BlockSpec::of(&spec).unwrap();
            let start = spec.start + window * slide;
            let within = blocks.within(start, spec.end(start));
            let step = spec.pane_size();
            let panes: BTreeSet<i64> = (start / step * step - 2 * size..start + 3 * size).step_by(1)
                .map(|time| time - (time - spec.start).rem_euclid(step)).collect();
            for pane in panes {
                let is_in = start <= pane && pane < start + size;
                prop_assert!(is_in || !within.contains(&blocks.number(pane)), "pane {pane} of {start}");
            }
            if let Some(pane) = spec.pane(pane, watermark) {
                let number = blocks.number(pane.start);
                let over: Vec<i64> = (-300..300).map(|window| spec.start + window * slide)
                    .filter(|start| blocks.within(*start, spec.end(*start)).contains(&number)).collect();
                prop_assert_eq!(blocks.is_late(number, pane.since), over.iter().any(|start| *start < pane.since), "{:?} of {:?}", pane, over);
            }
        }
    }
}
