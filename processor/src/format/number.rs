//! A JSON number, read once: the digits are gathered while its grammar is checked, so that most conversions are one
//! multiplication. What does not fit into that goes back to the text; no conversion is ever off by a bit.

use super::json::Fault;

/// Most digits that always fit into the mantissa: 10^19 - 1 < 2^64.
const EXACT_DIGITS: usize = 19;

/// A number as it stands in the record: `±mantissa * 10^exponent`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Number<'a> {
    pub(super) raw: &'a str,
    mantissa: u64,
    exponent: i32,
    negative: bool,
    /// Written without fraction and exponent, which is how Spark, too, tells an integer: `17.0` is none.
    pub(super) integral: bool,
    /// The mantissa and the exponent are complete; else only `raw` is.
    exact: bool,
}

/// What becomes of the digits below the last one that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rounding {
    /// Towards minus infinity.
    Floor,
    /// To the nearest, halves away from zero, as Spark's decimals.
    HalfUp,
}

/// Reads the number that starts at `at`; returns it with the position behind it. Always inlined: a number is several words, and the caller
/// puts them where they stay.
#[inline(always)]
pub(super) fn scan(text: &str, at: usize) -> Result<(Number<'_>, usize), Fault> {
    let bytes = text.as_bytes();
    let negative = bytes.get(at) == Some(&b'-');
    let first = at + usize::from(negative);
    let (mut mantissa, mut exponent) = (0, 0);
    // A zero stands alone: "01" ends behind the zero, and the caller finds a digit where none can be.
    let mut end = if bytes.get(first) == Some(&b'0') { first + 1 } else { digits(bytes, first, &mut mantissa) };
    if end == first {
        return Err(Fault::new(first, if negative { "a digit" } else { "a value" }));
    }
    let mut written = end - first;
    let mut exact = true;
    let whole = end;
    if bytes.get(end) == Some(&b'.') {
        let start = end + 1;
        end = some_digits(bytes, start, &mut mantissa)?;
        written += end - start;
        exponent = -i32::try_from(end - start).unwrap_or(i32::MAX);
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let power;
        (power, end) = scan_exponent(bytes, end + 1)?;
        exact = power.is_some();
        exponent = exponent.saturating_add(power.unwrap_or(0));
    }
    let raw = text.get(at..end).unwrap_or_default();
    let number = Number { raw, mantissa, exponent, negative, integral: end == whole, exact: exact && written <= EXACT_DIGITS };
    Ok((number, end))
}

/// The power of ten behind an `e`; `None` when it is so large that only the text can tell.
#[cold]
fn scan_exponent(bytes: &[u8], at: usize) -> Result<(Option<i32>, usize), Fault> {
    let negative = bytes.get(at) == Some(&b'-');
    let start = at + usize::from(matches!(bytes.get(at), Some(b'-' | b'+')));
    let mut power = 0;
    let end = some_digits(bytes, start, &mut power)?;
    let power = if end - start <= 6 { i32::try_from(power).ok() } else { None };
    Ok((power.map(|power| if negative { -power } else { power }), end))
}

/// Appends the digits from `at` on to `value` (which wraps when they are too many); returns the position behind them.
#[inline]
fn digits(bytes: &[u8], mut at: usize, value: &mut u64) -> usize {
    while let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk()) {
        let (count, number) = leading_digits(*chunk);
        *value = value.wrapping_mul(SHIFTS[count]).wrapping_add(number);
        at += count;
        if count < chunk.len() {
            return at;
        }
    }
    while let Some(digit) = bytes.get(at).map(|byte| byte.wrapping_sub(b'0')).filter(|digit| *digit < 10) {
        *value = value.wrapping_mul(10).wrapping_add(u64::from(digit));
        at += 1;
    }
    at
}

/// By how much a number grows when so many digits follow it.
const SHIFTS: [u64; 9] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000];

