//! Preparing an InfluxDB: its first user, a bucket, and tokens that may do one thing only.

use common::settings::Influxdb;
use serde_json::{Value, json};

use super::address;
use crate::web::{Answer, Body, Client, Scheme, Secret, percent};
use crate::writer::WriteError;

const JSON: &str = "application/json";

/// Who may do everything in the database.
pub struct Administrator {
    pub username: String,
    pub password: String,
    pub token: String,
}

impl std::fmt::Debug for Administrator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Administrator").field("username", &self.username).finish_non_exhaustive()
    }
}

/// What a token may do with the bucket, and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
}

impl Access {
    fn action(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// Worth trying again.
    #[error("InfluxDB at {url} does not answer ({cause}); start it, or name another in sink.influxdb.url")]
    Away { url: String, cause: String },
    #[error(
        "InfluxDB at {url} was set up with another administrator ({words}); bring back the secrets that belong to its data, or begin with new data"
    )]
    Stranger { url: String, words: String },
    #[error("InfluxDB at {url} refuses {what} ({code}: {words}); look into its log")]
    Refused { url: String, what: &'static str, code: u16, words: String },
    #[error("InfluxDB at {url} knows no organisation '{org}'; name one that is there in sink.influxdb.org")]
    NoOrg { url: String, org: String },
}

/// A database with its bucket.
#[derive(Debug)]
pub struct Prepared {
    client: Client,
    org_id: String,
    bucket_id: String,
}

/// Makes `admin` the first user of a database that has none, and sees to it that `settings.bucket` is there in `settings.org`. Can be
/// called again and again.
///
/// # Errors
/// [`PrepareError::Away`] as long as the database does not answer; the others will not pass by themselves.
pub fn prepare(settings: &Influxdb, admin: &Administrator) -> Result<Prepared, PrepareError> {
    let mut address = address(settings);
    address.secret = Secret { scheme: Scheme::Token, token: Some(admin.token.clone()), file: None };
    let url = address.url.clone();
    let mut client = Client::new(address).map_err(|error| away(&url, &error))?;
    begin(&mut client, settings, admin)?;
    let org_id = org_id(&client, settings)?;
    let bucket_id = bucket_id(&mut client, settings, &org_id)?;
    Ok(Prepared { client, org_id, bucket_id })
}

impl Prepared {
    /// The token `known`, when it is active and may do just that; else a new one, described as `name`.
    ///
    /// # Errors
    /// When the database is away, or refuses.
    pub fn token(&mut self, name: &str, access: Access, known: Option<&str>) -> Result<String, PrepareError> {
        let what = "to list the tokens";
        let listed = read(&self.client, &format!("/api/v2/authorizations?orgID={}", percent(&self.org_id)), what)?;
        let fits = |found: &&Value| {
            let permissions = found["permissions"].as_array().map(Vec::as_slice).unwrap_or_default();
            let [permission] = permissions else { return false };
            found["status"] == "active" && permission["action"] == access.action() && permission["resource"]["id"] == *self.bucket_id
        };
        let all = listed["authorizations"].as_array().map(Vec::as_slice).unwrap_or_default();
        if let Some(known) = known
            && all.iter().filter(fits).any(|found| found["token"] == known)
        {
            return Ok(known.to_owned());
        }
        let resource = json!({ "type": "buckets", "id": self.bucket_id, "orgID": self.org_id });
        let permissions = json!([{ "action": access.action(), "resource": resource }]);
        let wanted = json!({ "orgID": self.org_id, "description": name, "permissions": permissions });
        let made = create(&mut self.client, "/api/v2/authorizations", &wanted, "to make a token")?;
        Ok(text(&made["token"]))
    }
}

/// The first user, organisation and bucket, when nobody has been there yet.
fn begin(client: &mut Client, settings: &Influxdb, admin: &Administrator) -> Result<(), PrepareError> {
    let state = read(client, "/api/v2/setup", "to say whether it is new")?;
    if state["allowed"] != true {
        return Ok(());
    }
    let wanted = json!({
        "username": admin.username, "password": admin.password, "token": admin.token,
        "org": settings.org, "bucket": settings.bucket, "retentionPeriodSeconds": 0,
    });
    create(client, "/api/v2/setup", &wanted, "its first user").map(drop)
}

fn org_id(client: &Client, settings: &Influxdb) -> Result<String, PrepareError> {
    let found = read(client, &format!("/api/v2/orgs?org={}", percent(&settings.org)), "to name its organisations")?;
    match found["orgs"][0]["id"].as_str() {
        Some(id) => Ok(id.to_owned()),
        None => Err(PrepareError::NoOrg { url: client.url().to_owned(), org: settings.org.clone() }),
    }
}

fn bucket_id(client: &mut Client, settings: &Influxdb, org_id: &str) -> Result<String, PrepareError> {
    let path = format!("/api/v2/buckets?orgID={}&name={}", percent(org_id), percent(&settings.bucket));
    let found = read(client, &path, "to name its buckets")?;
    if let Some(id) = found["buckets"][0]["id"].as_str() {
        return Ok(id.to_owned());
    }
    let wanted = json!({ "orgID": org_id, "name": settings.bucket, "retentionRules": [] });
    let made = create(client, "/api/v2/buckets", &wanted, "to make the bucket")?;
    Ok(text(&made["id"]))
}

fn read(client: &Client, path: &str, what: &'static str) -> Result<Value, PrepareError> {
    let answer = client.get(path).map_err(|error| away(client.url(), &error))?;
    // An unknown name is an empty list in some releases and 404 in others.
    if answer.code == 404 {
        return Ok(Value::Null);
    }
    parse(client, &answer, 200, what)
}

fn create(client: &mut Client, path: &str, body: &Value, what: &'static str) -> Result<Value, PrepareError> {
    let answer = client.post(path, JSON, &Body::new(body.to_string().into_bytes(), false)).map_err(|error| away(client.url(), &error))?;
    parse(client, &answer, 201, what)
}

fn parse(client: &Client, answer: &Answer, success: u16, what: &'static str) -> Result<Value, PrepareError> {
    let (url, words) = (client.url().to_owned(), answer.words());
    match answer.code {
        code if code == success => serde_json::from_str(&answer.body).map_err(|error| PrepareError::Away { url, cause: error.to_string() }),
        401 | 403 => Err(PrepareError::Stranger { url, words }),
        429 | 500..=599 => Err(PrepareError::Away { url, cause: words }),
        code => Err(PrepareError::Refused { url, what, code, words }),
    }
}

fn away(url: &str, error: &WriteError) -> PrepareError {
    PrepareError::Away { url: url.to_owned(), cause: error.to_string() }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
