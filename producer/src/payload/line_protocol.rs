//! InfluxDB's line protocol: `measurement,tag=a,tag=b field=1.5,other=2i 1700000000000000000`.
//!
//! A line is a reading for each of its numeric fields. The sensor is the tag that the settings name, else what the topic says, else the
//! measurement; tags and text fields become labels.

use common::reading::Reading;
use serde_json::Value;

use super::json::{MAX_READINGS, too_many};
use super::number::short;
use super::{Around, Decoded, Fault, Piece, text, time};

/// One line, taken apart.
#[derive(Debug, Default, PartialEq)]
struct Line {
    measurement: String,
    tags: Vec<(String, String)>,
    fields: Vec<(String, Field)>,
    time: Option<i128>,
}

#[derive(Debug, PartialEq)]
enum Field {
    Number(f64),
    Text(String),
}

/// Each line for itself.
pub(super) fn read(payload: &[u8], around: &Around<'_>) -> Result<Decoded, Fault> {
    let mut decoded = Decoded::default();
    // What is over the limit is counted, so that its sender learns by how much.
    let mut count = 0;
    for line in lines(payload) {
        let found = text(line).and_then(parse).and_then(|line| readings(line, around));
        count += found.as_ref().map_or(1, Vec::len);
        if count > MAX_READINGS {
            decoded = Decoded::default();
            continue;
        }
        match found {
            Ok(readings) => decoded.readings.extend(readings),
            Err(fault) => decoded.pieces.push(Piece { value: line.into(), fault }),
        }
    }
    match count {
        0 => Err(Fault::new("empty", "the payload has no line of line protocol")),
        count if count > MAX_READINGS => Err(too_many(count)),
        _ => Ok(decoded),
    }
}

/// Lines that are not empty and no comments. A line break inside a text field belongs to the field. They are bytes: one that is no text
/// does not hold up its neighbours.
fn lines(payload: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = payload;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (mut quoted, mut escaped, mut spaces) = (false, false, 0);
        let end = rest.iter().position(|byte| {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                // A quote means something in the fields only, after the first space.
                b'"' if spaces > 0 => quoted = !quoted,
                b' ' => spaces += 1,
                b'\n' => return !quoted,
                _ => {}
            }
            false
        });
        let line = &rest[..end.unwrap_or(rest.len())];
        rest = end.map_or(&[], |end| &rest[end + 1..]);
        Some(line.trim_ascii())
    })
    .filter(|line| !line.is_empty() && !line.starts_with(b"#"))
}

fn bad(detail: impl Into<String>) -> Fault {
    Fault::new("not_line_protocol", detail)
}

fn parse(line: &str) -> Result<Line, Fault> {
    let (head, rest) = cut(line, ' ', false);
    let rest = rest.ok_or_else(|| bad(format!("'{}' has no fields", short(line))))?.trim_start();
    let (fields, time) = cut(rest, ' ', true);
    let mut parts = split(head, ',', false).into_iter();
    let mut parsed = Line { measurement: unescape(parts.next().unwrap_or_default()), ..Line::default() };
    if parsed.measurement.is_empty() {
        return Err(bad(format!("'{}' has no measurement", short(line))));
    }
    for tag in parts {
        let (name, value) = pair(tag, "tag")?;
        parsed.tags.push((name, unescape(value)));
    }
    for field in split(fields, ',', true) {
        let (name, value) = pair(field, "field")?;
        parsed.fields.push((name, value_of(value)?));
    }
    parsed.time = match time.map(str::trim).filter(|time| !time.is_empty()) {
        Some(time) => Some(time.parse().map_err(|_| Fault::new("no_event_time", format!("'{}' is no timestamp", short(time))))?),
        None => None,
    };
    Ok(parsed)
}

/// `name=value`; the name without its escapes.
fn pair<'a>(text: &'a str, what: &str) -> Result<(String, &'a str), Fault> {
    let (name, value) = cut(text, '=', false);
    match value {
        Some(value) if !name.is_empty() && !value.is_empty() => Ok((unescape(name), value)),
        _ => Err(bad(format!("'{}' is no {what}; write name=value", short(text)))),
    }
}

