//! Splits a CSV line into its fields (RFC 4180, but a row is a line: quotes cannot hold a line break).

use std::ops::Range;

/// The fields of one line; reused from line to line so that a row costs no allocation.
#[derive(Debug, Default)]
pub(super) struct Fields {
    ends: Vec<Range<usize>>,
    /// Fields that had doubled quotes, without them; they are rare.
    unquoted: String,
    /// Whether a range is one of `unquoted`.
    rewritten: Vec<bool>,
}

impl Fields {
    /// Splits `line`, which must be passed to [`Fields::get`] again. Spaces around a field are not part of it.
    ///
    /// # Errors
    /// A sentence when the quotes do not match.
    pub(super) fn split(&mut self, line: &str) -> Result<(), &'static str> {
        self.ends.clear();
        self.rewritten.clear();
        self.unquoted.clear();
        let mut start = 0;
        loop {
            start += spaces(&line[start..]);
            let end = if line[start..].starts_with('"') { self.quoted(line, start)? } else { self.plain(line, start) };
            match line.as_bytes().get(end) {
                Some(_comma) => start = end + 1,
                None => return Ok(()),
            }
        }
    }

    fn plain(&mut self, line: &str, start: usize) -> usize {
        let end = line[start..].find(',').map_or(line.len(), |length| start + length);
        self.ends.push(start..start + line[start..end].trim_end().len());
        self.rewritten.push(false);
        end
    }

    /// Takes the field whose opening quote is at `start`; returns where its comma, or the end, is.
    fn quoted(&mut self, line: &str, start: usize) -> Result<usize, &'static str> {
        let bytes = line.as_bytes();
        let (from, mut at, mut doubled) = (start + 1, start + 1, false);
        loop {
            at += line[at..].find('"').ok_or("a quote is not closed on its line")?;
            if bytes.get(at + 1) != Some(&b'"') {
                break;
            }
            doubled = true;
            at += 2;
        }
        if doubled {
            let begin = self.unquoted.len();
            self.unquoted.push_str(&line[from..at].replace("\"\"", "\""));
            self.ends.push(begin..self.unquoted.len());
        } else {
            self.ends.push(from..at);
        }
        self.rewritten.push(doubled);
        let end = at + 1 + spaces(&line[at + 1..]);
        match bytes.get(end) {
            None | Some(b',') => Ok(end),
            Some(_) => Err("text follows a closing quote"),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The field at `index`; empty when there is none.
    pub(super) fn get<'a>(&'a self, line: &'a str, index: usize) -> &'a str {
        match (self.ends.get(index), self.rewritten.get(index)) {
            (Some(range), Some(true)) => &self.unquoted[range.clone()],
            (Some(range), _) => &line[range.clone()],
            _ => "",
        }
    }
}

fn spaces(text: &str) -> usize {
    text.len() - text.trim_start().len()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn split(line: &str) -> Result<Vec<String>, &'static str> {
        let mut fields = Fields::default();
        fields.split("\"left\"\"over\",x")?;
        fields.split(line)?;
        Ok((0..fields.len()).map(|index| fields.get(line, index).to_owned()).collect())
    }

    #[test]
    fn plain_and_quoted_fields() {
        assert_eq!(split("a,b,c").unwrap(), ["a", "b", "c"]);
        assert_eq!(split(" a , b\t,c d ").unwrap(), ["a", "b", "c d"]);
        assert_eq!(split(r#""a,b","c ""d""", "e" ,"#).unwrap(), ["a,b", "c \"d\"", "e", ""]);
        assert_eq!(split(r#""""""#).unwrap(), ["\""]);
        assert_eq!(split("").unwrap(), [""]);
        assert_eq!(split(",").unwrap(), ["", ""]);
        assert_eq!(split("a\u{3000},ä").unwrap(), ["a", "ä"]);
    }

    #[test]
    fn quotes_must_match() {
        assert!(split("\"a,b").unwrap_err().contains("not closed"));
        assert!(split("\"a\"\"").unwrap_err().contains("not closed"));
        assert!(split("\"a\"b,c").unwrap_err().contains("follows"));
    }
}
