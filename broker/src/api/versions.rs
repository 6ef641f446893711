//! ApiVersions: what this broker can do.

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::ApiVersionsResponse;
use kafka_protocol::messages::api_versions_response::ApiVersion;

use super::{APIS, Request, RequestFault};

pub(super) fn api_versions(request: &Request) -> Result<Bytes, RequestFault> {
    let entry = |(key, first, last): &(_, i16, i16)| {
        let key: kafka_protocol::messages::ApiKey = *key;
        ApiVersion::default().with_api_key(key as i16).with_min_version(*first).with_max_version(*last)
    };
    let response = ApiVersionsResponse::default().with_api_keys(APIS.iter().map(entry).collect());
    if (0..=4).contains(&request.version) {
        return request.answer(&response);
    }
    // A client from the future understands version 0, and asks again in a version it finds there.
    request.answer_in(&response.with_error_code(ResponseError::UnsupportedVersion.code()), 0)
}
