//! The charting library plotly.js. It comes with the crate `plotly`, so that neither the build nor the browser fetches it.

/// The library's source, or `None` when the crate has changed the form in which it brings it along.
pub(super) fn source() -> Option<String> {
    // Two script elements: plotly.js, and MathJax, which a page without formulas does not need.
    let sources = ::plotly::Plot::offline_js_sources();
    let begin = sources.find('>')? + 1;
    let end = sources.find("</script>\n")?;
    let source = sources.get(begin..end)?;
    source.contains("plotly.js v").then(|| source.to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn it_is_plotly_as_a_whole_and_only_that() {
        let source = source().unwrap();
        assert!(source.len() > 1_000_000);
        assert!(source.starts_with("/**") && source.trim_end().ends_with(';'), "{}", &source[source.len() - 50..]);
        assert!(!source.contains("MathJax.loader"));
    }
}
