//! DescribeCluster.

use std::sync::Arc;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::{DescribeClusterRequest, DescribeClusterResponse};

use super::{NODE, Request, operations, text};
use crate::broker::Shared;

const ENDPOINT_BROKERS: i8 = 1;

pub(super) async fn describe_cluster(broker: &Arc<Shared>, header: &Request, request: DescribeClusterRequest) -> DescribeClusterResponse {
    let allowed = operations::on_cluster(header, request.include_cluster_authorized_operations);
    let answer = DescribeClusterResponse::default().with_cluster_id(text(&broker.dir.cluster_id)).with_controller_id(NODE);
    let answer = answer.with_cluster_authorized_operations(allowed);
    if header.version >= 1 && request.endpoint_type != ENDPOINT_BROKERS {
        let detail = "this node has no controller listener of its own";
        return answer.with_error_code(ResponseError::MismatchedEndpointType.code()).with_error_message(Some(text(detail)));
    }
    let advertised = &header.client.advertised;
    let node = DescribeClusterBroker::default().with_broker_id(NODE).with_host(text(&advertised.host));
    answer.with_brokers(vec![node.with_port(i32::from(advertised.port))])
}
