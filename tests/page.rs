//! The page in headless Chromium, as a person sees and clicks it.
//!
//! `TIDEMARK_TEST_SHOTS=DIR` keeps the screenshots there.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod harness;

use std::path::PathBuf;
use std::time::Duration;

use harness::appliance::Appliance;
use harness::browser::{Browser, chromium};
use harness::wait::wait_until;

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn a_person_looks_at_the_page_and_clicks() {
    let Some(program) = chromium() else {
        harness::skipped("a_person_looks_at_the_page_and_clicks", "Chromium is missing");
        return;
    };
    let dir = tempfile::Builder::new().prefix("tidemark-test-").tempdir().unwrap();
    let shots = std::env::var_os("TIDEMARK_TEST_SHOTS").map_or_else(|| dir.path().join("shots"), PathBuf::from);
    std::fs::create_dir_all(&shots).unwrap();
    let mut appliance = Appliance::start(dir.path(), &["--sensors", "5", "--rate", "200"]);
    let mut browser = Browser::start(program, 1280, 900);
    browser.open(&format!("http://{}/", appliance.page));
    wait_until("the name on the page", LIMIT, || browser.text().contains("Tidemark"));
    browser.screenshot(&shots.join("page.png"));
    assert!(browser.faults().is_empty(), "{:#?}", browser.faults());
    appliance.stop();
}
