//! A bare number as text, such as `21.5`; the topic says whose it is.

use common::reading::Reading;

use super::{Around, Fault, text};

pub(super) fn read(payload: &[u8], around: &Around<'_>) -> Result<Reading, Fault> {
    let text = text(payload)?.trim();
    let value = text.parse::<f64>().map_err(|_| Fault::new("not_a_number", format!("'{}' is no number", short(text))))?;
    around.reading(around.sensor(None)?, around.kind(None)?, None, value)
}

/// So much of a text as a sentence bears.
pub(super) fn short(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}
