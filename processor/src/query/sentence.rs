//! What DataFusion says about a query, as one sentence for its author.

use datafusion_common::DataFusionError;

/// Names of its own layers, which say nothing to an author.
const LAYERS: [&str; 7] = [
    "type_coercion",
    "caused by",
    "Error during planning: ",
    "Schema error: ",
    "SQL error: ",
    "Execution error: ",
    "This feature is not implemented: ",
];

/// Arrow's names of types (left) and those that a query file writes.
const TYPES: [(&str, &str); 9] = [
    ("LargeUtf8", "STRING"),
    ("Utf8View", "STRING"),
    ("Utf8", "STRING"),
    ("Float64", "DOUBLE"),
    ("Float32", "FLOAT"),
    ("Int64", "BIGINT"),
    ("Int32", "INT"),
    ("Boolean", "BOOLEAN"),
    ("Date32", "DATE"),
];

/// DataFusion's message without its internal layers.
pub(crate) fn sentence(error: &DataFusionError) -> String {
    let text = error.strip_backtrace();
    let text = text.lines().map(str::trim).collect::<Vec<_>>().join(" ");
    let bare = without_layers(&text);
    if let Some((said, call)) = bare.split_once("No function matches the given name and argument types '") {
        return of_call(said, call);
    }
    if let Some(rest) = bare.strip_prefix("Invalid function '")
        && let Some((name, _)) = rest.split_once('\'')
    {
        return format!("there is no function {name}(); write it with others, or compute it where you read");
    }
    if bare.starts_with("Support for '") && bare.ends_with("is not implemented") {
        return format!("{}; cast the argument, such as CAST(x AS STRING)", spelled(bare));
    }
    bare.to_owned()
}

fn without_layers(text: &str) -> &str {
    let mut rest = text;
    while let Some(inner) = LAYERS.iter().find_map(|layer| rest.trim_start().strip_prefix(layer)) {
        rest = inner;
    }
    rest.trim_start()
}

/// `call` is the call and what follows it, `said` what stands before: our own functions say there what to write.
fn of_call(said: &str, call: &str) -> String {
    if let Some((_, own)) = said.split_once("user-defined coercion failed with: ") {
        return without_layers(own).trim_end().trim_end_matches('.').to_owned();
    }
    let (call, rest) = call.split_once('\'').unwrap_or((call, ""));
    let takes = match rest.split_once("Candidate functions: ") {
        Some((_, known)) if !known.contains("UserDefined") && !known.contains("Any") => format!("; there is {}", spelled(known.trim())),
        _ => String::new(),
    };
    format!("there is no {}{takes}; cast the arguments, such as CAST(x AS DOUBLE), or leave one out", spelled(call))
}

fn spelled(text: &str) -> String {
    TYPES.iter().fold(text.to_owned(), |text, (arrow, own)| text.replace(arrow, own))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_told_as_they_are_written() {
        let plan = |text: &str| sentence(&DataFusionError::Plan(text.to_owned()));
        let tail = "No function matches the given name and argument types 'stddev(Utf8)'. You might need to add explicit type casts.\n\tCandidate \
                    functions:\n\tstddev(Float64)";
        let said =
            "Failed to coerce arguments to satisfy a call to 'stddev' function: coercion from Utf8 to the signature Exact(Float64) failed";
        let advice = "cast the arguments, such as CAST(x AS DOUBLE), or leave one out";
        assert_eq!(plan(&format!("{said} {tail}")), format!("there is no stddev(STRING); there is stddev(DOUBLE); {advice}"));
        let own = "Execution error: Function 'substring' user-defined coercion failed with: Error during planning: substring takes text, not \
                   Float64: write CAST(x AS STRING). No function matches the given name and argument types 'substring(Float64, Int64)'. You";
        assert_eq!(plan(own), "substring takes text, not Float64: write CAST(x AS STRING)");
        assert!(plan("Invalid function 'nosuch'.\nDid you mean 'cosh'?").starts_with("there is no function nosuch();"));
    }
}
