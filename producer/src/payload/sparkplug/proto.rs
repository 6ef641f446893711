//! The part of Sparkplug B's payload that carries readings; field numbers are the specification's.

use prost::Message;
use prost::encoding::{DecodeContext, decode_key, skip_field};

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Payload {
    #[prost(uint64, optional, tag = "1")]
    pub(crate) timestamp: Option<u64>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) metrics: Vec<Metric>,
    #[prost(uint64, optional, tag = "3")]
    pub(crate) seq: Option<u64>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Metric {
    #[prost(string, optional, tag = "1")]
    pub(crate) name: Option<String>,
    #[prost(uint64, optional, tag = "2")]
    pub(crate) alias: Option<u64>,
    #[prost(uint64, optional, tag = "3")]
    pub(crate) timestamp: Option<u64>,
    #[prost(uint32, optional, tag = "4")]
    pub(crate) datatype: Option<u32>,
    #[prost(bool, optional, tag = "5")]
    pub(crate) is_historical: Option<bool>,
    #[prost(bool, optional, tag = "7")]
    pub(crate) is_null: Option<bool>,
    #[prost(oneof = "Value", tags = "10, 11, 12, 13, 14, 15")]
    pub(crate) value: Option<Value>,
}

/// Bytes, data sets and templates are no measurements and stay unread.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum Value {
    #[prost(uint32, tag = "10")]
    Int(u32),
    #[prost(uint64, tag = "11")]
    Long(u64),
    #[prost(float, tag = "12")]
    Float(f32),
    #[prost(double, tag = "13")]
    Double(f64),
    #[prost(bool, tag = "14")]
    Boolean(bool),
    #[prost(string, tag = "15")]
    Text(String),
}

pub(crate) const BOOLEAN: u32 = 11;

/// Whether values of this data type are numbers: integers, floats, booleans, and date and time as milliseconds.
pub(crate) fn is_numeric(datatype: u32) -> bool {
    matches!(datatype, 1..=11 | 13)
}

/// How many metrics a payload has, as far as it can be read.
pub(crate) fn count_metrics(mut payload: &[u8]) -> usize {
    let mut count = 0;
    while let Ok((tag, wire_type)) = decode_key(&mut payload) {
        count += usize::from(tag == 2);
        if skip_field(wire_type, tag, &mut payload, DecodeContext::default()).is_err() {
            break;
        }
    }
    count
}

impl Value {
    /// The number, by the metric's data type: signed ones travel as unsigned.
    pub(crate) fn number(&self, datatype: Option<u32>) -> Option<f64> {
        Some(match (self, datatype) {
            (Self::Int(bits), Some(1)) => f64::from(*bits as u8 as i8),
            (Self::Int(bits), Some(2)) => f64::from(*bits as u16 as i16),
            (Self::Int(bits), Some(3)) => f64::from(*bits as i32),
            (Self::Int(bits), Some(4)) => f64::from(*bits as i32),
            (Self::Int(number), _) => f64::from(*number),
            (Self::Long(bits), Some(4)) => *bits as i64 as f64,
            (Self::Long(number), _) => *number as f64,
            (Self::Float(number), _) => f64::from(*number),
            (Self::Double(number), _) => *number,
            (Self::Boolean(on), _) => f64::from(u8::from(*on)),
            (Self::Text(_), _) => return None,
        })
    }
}
