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
use kafka_protocol::protocol::StrBytes;

use super::{NODE, Request, operations, text};
use crate::auth::users::Act;
use crate::broker::Shared;
use crate::group::coordinator::DEAD;

const KEY_GROUP: i8 = 0;
const KEY_TRANSACTION: i8 = 1;

/// This node coordinates all groups and transactions.
pub(super) async fn find(_broker: &Arc<Shared>, header: &Request, request: FindCoordinatorRequest) -> FindCoordinatorResponse {
    let judge = |key: &str| match request.key_type {
        KEY_GROUP if header.may(Act::Group(key)) => Ok(()),
        KEY_GROUP => Err(ResponseError::GroupAuthorizationFailed),
        KEY_TRANSACTION if header.may(Act::Transaction(key)) => Ok(()),
        KEY_TRANSACTION => Err(ResponseError::TransactionalIdAuthorizationFailed),
        _ => Err(ResponseError::InvalidRequest),
    };
    let (host, port) = (text(&header.client.advertised.host), i32::from(header.client.advertised.port));
    if header.version < 4 {
        let found = judge(&request.key);
        let node = if found.is_ok() { NODE } else { BrokerId(-1) };
        let response = FindCoordinatorResponse::default().with_error_code(found.map_or_else(|error| error.code(), |()| 0));
        return response.with_node_id(node).with_host(host).with_port(port);
    }
    let entry = |key: StrBytes| {
        let found = judge(&key);
        let node = if found.is_ok() { NODE } else { BrokerId(-1) };
        let answer = Coordinator::default().with_node_id(node).with_host(host.clone()).with_port(port);
        answer.with_key(key).with_error_code(found.map_or_else(|error| error.code(), |()| 0))
    };
    FindCoordinatorResponse::default().with_coordinators(request.coordinator_keys.into_iter().map(entry).collect())
}

pub(super) async fn list(broker: &Arc<Shared>, header: &Request, request: ListGroupsRequest) -> ListGroupsResponse {
    let wanted = |state: &str| request.states_filter.is_empty() || request.states_filter.iter().any(|s| s.eq_ignore_ascii_case(state));
    // All groups here balance by the classic protocol.
    let of_type = request.types_filter.is_empty() || request.types_filter.iter().any(|t| t.eq_ignore_ascii_case("classic"));
    let seen = |id: &str| of_type && header.may(Act::Group(id));
    let groups = broker.groups.list().into_iter().filter(|group| wanted(group.state) && seen(&group.id)).map(|group| {
        let listed = ListedGroup::default().with_group_id(text(group.id).into()).with_protocol_type(text(group.protocol_type));
        let listed = if header.version >= 4 { listed.with_group_state(text(group.state)) } else { listed };
        if header.version >= 5 { listed.with_group_type(text("classic")) } else { listed }
    });
    ListGroupsResponse::default().with_groups(groups.collect())
}

pub(super) async fn describe(broker: &Arc<Shared>, header: &Request, request: DescribeGroupsRequest) -> DescribeGroupsResponse {
    let groups = request.groups.into_iter().map(|id| {
        if !header.may(Act::Group(&id)) {
            return DescribedGroup::default().with_group_id(id).with_error_code(ResponseError::GroupAuthorizationFailed.code());
        }
        let allowed = operations::on_group(header, &id, request.include_authorized_operations);
        let group = broker.groups.describe(&id);
        if header.version >= 6 && group.state == DEAD {
            let detail = format!("Group {} not found.", &*id);
            let gone = DescribedGroup::default().with_group_id(id).with_group_state(text(DEAD));
            return gone.with_error_code(ResponseError::GroupIdNotFound.code()).with_error_message(Some(text(detail)));
        }
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
            .with_authorized_operations(allowed)
            .with_members(group.members.into_iter().map(member).collect())
    });
    DescribeGroupsResponse::default().with_groups(groups.collect())
}

pub(super) async fn delete(broker: &Arc<Shared>, header: &Request, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let mut results = Vec::with_capacity(request.groups_names.len());
    for id in request.groups_names {
        let deleted = match header.may(Act::Group(&id)) {
            true => delete_one(broker, &id).await,
            false => Err(ResponseError::GroupAuthorizationFailed),
        };
        let code = deleted.map_or_else(|error| error.code(), |()| 0);
        results.push(DeletableGroupResult::default().with_group_id(id).with_error_code(code));
    }
    DeleteGroupsResponse::default().with_results(results)
}

async fn delete_one(broker: &Shared, id: &str) -> Result<(), ResponseError> {
    let deleted = broker.groups.delete(id).await;
    if !matches!(deleted, Ok(()) | Err(ResponseError::GroupIdNotFound)) {
        return deleted;
    }
    // A group begins with its first committed offset: one that only open transactions know is deleted with what they hold of it.
    if broker.transactions.forget_group(id).await? { Ok(()) } else { deleted }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use kafka_protocol::messages::ApiKey;

    use super::*;
    use crate::api::fixture;
    use crate::group::offsets::{Committed, Offsets};

    #[tokio::test]
    async fn a_group_of_which_only_a_transaction_knows_is_deleted_with_its_offsets() {
        let (dir, broker) = fixture::broker().await;
        let shared = broker.shared();
        let producer = shared.transactions.init(shared, "tx", 60_000, None).await.unwrap();
        shared.transactions.add_group("tx", producer, "g").await.unwrap();
        let committed = Committed { offset: 5, leader_epoch: -1, metadata: String::new() };
        let offsets = Offsets::from([("t".to_owned(), [(0, committed)].into())]);
        shared.transactions.add_offsets("tx", producer, "g", offsets).await.unwrap();
        assert!(shared.transactions.is_pending("g", "t", 0));
        let request = || DeleteGroupsRequest::default().with_groups_names(vec![text("g").into()]);
        let header = fixture::header(ApiKey::DeleteGroups, 2);
        let deleted = delete(shared, &header, request()).await;
        assert_eq!(deleted.results[0].error_code, 0);
        assert!(!shared.transactions.is_pending("g", "t", 0));
        shared.transactions.end(shared, "tx", producer, true).await.unwrap();
        assert_eq!(shared.groups.committed("g", "t", 0), None);
        let again = delete(shared, &header, request()).await;
        assert_eq!(again.results[0].error_code, ResponseError::GroupIdNotFound.code());
        broker.shutdown().await.unwrap();
        drop(dir);
    }
}
