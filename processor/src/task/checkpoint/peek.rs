//! A look at what wrote a checkpoint, before anything of it is touched.

use std::path::Path;

use super::super::journal::Peeked;
use super::journal::{ENTRY, SNAPSHOT, name};
use super::{CheckpointDir, open_frame};
use crate::engine::codec;
use crate::query::StreamQuery;

/// What the versions say; `None` when there are none that can be read. Damage is the restore's matter.
pub(crate) fn peek(dir: &CheckpointDir, query: &StreamQuery) -> Option<Peeked> {
    let mut numbers: Vec<(i64, u8)> = Vec::new();
    for entry in std::fs::read_dir(dir.path().join("versions")).ok()?.filter_map(Result::ok) {
        let name = entry.file_name();
        let path = Path::new(&name);
        let kind = match path.extension().and_then(|ending| ending.to_str()) {
            Some("entry") => ENTRY,
            Some("snapshot") => SNAPSHOT,
            _ => continue,
        };
        numbers.extend(path.file_stem().and_then(|stem| stem.to_str()?.parse().ok()).map(|number: i64| (number, kind)));
    }
    numbers.sort_unstable();
    let mut peeked: Option<Peeked> = None;
    for (number, kind) in numbers {
        let Ok(file) = std::fs::read(dir.path().join(name(kind, number))) else { continue };
        let Some(told) = open_frame(kind, number, &file).ok().and_then(|bytes| codec::told(query, bytes).ok()) else { continue };
        let known = peeked.get_or_insert_with(|| Peeked { fits: true, ..Peeked::default() });
        known.fits &= told.fits;
        known.description = told.query.or(known.description.take());
    }
    peeked
}
