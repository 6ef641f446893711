//! FindCoordinator, and the administration of groups: ListGroups, DescribeGroups, DeleteGroups.

use std::sync::Arc;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{
    BrokerId, DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse, FindCoordinatorRequest,
    FindCoordinatorResponse, ListGroupsRequest, ListGroupsResponse,
};

use super::{NODE, Request, text};
use crate::broker::Shared;

const KEY_GROUP: i8 = 0;

/// This node coordinates all groups; there are no transactions to coordinate.
pub(super) async fn find(broker: &Arc<Shared>, header: &Request, request: FindCoordinatorRequest) -> FindCoordinatorResponse {
    let (host, port) = (text(&broker.host), i32::from(broker.addr.port()));
    let refused = (request.key_type != KEY_GROUP).then(|| text("this broker has no transactions"));
    let code = if refused.is_some() { ResponseError::InvalidRequest.code() } else { 0 };
    let node = if refused.is_some() { BrokerId(-1) } else { NODE };
    if header.version < 4 {
        let response = FindCoordinatorResponse::default().with_error_code(code).with_error_message(refused);
        return response.with_node_id(node).with_host(host).with_port(port);
    }
    let entry = |key| {
        Coordinator::default()
            .with_key(key)
            .with_node_id(node)
            .with_host(host.clone())
            .with_port(port)
            .with_error_code(code)
            .with_error_message(refused.clone())
    };
    FindCoordinatorResponse::default().with_coordinators(request.coordinator_keys.into_iter().map(entry).collect())
}

pub(super) async fn list(broker: &Arc<Shared>, header: &Request, request: ListGroupsRequest) -> ListGroupsResponse {
    let wanted = |state: &str| request.states_filter.is_empty() || request.states_filter.iter().any(|s| s.eq_ignore_ascii_case(state));
    let groups = broker.groups.list().into_iter().filter(|group| wanted(group.state)).map(|group| {
        let listed = ListedGroup::default().with_group_id(text(group.id).into()).with_protocol_type(text(group.protocol_type));
        if header.version >= 4 { listed.with_group_state(text(group.state)) } else { listed }
    });
    ListGroupsResponse::default().with_groups(groups.collect())
}

pub(super) async fn describe(broker: &Arc<Shared>, _header: &Request, request: DescribeGroupsRequest) -> DescribeGroupsResponse {
    let groups = request.groups.into_iter().map(|id| {
        let group = broker.groups.describe(&id);
        let member = |m: crate::group::coordinator::DescribedMember| {
            DescribedGroupMember::default()
                .with_member_id(text(m.id))
                .with_group_instance_id(m.instance_id.map(text))
                .with_client_id(text(m.client_id))
                .with_client_host(text(m.client_host))
                .with_member_metadata(m.metadata)
                .with_member_assignment(m.assignment)
        };
        DescribedGroup::default()
            .with_group_id(id)
            .with_group_state(text(group.state))
            .with_protocol_type(text(group.protocol_type))
            .with_protocol_data(text(group.protocol))
            .with_members(group.members.into_iter().map(member).collect())
    });
    DescribeGroupsResponse::default().with_groups(groups.collect())
}

pub(super) async fn delete(broker: &Arc<Shared>, _header: &Request, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let mut results = Vec::with_capacity(request.groups_names.len());
    for id in request.groups_names {
        let code = broker.groups.delete(&id).await.map_or_else(|error| error.code(), |()| 0);
        results.push(DeletableGroupResult::default().with_group_id(id).with_error_code(code));
    }
    DeleteGroupsResponse::default().with_results(results)
}
