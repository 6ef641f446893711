//! What the engine waits for: the next window that will close.

use super::Engine;
use super::line::Line;
use crate::query::{Grouping, Window};

/// An open window that closes before all others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NextClose {
    /// Its end, epoch milliseconds.
    pub(crate) end: i64,
    /// When each device has a time of its own: the partition, the device as result rows show it, and its watermark.
    pub(crate) device: Option<(i32, String, Option<i64>)>,
}

impl Engine {
    /// The open window that closes first; `None` without windows or without groups. Costs as much as there are panes, sessions or devices.
    pub(crate) fn next_close(&self) -> Option<NextClose> {
        let grouping = self.query.groups.as_ref().filter(|_| !self.query.is_complete())?;
        if let Some(timeline) = &self.query.timeline {
            let mut next: Option<(i64, i32, &crate::query::RowBytes, Option<i64>)> = None;
            for (number, partition) in &self.partitions {
                for (device, line) in &partition.lines {
                    let watermark = timeline.time(line.time, partition.time).watermark(self.delay());
                    let open = first_end(grouping, line, watermark);
                    next = next.into_iter().chain(open.map(|end| (end, *number, device, watermark))).min();
                }
            }
            return next.map(|(end, number, device, watermark)| {
                let shown = timeline.rows.columns(std::iter::once(&**device)).ok();
                let name = shown.map(|columns| {
                    let mut text = Vec::new();
                    crate::format::encode::key_text(&columns, 0, &mut text);
                    String::from_utf8_lossy(&text).into_owned()
                });
                NextClose { end, device: Some((number, name.unwrap_or_default(), watermark)) }
            });
        }
        let horizon = self.horizon();
        let first = self.partitions.values().filter_map(|partition| first_end(grouping, &partition.shared, horizon));
        let over = self.query.second.as_ref().and_then(|second| first_end(&second.grouping, &self.second, horizon));
        first.chain(over).min().map(|end| NextClose { end, device: None })
    }
}

/// The first end of a window of the timeline after `horizon`.
fn first_end(grouping: &Grouping, line: &Line, horizon: Option<i64>) -> Option<i64> {
    let horizon = horizon.unwrap_or(i64::MIN);
    let Some(Window::Panes(window)) = &grouping.window else {
        return line.open_ends(grouping).filter(|end| *end > horizon).min();
    };
    let mut next: Option<i64> = None;
    for (pane, _) in line.panes.panes(i64::MIN..i64::MAX) {
        // A window has no pane that starts after its end.
        if next.is_some_and(|next| pane.start >= next) {
            break;
        }
        let open = window.windows(pane).map(|start| window.end(start)).find(|end| *end > horizon);
        next = next.into_iter().chain(open).min();
    }
    next
}
