//! DescribeConfigs, AlterConfigs, IncrementalAlterConfigs: the settings of topics.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym};
use kafka_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, DescribeConfigsRequest, DescribeConfigsResponse, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse, alter_configs_response, incremental_alter_configs_response,
};

use super::group_offsets::MAX_METADATA;
use super::{NODE, Request, text};
use crate::auth::users::Act;
use crate::broker::Shared;
use crate::connection::IDLE;
use crate::group::coordinator::SESSION;
use crate::topic_config::{Described, Type, default_of, is_list};
use crate::topics::check_name;
use crate::txn::coordinator::MAX_TIMEOUT_MS;

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const CLIENT_METRICS: i8 = 16;
const GROUP: i8 = 32;
const SOURCE_TOPIC: i8 = 1;
const SOURCE_STATIC: i8 = 4;
const SOURCE_DEFAULT: i8 = 5;

type Refused = (ResponseError, String);

pub(super) async fn describe(broker: &Arc<Shared>, header: &Request, request: DescribeConfigsRequest) -> DescribeConfigsResponse {
    let describe = |resource| describe_one(broker, header, resource, request.include_synonyms);
    DescribeConfigsResponse::default().with_results(request.resources.into_iter().map(describe).collect())
}

fn describe_one(broker: &Shared, header: &Request, resource: DescribeConfigsResource, synonyms: bool) -> DescribeConfigsResult {
    let answer =
        DescribeConfigsResult::default().with_resource_type(resource.resource_type).with_resource_name(resource.resource_name.clone());
    let refused =
        |error: ResponseError, detail: &'static str| answer.clone().with_error_code(error.code()).with_error_message(Some(text(detail)));
    let wanted = |name: &str| match &resource.configuration_keys {
        Some(keys) => keys.iter().any(|key| &**key == name),
        None => true,
    };
    let all = match resource.resource_type {
        TOPIC if !header.may(Act::See(&resource.resource_name)) => {
            return refused(ResponseError::TopicAuthorizationFailed, "this user may not see the topic");
        }
        TOPIC => match broker.topics.get(&resource.resource_name) {
            Some(topic) => topic.config.get().described(),
            None if check_name(&resource.resource_name).is_err() => {
                return refused(ResponseError::InvalidTopicException, "no topic can have this name");
            }
            None => return refused(ResponseError::UnknownTopicOrPartition, "there is no such topic"),
        },
        BROKER if !header.may(Act::Administer) => {
            return refused(ResponseError::ClusterAuthorizationFailed, "this user may not see the broker's settings");
        }
        BROKER if !resource.resource_name.is_empty() && resource.resource_name.parse() != Ok(NODE.0) => {
            return refused(ResponseError::InvalidRequest, "this is node 1, and there is no other");
        }
        // Settings that all brokers have been given at run time: none here.
        BROKER if resource.resource_name.is_empty() => Vec::new(),
        BROKER => of_broker(broker, header),
        // Kinds of Kafka's that have no settings here.
        CLIENT_METRICS | GROUP => Vec::new(),
        _ => return refused(ResponseError::InvalidRequest, "only topics and brokers have settings here"),
    };
    let of_topic = resource.resource_type == TOPIC;
    let shown = all.into_iter().filter(|one| wanted(one.name)).map(|one| shown(one, of_topic, synonyms, header.version));
    answer.with_configs(shown.collect())
}

fn shown(one: Described, of_topic: bool, synonyms: bool, version: i16) -> DescribeConfigsResourceResult {
    let source = match (of_topic, one.given) {
        (true, true) => SOURCE_TOPIC,
        (false, _) => SOURCE_STATIC,
        (true, false) => SOURCE_DEFAULT,
    };
    let synonym = |name: &str, value: &str, source| {
        DescribeConfigsSynonym::default().with_name(text(name)).with_value(Some(text(value))).with_source(source)
    };
    let mut same = Vec::new();
    if synonyms {
        if one.given {
            same.push(synonym(one.name, &one.value, source));
        }
        if !one.synonym.is_empty() {
            same.push(synonym(one.synonym, &one.default, SOURCE_DEFAULT));
        }
    }
    let shown = DescribeConfigsResourceResult::default()
        .with_name(text(one.name))
        .with_value(Some(text(&one.value)))
        .with_read_only(!of_topic)
        .with_config_source(source)
        .with_synonyms(same);
    if version >= 3 { shown.with_config_type(one.kind as i8) } else { shown }
}

/// The broker's own settings in Kafka's words; they come from the file that it was started with.
fn of_broker(broker: &Shared, header: &Request) -> Vec<Described> {
    let advertised = &header.client.advertised;
    let one = |name, value: String, kind| Described { name, default: value.clone(), value, given: false, kind, synonym: name };
    vec![
        one("advertised.listeners", format!("PLAINTEXT://{}:{}", advertised.host, advertised.port), Type::Str),
        one("auto.create.topics.enable", broker.auto_create.is_some().to_string(), Type::Boolean),
        one("broker.id", NODE.0.to_string(), Type::Int),
        one("compression.type", "producer".to_owned(), Type::Str),
        one("connections.max.idle.ms", IDLE.as_millis().to_string(), Type::Long),
        one("default.replication.factor", "1".to_owned(), Type::Int),
        one("delete.topic.enable", "true".to_owned(), Type::Boolean),
        one("group.max.session.timeout.ms", SESSION.end().as_millis().to_string(), Type::Int),
        one("group.min.session.timeout.ms", SESSION.start().as_millis().to_string(), Type::Int),
        one("log.cleanup.policy", default_of("cleanup.policy").to_owned(), Type::List),
        one("log.dirs", broker.dir.log_dir().to_string_lossy().into_owned(), Type::Str),
        one("log.message.timestamp.type", default_of("message.timestamp.type").to_owned(), Type::Str),
        one("log.retention.bytes", default_of("retention.bytes").to_owned(), Type::Long),
        one("log.retention.ms", default_of("retention.ms").to_owned(), Type::Long),
        one("log.segment.bytes", broker.segment_bytes.to_string(), Type::Int),
        one("message.max.bytes", default_of("max.message.bytes").to_owned(), Type::Int),
        one("min.insync.replicas", default_of("min.insync.replicas").to_owned(), Type::Int),
        one("node.id", NODE.0.to_string(), Type::Int),
        one("num.partitions", broker.auto_create.unwrap_or(1).to_string(), Type::Int),
        one("offset.metadata.max.bytes", MAX_METADATA.to_string(), Type::Int),
        one("socket.request.max.bytes", broker.max_request_bytes.to_string(), Type::Int),
        one("transaction.max.timeout.ms", MAX_TIMEOUT_MS.to_string(), Type::Int),
    ]
}

