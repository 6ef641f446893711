//! One input partition: how far it has been read, its time, its counts, its states.

use hashbrown::HashMap;

use super::entry::{LineNumber, LineTime};
use super::line::Line;
use super::{Ledger, PartitionTime};
use crate::query::{Grouping, RowBytes};

#[derive(Debug, Default)]
pub(crate) struct Partition {
    /// The next offset to read; `None` before the first entry.
    pub(crate) position: Option<i64>,
    pub(crate) time: PartitionTime,
    pub(crate) ledger: Ledger,
    /// The states, unless each device has its own.
    pub(crate) shared: Line,
    /// By device.
    pub(crate) lines: HashMap<RowBytes, Line>,
    /// Of `lines`: rows and bytes, kept up to date by those who change them.
    device_rows: u64,
    device_bytes: u64,
}

impl Partition {
    pub(crate) fn rows(&self) -> u64 {
        self.shared.rows() + self.device_rows
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.shared.bytes() + self.device_bytes
    }

    pub(crate) fn line(&self, line: LineNumber, lines: &[LineTime]) -> Option<&Line> {
        match line {
            None => Some(&self.shared),
            Some(number) => self.lines.get(&lines.get(number as usize)?.device),
        }
    }

    /// Changes a timeline; a device's begins with its first change.
    pub(crate) fn change(&mut self, device: Option<&RowBytes>, change: impl FnOnce(&mut Line)) {
        let Some(device) = device else { return change(&mut self.shared) };
        let line = match self.lines.get_mut(device) {
            Some(line) => {
                self.device_rows -= line.rows();
                self.device_bytes -= Line::device_bytes(device, line);
                line
            }
            None => self.lines.entry(device.clone()).or_default(),
        };
        change(line);
        self.device_rows += line.rows();
        self.device_bytes += Line::device_bytes(device, line);
    }

    /// Drops a device's timeline.
    pub(crate) fn forget(&mut self, device: &RowBytes) {
        if let Some(line) = self.lines.remove(device) {
            self.device_rows -= line.rows();
            self.device_bytes -= Line::device_bytes(device, &line);
        }
    }

    /// Lets the wall clock's decision move the time of each device: to the end of its own newest window that ends at or before `floor`, so
    /// that what a device has still to deliver stays welcome.
    pub(crate) fn move_floors(&mut self, grouping: Option<&Grouping>, floor: i64) {
        let Some(grouping) = grouping else { return };
        for line in self.lines.values_mut() {
            let newest = line.open_ends(grouping).filter(|end| *end <= floor).max();
            line.time.floor = line.time.floor.max(newest);
        }
    }

    /// The states begin anew, as a snapshot gives them.
    pub(crate) fn clear(&mut self) {
        *self = Self { position: self.position, time: self.time, ledger: self.ledger, ..Self::default() };
    }
}