/// How many digits the bytes begin with, and the number that they are; all bytes are looked at together, and no digit waits for the one
/// before it. After Lemire, "Quickly parsing eight digits", with other bytes behind the digits.
#[inline]
fn leading_digits(chunk: [u8; 8]) -> (usize, u64) {
    let bytes = u64::from_le_bytes(chunk) ^ 0x3030_3030_3030_3030;
    // The high bit of each byte above 9. What an addition carries over reaches bytes behind the first of them only.
    let others = (bytes.wrapping_add(0x7676_7676_7676_7676) | bytes) & 0x8080_8080_8080_8080;
    let count = others.trailing_zeros() as usize / 8;
    if count == 0 {
        return (0, 0);
    }
    // The digits last, zeros before them; then pairs of them, then all four pairs.
    let digits = bytes << (64 - 8 * count);
    let pairs = digits.wrapping_mul(10).wrapping_add(digits >> 8);
    let (even, odd) = (pairs & 0x0000_00FF_0000_00FF, (pairs >> 16) & 0x0000_00FF_0000_00FF);
    let number = even.wrapping_mul(100 + (1_000_000 << 32)).wrapping_add(odd.wrapping_mul(1 + (10_000 << 32))) >> 32;
    (count, number)
}

#[inline]
fn some_digits(bytes: &[u8], at: usize, value: &mut u64) -> Result<usize, Fault> {
    let end = digits(bytes, at, value);
    if end == at { Err(Fault::new(at, "a digit")) } else { Ok(end) }
}

/// The powers of ten that a double holds exactly.
const POWERS: [f64; 23] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22];

impl Number<'_> {
    /// A number that is written as an integer and fits.
    #[inline]
    pub(super) fn to_i64(self) -> Option<i64> {
        if !(self.integral && self.exact) {
            None
        } else if self.negative {
            0_i64.checked_sub_unsigned(self.mantissa)
        } else {
            i64::try_from(self.mantissa).ok()
        }
    }

    /// The nearest double; `None` when the number is beyond the largest.
    #[inline]
    pub(super) fn to_f64(self) -> Option<f64> {
        // Both operands are exact here, so that the one operation rounds once, which is what correct rounding is (Clinger).
        let power = POWERS.get(self.exponent.unsigned_abs() as usize);
        if let (true, Some(power)) = (self.exact && self.mantissa <= 1 << 53, power) {
            let magnitude = self.mantissa as f64;
            let magnitude = if self.exponent < 0 { magnitude / power } else { magnitude * power };
            return Some(if self.negative { -magnitude } else { magnitude });
        }
        self.raw.parse().ok().filter(|value: &f64| value.is_finite())
    }

    /// The nearest float; not by way of the double, which would round twice.
    pub(super) fn to_f32(self) -> Option<f32> {
        self.raw.parse().ok().filter(|value: &f32| value.is_finite())
    }

    /// The number times `10^scale` as an integer; `None` when that is beyond an `i128`.
    pub(super) fn scaled(self, scale: i8, rounding: Rounding) -> Option<i128> {
        let unsigned = self.raw.trim_start_matches('-');
        let (digits, power) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let mut digits = whole.bytes().chain(fraction.bytes()).map(|byte| byte - b'0').skip_while(|digit| *digit == 0).peekable();
        if digits.peek().is_none() {
            return Some(0);
        }
        // How many of the written digits stand before the point once it has moved.
        let leading = whole.bytes().chain(fraction.bytes()).take_while(|byte| *byte == b'0').count();
        let kept = i64::try_from(whole.len()).ok()? - i64::try_from(leading).ok()?;
        let kept = kept.saturating_add(saturating_power(power)).saturating_add(i64::from(scale));
        let mut value: i128 = 0;
        for _ in 0..kept {
            value = value.checked_mul(10)?.checked_add(i128::from(digits.next().unwrap_or(0)))?;
        }
        // When the point moved to the left of all digits, the first that is dropped is a zero that nobody wrote.
        let half = kept >= 0 && digits.peek().is_some_and(|digit| *digit >= 5);
        let up = match rounding {
            Rounding::Floor => self.negative && digits.any(|digit| digit > 0),
            Rounding::HalfUp => half,
        };
        let value = value.checked_add(i128::from(up))?;
        Some(if self.negative { -value } else { value })
    }
}

