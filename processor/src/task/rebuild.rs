//! Whether a query may start on its old state; and the start anew, when it is asked for.

use std::sync::Arc;

use common::{Settings, Shutdown, topics};

use super::change::{Journals, Verdict, journals};
use super::checkpoint::{self, CheckpointDir};
use super::error::ProcessorError;
use super::journal::{Journal, Log as _, Writer};
use super::owner::Owner;
use super::revisions::REBUILT;
use super::scan::{PartitionReader, fault};
use crate::engine::Entry;
use crate::query::StreamQuery;

/// Compares the query with its journal, and says in the log what has changed. With `processor.rebuild` naming the query, a state that does
/// not fit is begun anew.
///
/// # Errors
/// When the query does not fit its state.
pub(crate) async fn admit(settings: &Arc<Settings>, query: &Arc<StreamQuery>, input: u32, stop: &Shutdown) -> Result<(), ProcessorError> {
    let (settings, query) = (Arc::clone(settings), Arc::clone(query));
    let owner = Owner::onlooker(stop.clone(), tokio::runtime::Handle::current());
    let blocking = tokio::task::spawn_blocking(move || admit_here(&settings, &query, input, &owner));
    blocking.await.map_err(|error| ProcessorError::Task(format!("the look into the journal ended by a fault of the program: {error}")))?
}

fn admit_here(settings: &Settings, query: &StreamQuery, input: u32, owner: &Owner) -> Result<(), ProcessorError> {
    let name = &query.file.name;
    // Set once a run: a later number would be that of another run.
    query.input_partitions.get_or_init(|| input);
    let journals = journals(settings, query, owner)?;
    let verdict = Verdict::of(query, &journals, Some(input));
    let asked = settings.processor.rebuild.contains(name);
    if asked && query.merges() > 0 {
        return Err(ProcessorError::Task(format!(
            "--rebuild {name}: the state of a query with query.repartition cannot be begun anew in its place; give the query another name"
        )));
    }
    match verdict {
        Verdict::Rebuild(_) if asked => {
            let changes = verdict.changes().iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
            tracing::warn!("query '{name}' begins its state anew: {changes}");
            return rebuild(settings, query, &journals, owner);
        }
        Verdict::Rebuild(_) | Verdict::Refused(_) => return Err(ProcessorError::Task(verdict.sentence(name))),
        Verdict::New | Verdict::Same => {}
        Verdict::Compatible(_) => tracing::warn!("{}", verdict.sentence(name)),
    }
    if asked && has_lost_rows(settings, query, &journals, owner)? {
        return rebuild(settings, query, &journals, owner);
    }
    if asked {
        tracing::info!(query = name, "nothing to rebuild: the query fits its state");
    }
    Ok(())
}

/// Compares the query with the checkpoint directory that it names, and says in the log what has changed.
///
/// # Errors
/// When the query does not fit what is there.
pub(crate) fn admit_directory(query: &StreamQuery) -> Result<(), ProcessorError> {
    let Some(path) = &query.file.query.checkpoint else { return Ok(()) };
    let peeked = checkpoint::peek(&CheckpointDir::at(path), query);
    let verdict = Verdict::of(query, &Journals { by_partition: [(0, peeked)].into(), merges: 0 }, None);
    match verdict {
        Verdict::Rebuild(_) | Verdict::Refused(_) => {
            let changes = verdict.changes().iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
            Err(ProcessorError::Task(format!(
                "query '{}' does not fit the state in its checkpoint directory {}: {changes}; put the old query file back, or give the \
                 changed query another checkpoint directory",
                query.file.name,
                path.display()
            )))
        }
        Verdict::Compatible(_) => {
            tracing::warn!("{}", verdict.sentence(&query.file.name));
            Ok(())
        }
        Verdict::New | Verdict::Same => Ok(()),
    }
}

/// Whether the log no longer has the offset at which the query stopped.
fn has_lost_rows(settings: &Settings, query: &StreamQuery, journals: &Journals, owner: &Owner) -> Result<bool, ProcessorError> {
    for progress in journals.progress() {
        let reader = PartitionReader::open(settings, &query.file.source.topic, progress.partition, owner).map_err(fault)?;
        if reader.first() > progress.to {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Begins the state anew: every journal partition gets an owner of its own for the moment, and an empty state with a larger base.
fn rebuild(settings: &Settings, query: &StreamQuery, journals: &Journals, owner: &Owner) -> Result<(), ProcessorError> {
    let base = journals.base() + REBUILT;
    let topic = topics::journal(&query.file.name);
    for partition in journals.by_partition.keys() {
        let mut journal =
            Writer::create(settings).and_then(|writer| Journal::take_over(settings, writer, (&topic, *partition), owner)).map_err(fault)?;
        let nothing = Entry { snapshot: true, base, ..Entry::default() };
        journal.snapshot(query, &nothing, owner).map_err(fault)?;
        journal.end();
    }
    for partition in super::scan::partitions(settings, &query.file.source.topic)? {
        let reader = PartitionReader::open(settings, &query.file.source.topic, partition, owner).map_err(fault)?;
        let lost = reader.first() > 0;
        tracing::warn!(
            query = query.file.name,
            partition,
            from = reader.first(),
            lost,
            "begins anew from this offset; windows that the log has lost rows of get the rows that are left"
        );
    }
    Ok(())
}
