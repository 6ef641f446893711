//! JoinGroup, SyncGroup, Heartbeat, LeaveGroup: from the wire to the coordinator and back.

use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::{
    HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse, SyncGroupRequest,
    SyncGroupResponse,
};

use super::{Request, text};
use crate::auth::users::Act;
use crate::broker::Shared;
use crate::group::coordinator::Sync;
use crate::group::member::{Join, JoinRefused};

fn code(result: Result<(), ResponseError>) -> i16 {
    result.map_or_else(|error| error.code(), |()| 0)
}

pub(super) async fn join(broker: &Arc<Shared>, header: &Request, request: JoinGroupRequest) -> JoinGroupResponse {
    let session_timeout = Duration::from_millis(request.session_timeout_ms.max(0) as u64);
    // Version 0 has one timeout for both.
    let rebalance_timeout = match request.rebalance_timeout_ms {
        ms if ms >= 0 => Duration::from_millis(ms as u64),
        _ => session_timeout,
    };
    let join = Join {
        member_id: request.member_id.to_string(),
        instance_id: request.group_instance_id.map(|id| id.to_string()),
        client_id: header.client_id.clone(),
        client_host: header.client.host.clone(),
        session_timeout,
        rebalance_timeout,
        protocol_type: request.protocol_type.to_string(),
        protocols: request.protocols.into_iter().map(|p| (p.name.to_string(), p.metadata)).collect(),
        needs_known_id: header.version >= 4,
        can_skip_assignment: header.version >= 9,
    };
    let refused = JoinRefused { error: ResponseError::GroupAuthorizationFailed, member_id: join.member_id.clone() };
    let joined = match header.may(Act::Group(&request.group_id)) {
        true => broker.groups.join(&request.group_id, join).await,
        false => Err(refused),
    };
    let joined = match joined {
        Ok(joined) => joined,
        Err(refused) => {
            let answer = JoinGroupResponse::default().with_error_code(refused.error.code()).with_generation_id(-1);
            let name = (header.version < 7).then(|| text(""));
            return answer.with_protocol_name(name).with_member_id(text(refused.member_id));
        }
    };
    let member = |(id, instance, metadata): (String, Option<String>, _)| {
        let member = JoinGroupResponseMember::default().with_member_id(text(id)).with_metadata(metadata);
        if header.version >= 5 { member.with_group_instance_id(instance.map(text)) } else { member }
    };
    JoinGroupResponse::default()
        .with_generation_id(joined.generation)
        .with_protocol_type(Some(text(joined.protocol_type)))
        .with_protocol_name(Some(text(joined.protocol)))
        .with_leader(text(joined.leader))
        .with_skip_assignment(joined.skip_assignment)
        .with_member_id(text(joined.member_id))
        .with_members(joined.members.into_iter().map(member).collect())
}

fn may_join(header: &Request, group: &str) -> Result<(), ResponseError> {
    if header.may(Act::Group(group)) { Ok(()) } else { Err(ResponseError::GroupAuthorizationFailed) }
}

pub(super) async fn sync(broker: &Arc<Shared>, header: &Request, request: SyncGroupRequest) -> SyncGroupResponse {
    if let Err(error) = may_join(header, &request.group_id) {
        return SyncGroupResponse::default().with_error_code(error.code());
    }
    let sync = Sync {
        member_id: request.member_id.to_string(),
        instance_id: request.group_instance_id.map(|id| id.to_string()),
        generation: request.generation_id,
        protocol_type: request.protocol_type.map(|name| name.to_string()),
        protocol: request.protocol_name.map(|name| name.to_string()),
        assignments: request.assignments.into_iter().map(|a| (a.member_id.to_string(), a.assignment)).collect(),
    };
    match broker.groups.sync(&request.group_id, sync).await {
        Ok(synced) => SyncGroupResponse::default()
            .with_protocol_type(Some(text(synced.protocol_type)))
            .with_protocol_name(Some(text(synced.protocol)))
            .with_assignment(synced.assignment),
        Err(error) => SyncGroupResponse::default().with_error_code(error.code()),
    }
}

pub(super) async fn heartbeat(broker: &Arc<Shared>, header: &Request, request: HeartbeatRequest) -> HeartbeatResponse {
    let instance = request.group_instance_id.as_deref();
    let heard = || broker.groups.heartbeat(&request.group_id, &request.member_id, instance, request.generation_id);
    let beat = may_join(header, &request.group_id).and_then(|()| heard());
    HeartbeatResponse::default().with_error_code(code(beat))
}

pub(super) async fn leave(broker: &Arc<Shared>, header: &Request, request: LeaveGroupRequest) -> LeaveGroupResponse {
    if let Err(error) = may_join(header, &request.group_id) {
        return LeaveGroupResponse::default().with_error_code(error.code());
    }
    if header.version < 3 {
        let left = broker.groups.leave(&request.group_id, &request.member_id, None);
        return LeaveGroupResponse::default().with_error_code(code(left));
    }
    let members = request.members.into_iter().map(|member| {
        let left = broker.groups.leave(&request.group_id, &member.member_id, member.group_instance_id.as_deref());
        MemberResponse::default()
            .with_error_code(code(left))
            .with_member_id(member.member_id)
            .with_group_instance_id(member.group_instance_id)
    });
    LeaveGroupResponse::default().with_members(members.collect())
}
