//! Metadata: which topics there are, and that this node leads them all. Creates a topic only where the operator wants that.

use std::collections::BTreeMap;
use std::sync::Arc;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic};
use kafka_protocol::messages::{MetadataRequest, MetadataResponse};

use super::{NODE, Request, blocking, operations, text};
use crate::auth::users::Act;
use crate::batch::LEADER_EPOCH;
use crate::broker::Shared;
use crate::ids::wire_id;
use crate::topic_config::TopicConfig;
use crate::topics::{CreateFault, Topic, check_name};

pub(super) async fn metadata(broker: &Arc<Shared>, header: &Request, request: MetadataRequest) -> MetadataResponse {
    // In version 0 an empty list means all topics; later on, no list does.
    let wanted = request.topics.filter(|wanted| !wanted.is_empty() || header.version > 0);
    if let Some(wanted) = &wanted
        && request.allow_auto_topic_creation
    {
        create_missing(broker, header, wanted).await;
    }
    let all = || {
        let seen = broker.topics.all();
        seen.iter().filter(|topic| header.may(Act::See(&topic.name))).map(|topic| found(topic)).collect()
    };
    let (of_topics, of_cluster) = (request.include_topic_authorized_operations, request.include_cluster_authorized_operations);
    let mut topics: Vec<MetadataResponseTopic> =
        wanted.map_or_else(all, |wanted| wanted.into_iter().map(|topic| one(broker, header, topic)).collect());
    for topic in topics.iter_mut().filter(|topic| topic.error_code == 0) {
        let name = topic.name.clone().unwrap_or_default();
        topic.topic_authorized_operations = operations::on_topic(header, &name, of_topics);
    }
    let advertised = &header.client.advertised;
    let node = MetadataResponseBroker::default().with_node_id(NODE).with_host(text(&advertised.host));
    MetadataResponse::default()
        .with_brokers(vec![node.with_port(i32::from(advertised.port))])
        .with_cluster_id(Some(text(&broker.dir.cluster_id)))
        .with_controller_id(NODE)
        .with_cluster_authorized_operations(operations::on_cluster(header, of_cluster))
        .with_topics(topics)
}

async fn create_missing(broker: &Arc<Shared>, header: &Request, wanted: &[MetadataRequestTopic]) {
    let Some(partitions) = broker.auto_create else { return };
    for name in wanted.iter().filter_map(|topic| topic.name.as_deref()) {
        let may = check_name(name).is_ok() && header.may(Act::Manage(name));
        if !may || broker.topics.get(name).is_some() {
            continue;
        }
        let Ok(config) = TopicConfig::new(BTreeMap::new(), broker.segment_bytes) else { continue };
        let (shared, name) = (broker.clone(), name.to_owned());
        let created = blocking(move || shared.topics.create(&name, partitions, &config).map(drop)).await;
        if let Some(Err(CreateFault::Storage(fault))) = created {
            tracing::error!(%fault, "a topic cannot be created");
        }
    }
}

fn one(broker: &Shared, header: &Request, wanted: MetadataRequestTopic) -> MetadataResponseTopic {
    let refused = ResponseError::TopicAuthorizationFailed.code();
    // Clients that ask by id leave the name null or empty.
    let name = wanted.name.filter(|_| wanted.topic_id.as_u128() == 0);
    match name {
        Some(name) if !header.may(Act::See(&name)) => MetadataResponseTopic::default().with_name(Some(name)).with_error_code(refused),
        Some(name) => broker.topics.get(&name).map_or_else(|| missing(&name), |topic| found(&topic)),
        None => {
            let answer = MetadataResponseTopic::default().with_topic_id(wanted.topic_id);
            match broker.topics.get_by_id(wanted.topic_id.as_u128()) {
                None => answer.with_error_code(ResponseError::UnknownTopicId.code()),
                Some(topic) if !header.may(Act::See(&topic.name)) => answer.with_error_code(refused),
                Some(topic) => found(&topic),
            }
        }
    }
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
