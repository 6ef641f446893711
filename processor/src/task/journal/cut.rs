//! Deletes what lies before a snapshot, while the steps go on: a client of its own and its round trips take as long as thirty of them.

use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use common::client_log::Quiet;
use common::settings::Kafka;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};
use tokio::runtime::Handle;

use super::super::points::{self, Point};

/// How long the log may take for a cut. A client whose first question for the partition's leader comes too early, as one of a few hundred does,
/// asks again after three seconds.
const PATIENCE: Duration = Duration::from_secs(8);

/// The cuts of one journal partition, one after the other.
pub(super) struct Cuts {
    runtime: Handle,
    under_way: Option<JoinHandle<()>>,
}

impl Cuts {
    pub(super) fn new(runtime: Handle) -> Self {
        Self { runtime, under_way: None }
    }

    /// Begins to delete what lies before the offset `first`, where a snapshot begins. A journal that could not be cut is only longer: the
    /// next snapshot tries again.
    pub(super) fn begin(&mut self, settings: &Kafka, (topic, partition): (&str, i32), first: i64, query: &str) {
        self.wait();
        let (settings, runtime, topic, query) = (settings.clone(), self.runtime.clone(), topic.to_owned(), query.to_owned());
        // Not one of the runtime's threads: where no more can be had, those would take the work and never begin.
        let thread = Builder::new().name(format!("cut-{partition}")).spawn(move || {
            if let Err(error) = delete(&settings, &runtime, (&topic, partition), first) {
                tracing::warn!(topic, partition, %error, "the journal could not be cut before its snapshot");
            }
            points::reached(Point::AfterCut, &query);
        });
        match thread {
            Ok(cut) => self.under_way = Some(cut),
            Err(error) => tracing::warn!(partition, %error, "no thread can be had, so the journal is not cut before its snapshot"),
        }
    }

    /// Until none is under way.
    pub(super) fn wait(&mut self) {
        if self.under_way.take().is_some_and(|cut| cut.join().is_err()) {
            tracing::error!("a cut of the journal ended by itself");
        }
    }
}

fn delete(settings: &Kafka, runtime: &Handle, (topic, partition): (&str, i32), first: i64) -> Result<(), KafkaError> {
    let mut before = TopicPartitionList::new();
    before.add_partition_offset(topic, partition, Offset::Offset(first))?;
    let options = AdminOptions::new().operation_timeout(Some(PATIENCE)).request_timeout(Some(PATIENCE));
    // Made for this alone: between snapshots lie seconds or days, and a client has threads and a connection.
    let admin: AdminClient<Quiet> = common::kafka::client(settings, "processor-admin").create_with_context(Quiet)?;
    let cut = runtime.block_on(admin.delete_records(&before, &options))?;
    cut.elements().iter().try_for_each(|element| element.error())
}