fn value_of(text: &str) -> Result<Field, Fault> {
    let wrong = || Fault::new("wrong_type", format!("'{}' is no value of line protocol", short(text)));
    if let Some(quoted) = text.strip_prefix('"') {
        let inner = quoted.strip_suffix('"').filter(|_| text.len() > 1).ok_or_else(wrong)?;
        return Ok(Field::Text(inner.replace("\\\"", "\"").replace("\\\\", "\\")));
    }
    let number = match text {
        "t" | "T" | "true" | "True" | "TRUE" => 1.0,
        "f" | "F" | "false" | "False" | "FALSE" => 0.0,
        _ => match text.strip_suffix('i') {
            Some(whole) => whole.parse::<i64>().map_err(|_| wrong())? as f64,
            None => match text.strip_suffix('u') {
                Some(whole) => whole.parse::<u64>().map_err(|_| wrong())? as f64,
                None => text.parse().map_err(|_| wrong())?,
            },
        },
    };
    Ok(Field::Number(number))
}

/// The text before the first bare `separator`, and what follows it. Inside quotes, where they count, nothing is bare.
fn cut(text: &str, separator: char, quotes: bool) -> (&str, Option<&str>) {
    let (mut quoted, mut escaped) = (false, false);
    for (at, letter) in text.char_indices() {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' if quotes => quoted = !quoted,
            _ if letter == separator && !quoted => return (&text[..at], Some(&text[at + letter.len_utf8()..])),
            _ => {}
        }
    }
    (text, None)
}

fn split(text: &str, separator: char, quotes: bool) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = Some(text);
    while let Some(text) = rest {
        let (piece, after) = cut(text, separator, quotes);
        pieces.push(piece);
        rest = after;
    }
    pieces
}

/// A backslash before a comma, an equals sign, a space or a backslash is not part of the name.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match (letter, letters.peek()) {
            ('\\', Some(next @ (',' | '=' | ' ' | '\\'))) => {
                out.push(*next);
                letters.next();
            }
            _ => out.push(letter),
        }
    }
    out
}

fn readings(line: Line, around: &Around<'_>) -> Result<Vec<Reading>, Fault> {
    let ts = line.time.map(|time| time::millis(time, around.unit)).transpose()?;
    let own = line.tags.iter().find(|(name, _)| name == around.sensor_tag).map(|(_, value)| value.as_str());
    let device = around.sensor(own.or(around.parts.sensor_id).or(Some(&line.measurement)))?;
    let numbers: Vec<(&str, f64)> = line
        .fields
        .iter()
        .filter_map(|(name, field)| match field {
            Field::Number(number) => Some((name.as_str(), *number)),
            Field::Text(_) => None,
        })
        .collect();
    if numbers.is_empty() {
        return Err(Fault::new("missing", "the line has no numeric field"));
    }
    let labels = labels(&line, around.sensor_tag);
    let several = numbers.len() > 1;
    if numbers.len() > MAX_READINGS {
        return Err(too_many(numbers.len()));
    }
    super::check_repeated(&labels, numbers.len())?;
    numbers
        .into_iter()
        .map(|(name, number)| {
            let sensor_id = if several { around.one_of_several(&device, name)? } else { device.clone() };
            // `temperature,sensor_id=a value=21.5`: the measurement says what it is.
            let kind = if name == "value" { line.measurement.as_str() } else { name };
            let mut reading = around.reading(sensor_id, around.kind(Some(kind))?, ts, number)?;
            reading.labels.retain(|(label, _)| !labels.iter().any(|(own, _)| own == label));
            reading.labels.extend(labels.iter().cloned());
            Ok(reading)
        })
        .collect()
}

/// Tags and text fields; one that has the name of a reading's own column gets an underscore.
fn labels(line: &Line, sensor_tag: &str) -> Vec<(String, Value)> {
    let texts = line.fields.iter().filter_map(|(name, field)| match field {
        Field::Text(text) => Some((name, text)),
        Field::Number(_) => None,
    });
    let tags = line.tags.iter().filter(|(name, _)| name != sensor_tag).map(|(name, value)| (name, value));
    let free = |name: &String| if Reading::FIELDS.contains(&name.as_str()) { format!("{name}_") } else { name.clone() };
    let mut labels: Vec<(String, Value)> = Vec::new();
    // Of a name that stands twice the last value counts, as in JSON.
    for (name, value) in tags.chain(texts) {
        let (name, value) = (free(name), Value::from(value.as_str()));
        match labels.iter_mut().find(|(other, _)| *other == name) {
            Some(label) => label.1 = value,
            None => labels.push((name, value)),
        }
    }
    labels
}
