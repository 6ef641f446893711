//! Walks a request against its shape before the codec sees it.
//!
//! The codec reserves room for as many elements as an array claims to have. A hostile length would so take gigabytes with a
//! few bytes, and end the process. Here every element is passed over once, without keeping anything, so that a claim is
//! known to be true before it is believed.

/// Elements of all arrays of one request together. Each costs memory when it is decoded.
const MAX_ELEMENTS: usize = 100_000;

/// A field's type.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    /// Fixed number of bytes.
    Fixed(usize),
    Str,
    Blob,
    Array(&'static [Field]),
}

/// A field and the versions (first, last) that have it.
pub(crate) type Field = (Kind, i16, i16);

/// A request's fields and the first version with compact lengths and tagged fields.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) flexible: i16,
    pub(crate) fields: &'static [Field],
    /// Tags below this number the codec reads by itself, without regard to the length that the client gives them: what it finds
    /// behind such a field is not what was passed over here. Only nodes that follow a leader send them, and nobody follows this one.
    pub(crate) codec_tags: u32,
}

/// A request is not what its version says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a field is cut short, or claims a length that is not there")]
pub(crate) struct ShapeFault;

struct Walker<'a> {
    rest: &'a [u8],
    version: i16,
    compact: bool,
    codec_tags: u32,
    elements: usize,
}

impl Shape {
    /// Checks the body of a request; returns how many bytes are left behind it.
    pub(crate) fn check(&self, body: &[u8], version: i16) -> Result<usize, ShapeFault> {
        let compact = version >= self.flexible;
        let mut walker = Walker { rest: body, version, compact, codec_tags: self.codec_tags, elements: 0 };
        walker.structure(self.fields)?;
        Ok(walker.rest.len())
    }
}

impl Walker<'_> {
    fn structure(&mut self, fields: &[Field]) -> Result<(), ShapeFault> {
        for (kind, first, last) in fields {
            if (*first..=*last).contains(&self.version) {
                self.field(kind)?;
            }
        }
        if self.compact { self.tagged_fields() } else { Ok(()) }
    }

    fn field(&mut self, kind: &Kind) -> Result<(), ShapeFault> {
        match kind {
            Kind::Fixed(bytes) => self.skip(*bytes),
            Kind::Str => {
                let length = if self.compact { self.compact_length()? } else { i64::from(self.i16()?) };
                self.skip_claimed(length)
            }
            Kind::Blob => {
                let length = self.length()?;
                self.skip_claimed(length)
            }
            Kind::Array(fields) => self.array(fields),
        }
    }

    fn array(&mut self, fields: &[Field]) -> Result<(), ShapeFault> {
        let count = self.length()?;
        if count <= 0 {
            return if count >= -1 { Ok(()) } else { Err(ShapeFault) };
        }
        let count = usize::try_from(count).map_err(|_| ShapeFault)?;
        self.elements = self.elements.saturating_add(count);
        if self.elements > MAX_ELEMENTS {
            return Err(ShapeFault);
        }
        for _ in 0..count {
            match fields {
                // An array of plain values has no tagged fields in its elements.
                [(kind, _, _)] if !matches!(kind, Kind::Array(_)) && is_plain(fields) => self.field(kind)?,
                fields => self.structure(fields)?,
            }
        }
        Ok(())
    }

    fn tagged_fields(&mut self) -> Result<(), ShapeFault> {
        for _ in 0..self.varint()? {
            if self.varint()? < self.codec_tags {
                return Err(ShapeFault);
            }
            let length = self.varint()?;
            self.skip(length as usize)?;
            self.elements += 1;
            if self.elements > MAX_ELEMENTS {
                return Err(ShapeFault);
            }
        }
        Ok(())
    }

    fn length(&mut self) -> Result<i64, ShapeFault> {
        if self.compact { self.compact_length() } else { Ok(i64::from(self.i32()?)) }
    }

    fn compact_length(&mut self) -> Result<i64, ShapeFault> {
        Ok(i64::from(self.varint()?) - 1)
    }

    fn skip_claimed(&mut self, length: i64) -> Result<(), ShapeFault> {
        match length {
            -1 => Ok(()),
            length => self.skip(usize::try_from(length).map_err(|_| ShapeFault)?),
        }
    }

    fn skip(&mut self, bytes: usize) -> Result<(), ShapeFault> {
        self.rest = self.rest.get(bytes..).ok_or(ShapeFault)?;
        Ok(())
    }

    fn i16(&mut self) -> Result<i16, ShapeFault> {
        let (&bytes, rest) = self.rest.split_first_chunk().ok_or(ShapeFault)?;
        self.rest = rest;
        Ok(i16::from_be_bytes(bytes))
    }

    fn i32(&mut self) -> Result<i32, ShapeFault> {
        let (&bytes, rest) = self.rest.split_first_chunk().ok_or(ShapeFault)?;
        self.rest = rest;
        Ok(i32::from_be_bytes(bytes))
    }

    fn varint(&mut self) -> Result<u32, ShapeFault> {
        let mut value = 0_u64;
        for shift in (0..35).step_by(7) {
            let (&byte, rest) = self.rest.split_first().ok_or(ShapeFault)?;
            self.rest = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(value).map_err(|_| ShapeFault);
            }
        }
        Err(ShapeFault)
    }
}

/// Marks an array of plain values: its only field has the versions (-1, -1), which no structure's field has.
fn is_plain(fields: &[Field]) -> bool {
    matches!(fields, [(_, -1, -1)])
}

#[cfg(test)]
pub(crate) mod fixture {
    //! The smallest request of a shape: one element in each array, short strings, zeros.
    use super::*;

    pub(crate) fn request(shape: &Shape, version: i16, text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        structure(&mut out, shape.fields, version, version >= shape.flexible, text);
        out
    }

    fn structure(out: &mut Vec<u8>, fields: &[Field], version: i16, compact: bool, text: &str) {
        for (kind, first, last) in fields {
            if (*first..=*last).contains(&version) {
                field(out, kind, version, compact, text);
            }
        }
        if compact {
            out.push(0);
        }
    }

    fn field(out: &mut Vec<u8>, kind: &Kind, version: i16, compact: bool, text: &str) {
        match kind {
            Kind::Fixed(bytes) => out.extend(std::iter::repeat_n(0, *bytes)),
            Kind::Str if compact => out.push(text.len() as u8 + 1),
            Kind::Str => out.extend((text.len() as i16).to_be_bytes()),
            Kind::Blob if compact => out.push(1),
            Kind::Blob => out.extend(0_i32.to_be_bytes()),
            Kind::Array(_) if compact => out.push(2),
            Kind::Array(_) => out.extend(1_i32.to_be_bytes()),
        }
        match kind {
            Kind::Str => out.extend(text.as_bytes()),
            Kind::Array(fields) if is_plain(fields) => field(out, &fields[0].0, version, compact, text),
            Kind::Array(fields) => structure(out, fields, version, compact, text),
            Kind::Fixed(_) | Kind::Blob => {}
        }
    }
}