/// An exponent of any length; beyond the range of an `i64` the exact figure no longer matters.
fn saturating_power(text: &str) -> i64 {
    text.parse().unwrap_or(if text.starts_with('-') { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn number(text: &str) -> Number<'_> {
        let (number, end) = scan(text, 0).unwrap();
        assert_eq!(end, text.len(), "{text}");
        number
    }

    #[test]
    fn doubles_are_correctly_rounded() {
        for text in [
            "0",
            "-0",
            "0.0",
            "21.5",
            "-273.15",
            "2.2250738585072011e-308",
            "2.2250738585072014e-308",
            "4.9e-324",
            "2e-324",
            "9007199254740993",
            "9007199254740992",
            "9007199254740993.0",
            "1.7976931348623157e308",
            "123456789012345678901234567890",
            "1e22",
            "1e23",
            "8.5e-23",
            "0.1",
            "0.30000000000000004",
            "6.0221407600000000000000e23",
            "5e-0",
            "1E+2",
            "0e999999999",
            "1e-99999999999",
            "9355950000000000000.00000000000000000000000000000000001844674407370955",
        ] {
            let wanted: f64 = text.parse().unwrap();
            assert_eq!(number(text).to_f64().map(f64::to_bits), Some(wanted.to_bits()), "{text}");
        }
    }

    #[test]
    fn beyond_the_largest_double_is_no_value() {
        for text in ["1e400", "-1e400", "1.7976931348623159e308", "1e99999999999"] {
            assert_eq!(number(text).to_f64(), None, "{text}");
        }
        assert_eq!(number("1e39").to_f32(), None);
        // Rounded by way of the double it would be 1.0000001788139343.
        assert_eq!(number("1.00000017881393432617187499").to_f32(), Some(1.000_000_1));
    }

    #[test]
    fn digits_end_at_any_byte_and_any_place() {
        let written = "90817263549081726354";
        for count in 0..=written.len() {
            for end in 0..=u8::MAX {
                if end.is_ascii_digit() {
                    continue;
                }
                for behind in [&b""[..], b"7", b"\xff\xff\xff\xff\xff\xff\xff\xff", b"00000000"] {
                    let bytes = [&written.as_bytes()[..count], &[end], behind].concat();
                    let wanted =
                        written[..count].bytes().fold(0_u64, |value, byte| value.wrapping_mul(10).wrapping_add(u64::from(byte - b'0')));
                    let mut value = 0;
                    assert_eq!((digits(&bytes, 0, &mut value), value), (count, wanted), "{bytes:?}");
                }
            }
        }
    }

    #[test]
    fn integers_are_written_as_integers() {
        assert_eq!(number("-9223372036854775808").to_i64(), Some(i64::MIN));
        assert_eq!(number("9223372036854775807").to_i64(), Some(i64::MAX));
        for text in ["9223372036854775808", "-9223372036854775809", "17.0", "1e2", "18446744073709551616"] {
            assert_eq!(number(text).to_i64(), None, "{text}");
        }
    }

    #[test]
    fn scaled_keeps_every_digit() {
        use Rounding::{Floor, HalfUp};
        for (text, scale, rounding, wanted) in [
            ("1700000000123.99999999999999999999", 0, Floor, Some(1_700_000_000_123)),
            ("-0.001", 0, Floor, Some(-1)),
            ("-5.0", 0, Floor, Some(-5)),
            ("1.7e12", 0, Floor, Some(1_700_000_000_000)),
            ("1e-400", 0, Floor, Some(0)),
            ("-1e-400", 0, Floor, Some(-1)),
            ("0e99999999999999999999", 0, Floor, Some(0)),
            ("1e99999999999999999999", 0, Floor, None),
            ("12.345", 2, HalfUp, Some(1235)),
            ("-12.345", 2, HalfUp, Some(-1235)),
            ("12.3449999999", 2, HalfUp, Some(1234)),
            ("0.0049", 2, HalfUp, Some(0)),
            ("0.005", 2, HalfUp, Some(1)),
            ("0.05e-1", 2, HalfUp, Some(1)),
            ("9e-4", 2, HalfUp, Some(0)),
            ("99999999999999999999999999999999999999", 0, HalfUp, Some(10_i128.pow(38) - 1)),
        ] {
            assert_eq!(number(text).scaled(scale, rounding), wanted, "{text}");
        }
    }

    #[test]
    fn the_grammar_is_that_of_json() {
        for text in ["", "-", "+1", ".5", "1.", "1.e2", "1e", "1e+", "--1", "NaN", "-Infinity"] {
            assert!(scan(text, 0).is_err(), "{text}");
        }
        assert_eq!(scan("01", 0).unwrap().1, 1);
    }
}
