//! DescribeLogDirs: how much each partition takes, and how much room there is.

use std::collections::HashSet;
use std::sync::Arc;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::describe_log_dirs_response::{DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic};
use kafka_protocol::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse};

use super::{Request, blocking, text};
use crate::auth::users::Act;
use crate::broker::Shared;
use crate::log::room::free_and_total;
use crate::topics::Topic;

pub(super) async fn describe(broker: &Arc<Shared>, header: &Request, request: DescribeLogDirsRequest) -> DescribeLogDirsResponse {
    if !header.may(Act::Administer) {
        let error = ResponseError::ClusterAuthorizationFailed.code();
        // The first versions have no place for it but an empty list.
        return DescribeLogDirsResponse::default().with_error_code(if header.version >= 3 { error } else { 0 });
    }
    let wanted = request.topics.map(|topics| {
        let all = topics.into_iter().flat_map(|topic| topic.partitions.into_iter().map(move |index| (topic.topic.to_string(), index)));
        all.collect::<HashSet<_>>()
    });
    let (shared, version) = (broker.clone(), header.version);
    let work = move || {
        let topics = shared.topics.all();
        let topics = topics.iter().map(|topic| describe_topic(topic, wanted.as_ref())).filter(|topic| !topic.partitions.is_empty());
        let dir = shared.dir.log_dir();
        let answer = DescribeLogDirsResult::default().with_log_dir(text(dir.to_string_lossy())).with_topics(topics.collect());
        match free_and_total(&dir) {
            Ok((free, total)) if version >= 4 => answer.with_total_bytes(total as i64).with_usable_bytes(free as i64),
            _ => answer,
        }
    };
    DescribeLogDirsResponse::default().with_results(blocking(work).await.into_iter().collect())
}

fn describe_topic(topic: &Topic, wanted: Option<&HashSet<(String, i32)>>) -> DescribeLogDirsTopic {
    let indexed = topic.partitions.iter().enumerate().map(|(index, partition)| (index as i32, partition));
    let asked = indexed.filter(|(index, _)| wanted.is_none_or(|wanted| wanted.contains(&(topic.name.clone(), *index))));
    let described = asked.map(|(index, partition)| {
        DescribeLogDirsPartition::default().with_partition_index(index).with_partition_size(partition.bytes() as i64)
    });
    DescribeLogDirsTopic::default().with_name(text(&topic.name).into()).with_partitions(described.collect())
}
