//! The ends of transactions in the log: a control batch in every partition that a transaction has written to.

use std::sync::Arc;

use crate::broker::Shared;
use crate::log::partition::AppendFault;

/// Markers that could not be made durable now; they are tried again.
#[derive(Debug, thiserror::Error)]
#[error("the marker in {partition} cannot be written: {detail}")]
pub(crate) struct MarkerFault {
    partition: String,
    detail: String,
}

/// Writes a marker into each partition and waits until all are durable. A partition that is gone needs none.
pub(crate) async fn write(
    broker: &Arc<Shared>,
    partitions: Vec<(String, i32)>,
    producer: (i64, i16),
    commit: bool,
) -> Result<(), MarkerFault> {
    let shared = broker.clone();
    let fault = |partition: &str, detail: String| MarkerFault { partition: partition.to_owned(), detail };
    let work = move || {
        let mut acks = Vec::with_capacity(partitions.len());
        for (topic, index) in partitions {
            let Some(partition) = shared.topics.partition(&topic, index) else { continue };
            match partition.append_marker(producer.0, producer.1, commit) {
                Ok(appended) => acks.push((topic, index, appended.ack)),
                Err(AppendFault::Closed) if shared.topics.partition(&topic, index).is_none() => continue,
                Err(refused) => return Err(fault(&partition.name, refused.to_string())),
            }
            shared.flusher.request(&partition);
        }
        Ok(acks)
    };
    let appended = tokio::task::spawn_blocking(work).await;
    for (topic, index, ack) in appended.map_err(|failed| fault("the log", failed.to_string()))?? {
        match ack.await {
            Ok(Ok(())) => {}
            // The topic was deleted while its marker was on the way.
            _ if broker.topics.partition(&topic, index).is_none() => {}
            _ => return Err(fault(&format!("{topic}-{index}"), "the log's storage has failed".to_owned())),
        }
    }
    Ok(())
}
