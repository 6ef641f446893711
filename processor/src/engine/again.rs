//! The newest entries of a journal, whose results may not have arrived, are given again.
//!
//! Not simply one after the other: when all had arrived, a reader that takes the rows as they come would see a group as it was one entry before,
//! and a window that is closed open again. So a row is left out when a later one of these entries has it, too. What is left of an older entry is
//! the last that was said of its groups: HAVING may have taken them out since.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use super::output::Identity;
use super::{Engine, EngineError, Entry, Output};

impl Engine {
    /// Puts entries into the state whose results were given before, and gives these results again, part by part and each with its revision.
    ///
    /// # Errors
    /// As [`Engine::apply`], and those of `take`.
    pub(crate) fn give_again<E: From<EngineError>>(
        &mut self,
        mut newest: VecDeque<Entry>,
        mut take: impl FnMut(&Output, i64) -> Result<(), E>,
    ) -> Result<(), E> {
        let query = Arc::clone(&self.query);
        let (mut older, mut newer): (Vec<(Output, i64)>, HashSet<Identity>) = (Vec::new(), HashSet::new());
        while let Some(entry) = newest.pop_front() {
            // What any of them has shown may have arrived, and may have to be taken out.
            self.show_whole()?;
            if query.is_complete() && !newest.is_empty() {
                // The next whole result stands for this one.
                self.absorb_quietly(&entry)?;
                continue;
            }
            let moved = self.absorb(&entry)?;
            let revision = self.revision();
            // In append mode a row belongs to one entry.
            let waits = !newest.is_empty() && !query.is_append();
            self.give_each(&entry, moved, |part| {
                if waits {
                    older.push((part.clone(), revision));
                    return Ok(());
                }
                if let Some(top) = query.top().filter(|_| !older.is_empty()) {
                    newer.extend(part.identities(top).map_err(|cause| EngineError::of(&query, cause))?);
                }
                take(part, revision)
            })?;
            self.evict(&entry, moved);
        }
        let Some(top) = query.top() else { return Ok(()) };
        for (part, revision) in older {
            let part = part.without(top, &newer).map_err(|cause| self.fault(cause))?;
            take(&part, revision)?;
        }
        Ok(())
    }
}