/// Gives a topic other settings, after `change` has been at those it was given.
fn alter_one(
    broker: &Shared,
    header: &Request,
    resource: (i8, &str),
    validate_only: bool,
    change: impl FnOnce(&mut BTreeMap<String, String>) -> Result<(), Refused>,
) -> Result<(), Refused> {
    let (kind, name) = resource;
    match kind {
        TOPIC if !header.may(Act::Manage(name)) => {
            return Err((ResponseError::TopicAuthorizationFailed, "this user may not alter topics".to_owned()));
        }
        TOPIC => {}
        BROKER => {
            let detail = "the broker's settings come from its own settings file; change them there and restart it".to_owned();
            return Err((ResponseError::InvalidRequest, detail));
        }
        _ => return Err((ResponseError::InvalidRequest, "only topics have settings that can be altered here".to_owned())),
    }
    let unknown = || (ResponseError::UnknownTopicOrPartition, format!("there is no topic '{name}'"));
    let topic = broker.topics.get(name).ok_or_else(unknown)?;
    let config = topic.config.get();
    let mut given = config.given().clone();
    change(&mut given)?;
    let altered = config.with_given(given).map_err(wrong)?;
    if validate_only {
        return Ok(());
    }
    broker.topics.alter(name, altered).map_err(|fault| {
        tracing::error!(topic = name, %fault, "a topic's settings cannot be kept");
        (ResponseError::KafkaStorageError, fault.to_string())
    })
}

fn wrong(detail: String) -> Refused {
    (ResponseError::InvalidConfig, detail)
}

pub(super) async fn alter(broker: &Arc<Shared>, header: &Request, request: AlterConfigsRequest) -> AlterConfigsResponse {
    let mut responses = Vec::with_capacity(request.resources.len());
    for resource in request.resources {
        let answer = alter_configs_response::AlterConfigsResourceResponse::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        let altered = alter_one(broker, header, (resource.resource_type, &resource.resource_name), request.validate_only, |given| {
            // This is the whole of it: what is not named goes back to its default.
            *given = resource.configs.iter().filter_map(|c| Some((c.name.to_string(), c.value.as_ref()?.to_string()))).collect();
            Ok(())
        });
        responses.push(match altered {
            Ok(()) => answer,
            Err((error, detail)) => answer.with_error_code(error.code()).with_error_message(Some(text(detail))),
        });
    }
    AlterConfigsResponse::default().with_responses(responses)
}

pub(super) async fn alter_incrementally(
    broker: &Arc<Shared>,
    header: &Request,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let mut responses = Vec::with_capacity(request.resources.len());
    for resource in request.resources {
        let answer = incremental_alter_configs_response::AlterConfigsResourceResponse::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        let altered = alter_one(broker, header, (resource.resource_type, &resource.resource_name), request.validate_only, |given| {
            let mut named = HashSet::new();
            if let Some(twice) = resource.configs.iter().find(|c| !named.insert(&c.name)) {
                return Err((ResponseError::InvalidRequest, format!("the request names {} twice", &*twice.name)));
            }
            resource.configs.iter().try_for_each(|c| operate(given, &c.name, c.config_operation, c.value.as_deref())).map_err(wrong)
        });
        responses.push(match altered {
            Ok(()) => answer,
            Err((error, detail)) => answer.with_error_code(error.code()).with_error_message(Some(text(detail))),
        });
    }
    IncrementalAlterConfigsResponse::default().with_responses(responses)
}

/// One step of IncrementalAlterConfigs: 0 set, 1 delete, 2 append to a list, 3 take out of a list.
fn operate(given: &mut BTreeMap<String, String>, name: &str, operation: i8, value: Option<&str>) -> Result<(), String> {
    let needed = || value.ok_or_else(|| format!("{name} is given no value"));
    match operation {
        0 => drop(given.insert(name.to_owned(), needed()?.to_owned())),
        1 => drop(given.remove(name)),
        2 | 3 if is_list(name) => {
            let now = given.get(name).map_or_else(|| default_of(name), String::as_str);
            let change: Vec<&str> = needed()?.split(',').map(str::trim).collect();
            let mut list: Vec<&str> = now.split(',').map(str::trim).filter(|item| !item.is_empty() && !change.contains(item)).collect();
            if operation == 2 {
                list.extend(change);
            }
            let list = list.join(",");
            given.insert(name.to_owned(), list);
        }
        2 | 3 => return Err(format!("{name} is no list")),
        _ => return Err(format!("the operation {operation} on {name} is unknown")),
    }
    Ok(())
}
