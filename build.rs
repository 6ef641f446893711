//! Compresses the charting library of the page, plotly.js, at build time: the program holds it in the form in which browsers take it, a
//! third of its size. It comes with the crate `plotly`, so that neither the build nor the browser fetches it.

use std::error::Error;
use std::io::Write as _;
use std::path::PathBuf;

use flate2::{Compression, GzBuilder};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    let sources = plotly::Plot::offline_js_sources();
    let source = library(&sources).ok_or("the crate plotly brings plotly.js along in another form than before; see build.rs")?;
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("OUT_DIR is not set; cargo sets it")?);
    // No time and no name in it: the same source gives the same program.
    let mut encoder = GzBuilder::new().write(Vec::new(), Compression::best());
    encoder.write_all(source.as_bytes())?;
    std::fs::write(out.join("plotly.js.gz"), encoder.finish()?)?;
    Ok(())
}

/// Two script elements: plotly.js, and MathJax, which a page without formulas does not need.
fn library(sources: &str) -> Option<&str> {
    let begin = sources.find('>')? + 1;
    let end = sources.find("</script>\n")?;
    let source = sources.get(begin..end)?;
    source.contains("plotly.js v").then_some(source)
}
