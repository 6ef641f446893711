//! What an answer means for the points that were sent.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::writer::{KEEPS_TRYING, WriteError};

/// Longest wait that a database can ask for: a clock that is wrong must not stop the sink for a year.
const LONGEST_WAIT: Duration = Duration::from_secs(600);
/// Most characters of a database's words that are repeated; it may quote the whole of a long line.
const QUOTE: usize = 500;

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) body: String,
    pub(crate) retry_after: Option<Duration>,
}

impl Answer {
    /// The database's own words, shortened in the middle.
    pub(crate) fn words(&self) -> String {
        let json: Option<Value> = serde_json::from_str(&self.body).ok();
        let message = json.as_ref().and_then(|json| json.get("message").or_else(|| json.get("error"))?.as_str());
        // InfluxDB 3 says here which line it is and why.
        let data = json.as_ref().and_then(|json| json.get("data"));
        let first = data.and_then(|data| data.get(0).unwrap_or(data).get("error_message")?.as_str());
        let words = message.unwrap_or(&self.body).trim();
        let words = first.map_or_else(|| words.to_owned(), |first| format!("{words}: {first}"));
        let count = words.chars().count();
        if count <= QUOTE {
            return words;
        }
        let head: String = words.chars().take(QUOTE / 2).collect();
        let tail: String = words.chars().skip(count - QUOTE / 2).collect();
        format!("{head} ... {tail}")
    }

    /// Whether it is of whoever stands before the database: a page of a proxy, or of a server that expects TLS.
    fn is_of_another(&self) -> bool {
        let body = self.body.trim_start();
        body.starts_with('<') || body.starts_with("Client sent an HTTP request to an HTTPS server")
    }

    /// `Ok` for the codes in `success` only.
    ///
    /// # Errors
    /// What to do next, by the code.
    pub(crate) fn judge(&self, database: &str, url: &str, success: &[u16]) -> Result<(), WriteError> {
        let (code, words) = (self.code, self.words());
        match code {
            code if success.contains(&code) => Ok(()),
            // It says nothing of the rows, and not one of them may be thought bad for it.
            400 if self.is_of_another() => Err(WriteError::Retry {
                detail: format!(
                    "{url} answers 400 with a page that is not {database}'s ({words}); check whether the url begins with http or https{KEEPS_TRYING}"
                ),
                after: self.retry_after,
            }),
            400 | 422 => Err(WriteError::Refused { reason: "refused", detail: format!("{database} answers {code}: {words}") }),
            413 => Err(WriteError::Refused { reason: "too_large", detail: format!("{database} answers {code}: {words}") }),
            401 | 403 => Err(WriteError::Fatal(format!(
                "{database} at {url} denies the write ({code}: {words}); check the token and its rights, then start again: the position is kept"
            ))),
            404 => Err(WriteError::Fatal(format!(
                "{database} at {url} does not know where to write ({code}: {words}); check url, org and bucket, then start again: the position is kept"
            ))),
            408 | 425 | 429 | 500..=599 => Err(WriteError::Retry {
                detail: format!("{database} at {url} cannot take rows now ({code}: {words}){KEEPS_TRYING}"),
                after: self.retry_after,
            }),
            // Such as the page of a proxy that stands in for the database.
            200..=299 => Err(WriteError::Retry {
                detail: format!(
                    "{url} answers {code}, which is not {database}'s word for success; check that it is the database's address{KEEPS_TRYING}"
                ),
                after: self.retry_after,
            }),
            _ => Err(WriteError::Fatal(format!(
                "{database} at {url} answers {code}: {words}; check the url in the settings, then start again: the position is kept"
            ))),
        }
    }
}

/// Seconds, or a date.
pub(super) fn retry_after(text: &str) -> Option<Duration> {
    let wait = match text.trim().parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok()?,
        Err(_) => (DateTime::parse_from_rfc2822(text.trim()).ok()?.with_timezone(&Utc) - Utc::now()).to_std().unwrap_or_default(),
    };
    Some(wait.min(LONGEST_WAIT))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn judge(code: u16, body: &str) -> Result<(), WriteError> {
        Answer { code, body: body.into(), retry_after: None }.judge("InfluxDB", "http://db", &[204])
    }

    #[test]
    fn only_the_documented_code_is_success() {
        assert_eq!(judge(204, ""), Ok(()));
        for code in [200, 202, 408, 429, 500, 502, 503, 504] {
            assert!(matches!(judge(code, "x"), Err(WriteError::Retry { .. })), "{code}");
        }
        for code in [301, 401, 403, 404, 405, 418] {
            assert!(matches!(judge(code, "x"), Err(WriteError::Fatal(_))), "{code}");
        }
        for code in [400, 413, 422] {
            assert!(matches!(judge(code, "x"), Err(WriteError::Refused { .. })), "{code}");
        }
    }

    #[test]
    fn no_row_is_bad_because_a_server_expects_tls() {
        for body in [
            "<html>\r\n<head><title>400 The plain HTTP request was sent to HTTPS port</title>",
            "Client sent an HTTP request to an HTTPS server.\n",
        ] {
            assert!(matches!(judge(400, body), Err(WriteError::Retry { detail, .. }) if detail.contains("http or https")), "{body}");
        }
    }

    #[test]
    fn the_databases_words_are_repeated_but_not_a_whole_line() {
        let fault = judge(422, r#"{"code":"unprocessable entity","message":"field type conflict"}"#).unwrap_err();
        assert_eq!(fault.to_string(), "InfluxDB answers 422: field type conflict");
        let third =
            r#"{"error":"parsing failed for write_lp endpoint","data":{"original_line":"m","line_number":1,"error_message":"no fields"}}"#;
        assert_eq!(judge(400, third).unwrap_err().to_string(), "InfluxDB answers 400: parsing failed for write_lp endpoint: no fields");
        let long = Answer { code: 400, body: format!("begin {} end", "é".repeat(70_000)), retry_after: None }.words();
        assert!(long.len() < 2_000 && long.starts_with("begin") && long.ends_with("end"), "{long}");
    }

    #[test]
    fn a_wait_is_seconds_or_a_date() {
        assert_eq!(retry_after("7"), Some(Duration::from_secs(7)));
        assert_eq!(retry_after("1.5"), Some(Duration::from_millis(1500)));
        let soon = (Utc::now() + chrono::Duration::seconds(300)).to_rfc2822();
        assert!(retry_after(&soon).is_some_and(|wait| wait > Duration::from_secs(200) && wait <= Duration::from_secs(300)));
        assert_eq!(retry_after("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        assert_eq!(retry_after("999999999"), Some(LONGEST_WAIT));
        assert_eq!((retry_after("-1"), retry_after("soon")), (None, None));
    }
}
