//! The calls that are made to Kinesis, and what their faults mean.

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_sdk_kinesis::config::{Credentials, ProvideCredentials as _};
use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kinesis::operation::get_records::GetRecordsOutput;
use aws_sdk_kinesis::primitives::DateTime;
use aws_sdk_kinesis::types::ShardIteratorType;
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;

use super::merge::Shard;
use crate::query::file::Kinesis as Settings;

const CONNECT: Duration = Duration::from_secs(5);
/// An answer may have 10 MB.
const ANSWER: Duration = Duration::from_secs(30);

/// Why a call has brought nothing.
#[derive(Debug)]
pub(super) enum Fault {
    /// Too many calls or bytes; the same call may succeed later.
    Throttled,
    /// The iterator is older than five minutes.
    Expired,
    /// There is no such stream or shard.
    Gone(String),
    /// Nobody may read with these credentials.
    Refused(String),
    /// No answer, or a fault on the other side.
    Away(String),
}

/// Where an iterator begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begin<'a> {
    Oldest,
    Latest,
    /// Epoch milliseconds.
    Time(i64),
    At(&'a str),
    Behind(&'a str),
}

pub(super) struct Client {
    sdk: aws_sdk_kinesis::Client,
    stream: String,
    /// The stream and where it is, for people.
    place: String,
}

impl Client {
    /// # Errors
    /// When it is not said whose calls these are, or where the stream is.
    pub(super) async fn new(settings: &Settings) -> Result<Self, Fault> {
        let http = Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
        // What is tried again, and when, is decided by the readers.
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(http)
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::builder().connect_timeout(CONNECT).operation_attempt_timeout(ANSWER).build());
        if let Some(region) = &settings.region {
            loader = loader.region(Region::new(region.clone()));
        }
        if let Some(endpoint) = &settings.endpoint {
            loader = loader.endpoint_url(endpoint);
        }
        if let Some(profile) = &settings.profile {
            loader = loader.profile_name(profile);
        }
        if let (Some(id), Some(path)) = (&settings.access_key_id, &settings.secret_access_key_file) {
            let secret = std::fs::read_to_string(path).map_err(|error| {
                Fault::Refused(format!("source.kinesis.secret_access_key_file: {} cannot be read: {error}", path.display()))
            })?;
            loader = loader.credentials_provider(Credentials::new(id, secret.trim(), None, None, "query file"));
        }
        let config = loader.load().await;
        let Some(region) = config.region() else {
            return Err(Fault::Refused(
                "source.kinesis.region is missing, and neither AWS_REGION nor a profile names one; name the region of the stream".into(),
            ));
        };
        let endpoint = settings.endpoint.as_ref().map(|endpoint| format!(" at {endpoint}")).unwrap_or_default();
        let place = format!("'{}' in {region}{endpoint}", settings.stream);
        let found = match config.credentials_provider() {
            Some(provider) => provider.provide_credentials().await.map(drop).map_err(|error| innermost(&error)),
            None => Err("there is no provider".into()),
        };
        if let Err(cause) = found {
            return Err(Fault::Refused(format!(
                "there are no AWS credentials for the Kinesis stream {place}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, name a profile in \
                 [source.kinesis], or give this machine a role ({})",
                // The rest lists what was tried.
                cause.lines().next().unwrap_or_default().trim_end_matches(". Attempted:")
            )));
        }
        Ok(Self { sdk: aws_sdk_kinesis::Client::new(&config), stream: settings.stream.clone(), place })
    }

    /// All shards that the stream has.
    pub(super) async fn shards(&self) -> Result<Vec<Shard>, Fault> {
        let (mut shards, mut token) = (Vec::new(), None);
        loop {
            let call = self.sdk.list_shards();
            // The token says which stream it is.
            let call = match token.take() {
                Some(token) => call.next_token(token),
                None => call.stream_name(&self.stream),
            };
            let answer = call.send().await.map_err(|error| self.fault(error))?;
            for shard in answer.shards() {
                let hash = |text: Option<&str>, otherwise: u128| text.and_then(|text| text.parse().ok()).unwrap_or(otherwise);
                let range = shard.hash_key_range();
                shards.push(Shard {
                    id: shard.shard_id().to_owned(),
                    parents: shard.parent_shard_id().into_iter().chain(shard.adjacent_parent_shard_id()).map(str::to_owned).collect(),
                    hashes: (
                        hash(range.map(|range| range.starting_hash_key()), 0),
                        hash(range.map(|range| range.ending_hash_key()), u128::MAX),
                    ),
                });
            }
            token = answer.next_token;
            if token.is_none() {
                return Ok(shards);
            }
        }
    }

    pub(super) async fn iterator(&self, shard: &str, from: Begin<'_>) -> Result<String, Fault> {
        let call = self.sdk.get_shard_iterator().stream_name(&self.stream).shard_id(shard);
        let call = match from {
            Begin::Oldest => call.shard_iterator_type(ShardIteratorType::TrimHorizon),
            Begin::Latest => call.shard_iterator_type(ShardIteratorType::Latest),
            Begin::Time(time) => call.shard_iterator_type(ShardIteratorType::AtTimestamp).timestamp(DateTime::from_millis(time)),
            Begin::At(number) => call.shard_iterator_type(ShardIteratorType::AtSequenceNumber).starting_sequence_number(number),
            Begin::Behind(number) => call.shard_iterator_type(ShardIteratorType::AfterSequenceNumber).starting_sequence_number(number),
        };
        let answer = call.send().await.map_err(|error| self.fault(error))?;
        answer.shard_iterator.ok_or_else(|| Fault::Away(format!("the Kinesis stream {}: an answer without an iterator", self.place)))
    }

    pub(super) async fn records(&self, iterator: &str) -> Result<GetRecordsOutput, Fault> {
        self.sdk.get_records().shard_iterator(iterator).send().await.map_err(|error| self.fault(error))
    }

    fn fault<E>(&self, error: SdkError<E>) -> Fault
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let place = &self.place;
        let (code, message) = match &error {
            SdkError::ServiceError(fault) => (fault.err().code().unwrap_or_default(), fault.err().message().unwrap_or_default()),
            SdkError::TimeoutError(_) => return Fault::Away(format!("the Kinesis stream {place}: no answer in time")),
            _ => return Fault::Away(format!("the Kinesis stream {place}: {}", innermost(&error))),
        };
        match code {
            "ProvisionedThroughputExceededException" | "LimitExceededException" | "ThrottlingException" | "KMSThrottlingException" => {
                Fault::Throttled
            }
            "ExpiredIteratorException" => Fault::Expired,
            "ResourceNotFoundException" => Fault::Gone(format!(
                "there is no Kinesis stream {place} ({message}); create it, or correct stream and region in [source.kinesis]"
            )),
            "AccessDeniedException"
            | "ExpiredTokenException"
            | "IncompleteSignatureException"
            | "InvalidClientTokenId"
            | "InvalidSignatureException"
            | "MissingAuthenticationTokenException"
            | "OptInRequired"
            | "SignatureDoesNotMatch"
            | "UnrecognizedClientException" => Fault::Refused(format!(
                "Kinesis does not let these credentials read the stream {place} ({code}: {message}); they need the rights kinesis:ListShards, \
                 kinesis:GetShardIterator and kinesis:GetRecords"
            )),
            _ => Fault::Away(format!("the Kinesis stream {place}: {code}: {message}")),
        }
    }
}

/// The last cause, which says what happened.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
