//! Metadata: which topics there are, and that this node leads them all. Never creates a topic.

use std::sync::Arc;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::metadata_response::{MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic};
use kafka_protocol::messages::{MetadataRequest, MetadataResponse};

use super::{NODE, Request, text};
use crate::batch::LEADER_EPOCH;
use crate::broker::Shared;
use crate::ids::wire_id;
use crate::topics::{Topic, check_name};

pub(super) async fn metadata(broker: &Arc<Shared>, header: &Request, request: MetadataRequest) -> MetadataResponse {
    let topics = match request.topics {
        // In version 0 an empty list means all topics; later on, no list does.
        None => broker.topics.all().iter().map(|topic| found(topic)).collect(),
        Some(wanted) if wanted.is_empty() && header.version == 0 => broker.topics.all().iter().map(|topic| found(topic)).collect(),
        Some(wanted) => wanted
            .into_iter()
            .map(|wanted| match wanted.name {
                Some(name) => broker.topics.get(&name).map_or_else(|| missing(&name), |topic| found(&topic)),
                None => broker.topics.get_by_id(wanted.topic_id.as_u128()).map_or_else(
                    || {
                        MetadataResponseTopic::default()
                            .with_topic_id(wanted.topic_id)
                            .with_error_code(ResponseError::UnknownTopicId.code())
                    },
                    |topic| found(&topic),
                ),
            })
            .collect(),
    };
    let node = MetadataResponseBroker::default().with_node_id(NODE).with_host(text(&broker.host)).with_port(i32::from(broker.addr.port()));
    MetadataResponse::default()
        .with_brokers(vec![node])
        .with_cluster_id(Some(text(&broker.dir.cluster_id)))
        .with_controller_id(NODE)
        .with_topics(topics)
}

fn missing(name: &str) -> MetadataResponseTopic {
    let error = match check_name(name) {
        Ok(()) => ResponseError::UnknownTopicOrPartition,
        Err(_) => ResponseError::InvalidTopicException,
    };
    MetadataResponseTopic::default().with_name(Some(text(name).into())).with_error_code(error.code())
}

fn found(topic: &Topic) -> MetadataResponseTopic {
    let partition = |index: usize| {
        MetadataResponsePartition::default()
            .with_partition_index(index as i32)
            .with_leader_id(NODE)
            .with_leader_epoch(LEADER_EPOCH)
            .with_replica_nodes(vec![NODE])
            .with_isr_nodes(vec![NODE])
    };
    MetadataResponseTopic::default()
        .with_name(Some(text(&topic.name).into()))
        .with_topic_id(wire_id(topic.id))
        .with_partitions((0..topic.partitions.len()).map(partition).collect())
}
