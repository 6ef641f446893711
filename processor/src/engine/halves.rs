//! Finding the rows that fail among many that do not.

use datafusion_common::Result;

/// Calls `evaluate(start, length)` for all of `length` rows; where that fails, for their halves, down to the single rows that fail.
///
/// Gives what succeeded, in the order of the rows, and the rows that failed with their errors. What succeeded is not evaluated again: AND
/// and OR look at other rows to decide whether to evaluate their right side, so rows that are fine apart may fail together.
pub(crate) fn in_halves<T>(length: usize, mut evaluate: impl FnMut(usize, usize) -> Result<T>) -> (Vec<T>, Vec<(usize, String)>) {
    let (mut parts, mut broken) = (Vec::new(), Vec::new());
    let mut open = vec![(0, length)];
    while let Some((start, length)) = open.pop() {
        match evaluate(start, length) {
            Ok(part) => parts.push(part),
            Err(fault) if length <= 1 => broken.push((start, fault.strip_backtrace())),
            Err(_) => {
                // The later half lies deeper on the stack: parts come in the order of the rows.
                open.push((start + length / 2, length - length / 2));
                open.push((start, length / 2));
            }
        }
    }
    (parts, broken)
}
