//! DescribeConfigs: the settings of topics.

use std::sync::Arc;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{DescribeConfigsResourceResult, DescribeConfigsResult};
use kafka_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};

use super::{Request, text};
use crate::broker::Shared;

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const SOURCE_TOPIC: i8 = 1;
const SOURCE_DEFAULT: i8 = 5;

pub(super) async fn describe(broker: &Arc<Shared>, _header: &Request, request: DescribeConfigsRequest) -> DescribeConfigsResponse {
    let results = request.resources.into_iter().map(|resource| describe_one(broker, resource)).collect();
    DescribeConfigsResponse::default().with_results(results)
}

fn describe_one(broker: &Shared, resource: DescribeConfigsResource) -> DescribeConfigsResult {
    let answer =
        DescribeConfigsResult::default().with_resource_type(resource.resource_type).with_resource_name(resource.resource_name.clone());
    let refused =
        |error: ResponseError, detail: &'static str| answer.clone().with_error_code(error.code()).with_error_message(Some(text(detail)));
    match resource.resource_type {
        TOPIC => {}
        // The broker's own settings are not Kafka's; there are none to show.
        BROKER => return answer,
        _ => return refused(ResponseError::InvalidRequest, "only topics and brokers have settings here"),
    }
    let Some(topic) = broker.topics.get(&resource.resource_name) else {
        return refused(ResponseError::UnknownTopicOrPartition, "there is no such topic");
    };
    let wanted = |name: &str| match &resource.configuration_keys {
        Some(keys) => keys.iter().any(|key| &**key == name),
        None => true,
    };
    let configs = topic.config.described().into_iter().filter(|(name, _, _)| wanted(name)).map(|(name, value, given)| {
        DescribeConfigsResourceResult::default().with_name(text(name)).with_value(Some(text(value))).with_config_source(if given {
            SOURCE_TOPIC
        } else {
            SOURCE_DEFAULT
        })
    });
    answer.with_configs(configs.collect())
}
