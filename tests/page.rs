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
/// Charts that are there to be seen.
const DRAWN: &str = "#panels .panel:has(svg.main-svg)";

/// A page that a person has just opened.
struct Visit {
    browser: Browser,
    appliance: Appliance,
    shots: PathBuf,
    _dir: tempfile::TempDir,
}

impl Visit {
    fn start(test: &str, arguments: &[&str]) -> Option<Self> {
        let Some(program) = chromium() else {
            harness::skipped(test, "Chromium is missing");
            return None;
        };
        let dir = tempfile::Builder::new().prefix("tidemark-test-").tempdir().unwrap();
        let shots = std::env::var_os("TIDEMARK_TEST_SHOTS").map_or_else(|| dir.path().join("shots"), PathBuf::from);
        std::fs::create_dir_all(&shots).unwrap();
        let appliance = Appliance::start(&dir.path().join("data"), arguments);
        let mut browser = Browser::start(program, 1280, 1000);
        browser.color_scheme("light");
        browser.open(&format!("http://{}/", appliance.page));
        Some(Self { browser, appliance, shots, _dir: dir })
    }

    #[track_caller]
    fn wait_text(&mut self, text: &str) {
        wait_until(&format!("'{text}' on the page"), LIMIT, || self.browser.text().to_lowercase().contains(&text.to_lowercase()));
    }

    /// How many elements the selector finds.
    fn count(&mut self, selector: &str) -> u64 {
        self.browser.script(&format!("document.querySelectorAll({}).length", serde_json::json!(selector))).as_u64().unwrap()
    }

    #[track_caller]
    fn wait_count(&mut self, selector: &str, number: u64) {
        wait_until(&format!("{number} times {selector}"), LIMIT, || self.count(selector) == number);
    }

    /// Nothing is wider than the screen. On a phone a browser would show such a page smaller, so its own width is no measure.
    #[track_caller]
    fn wait_fits(&mut self, width: u32) {
        wait_until(&format!("the page to fit into {width} px"), LIMIT, || {
            self.browser.script("document.documentElement.scrollWidth").as_u64() <= Some(width.into())
        });
    }

    fn shot(&mut self, name: &str) {
        self.browser.screenshot(&self.shots.join(name));
    }

    #[track_caller]
    fn end(mut self) {
        let faults = self.browser.faults();
        assert!(faults.is_empty(), "the page's scripts failed: {faults:#?}");
        self.appliance.stop();
    }
}

#[test]
fn a_person_looks_around_and_clicks() {
    let Some(mut visit) = Visit::start("a_person_looks_around_and_clicks", &["--sensors", "5", "--rate", "200"]) else { return };
    visit.wait_text("Running");
    visit.wait_count("#tiles .tile", 5);
    wait_until("the first charts", LIMIT, || {
        let chosen = visit.count("#tiles .tile[aria-pressed=true]");
        chosen > 0 && visit.count(DRAWN) == chosen
    });
    for text in ["Tidemark", "Sensors", "The fleet at a glance", "The pipeline", "Readings in", "Watermark behind", "iot-10s"] {
        visit.wait_text(text);
    }
    visit.shot("page-light.png");

    // A click on the tile of a sensor that is not chosen brings its chart; another one takes it away.
    let chosen = visit.count("#tiles .tile[aria-pressed=true]");
    assert!(chosen > 0 && chosen < 5, "{chosen} of 5 sensors are chosen at first");
    // Which sensors are chosen at first depends on which had a result first.
    let other = (1..=5).find(|place| visit.count(&format!("#tiles .tile:nth-child({place})[aria-pressed=false]")) == 1);
    let other = format!("#tiles .tile:nth-child({})", other.expect("a tile that is not chosen"));
    visit.browser.click(&other);
    visit.wait_count("#tiles .tile[aria-pressed=true]", chosen + 1);
    visit.wait_count(DRAWN, chosen + 1);
    visit.browser.click(&other);
    visit.wait_count("#tiles .tile[aria-pressed=true]", chosen);
    visit.wait_count(DRAWN, chosen);

    // The filter.
    let name = visit.browser.script("document.querySelector('#tiles .tile .id').textContent");
    visit.browser.click("#filter");
    visit.browser.write(name.as_str().unwrap());
    visit.wait_count("#tiles .tile", 1);
    visit.browser.script("document.querySelector('#filter').select()");
    visit.browser.write("no such sensor");
    visit.wait_count("#tiles .tile", 0);
    visit
        .browser
        .script("document.querySelector('#filter').value = ''; document.querySelector('#filter').dispatchEvent(new Event('input'))");
    visit.wait_count("#tiles .tile", 5);

    // Light and dark, by the button and by the system.
    let theme = "document.documentElement.dataset.theme";
    assert_eq!(visit.browser.script(theme), "light");
    visit.browser.click("#theme");
    assert_eq!(visit.browser.script(theme), "dark");
    visit.shot("page-dark.png");
    visit.browser.click("#theme");
    assert_eq!(visit.browser.script(theme), "light");
    visit.browser.color_scheme("dark");
    wait_until("the system's choice", LIMIT, || visit.browser.script(theme) == "dark");
    visit.wait_fits(1280);

    // The window becomes as narrow as a phone.
    visit.browser.size(390, 844);
    visit.wait_fits(390);
    visit.shot("page-phone.png");
    visit.end();
}

#[test]
fn a_person_looks_at_it_on_a_phone() {
    let Some(mut visit) = Visit::start("a_person_looks_at_it_on_a_phone", &["--sensors", "40", "--rate", "400"]) else { return };
    let url = format!("http://{}/", visit.appliance.page);
    visit.browser.size(390, 844);
    visit.browser.open(&url);
    visit.wait_count("#tiles .tile", 40);
    wait_until("a drawn chart", LIMIT, || visit.count("#panels svg.main-svg") > 0);
    visit.wait_fits(390);
    visit.shot("page-phone-fresh.png");
    visit.browser.click("#tiles .tile:last-child");
    wait_until("the tile to be chosen", LIMIT, || visit.count("#tiles .tile:last-child[aria-pressed=true]") == 1);
    visit.end();
}

#[test]
fn results_come_by_themselves() {
    let Some(mut visit) = Visit::start("results_come_by_themselves", &["--sensors", "3", "--rate", "100"]) else { return };
    visit.wait_count("#tiles .tile", 3);
    // No reload, no click: the newest value moves.
    let value = "document.querySelector('#tiles .tile .value').textContent";
    let before = visit.browser.script(value);
    wait_until("another value in the first tile", LIMIT, || visit.browser.script(value) != before);
    visit.end();
}

#[test]
fn an_empty_system_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("nothing.csv");
    std::fs::write(&file, "timestamp,value\n").unwrap();
    let arguments = ["--replay", file.to_str().unwrap(), "--speed", "max"];
    let Some(mut visit) = Visit::start("an_empty_system_says_what_to_do", &arguments) else { return };
    visit.wait_text("No results yet");
    visit.wait_text("--replay");
    visit.wait_fits(1280);
    visit.shot("page-empty.png");
    visit.end();
}

#[test]
fn a_person_asks_in_sql() {
    let Some(mut visit) = Visit::start("a_person_asks_in_sql", &["--sensors", "5", "--rate", "200"]) else { return };
    visit.wait_count("#tiles .tile", 5);
    visit.browser.click("#ask > summary");
    // The tables are there to be clicked.
    wait_until("the live table and its history", LIMIT, || visit.count("#tables button") >= 2);
    visit.browser.click("#tables button");
    wait_until("rows of the table", LIMIT, || visit.count("#answer tbody tr") > 0);
    visit.wait_text("rows, ");

    let ask = |visit: &mut Visit, statement: &str| {
        visit.browser.script("document.querySelector('#statement').select()");
        visit.browser.click("#statement");
        visit.browser.script("document.querySelector('#statement').select()");
        visit.browser.write(statement);
        visit.browser.click("#run");
    };
    ask(&mut visit, "SELECT sensor_id, count(*) AS windows, NULL AS none FROM iot_10s_history GROUP BY sensor_id ORDER BY 1");
    // The rows of before stay until the answer is there, and may be five as well.
    let head = "[...document.querySelectorAll('#answer th')].map((th) => th.textContent).join()";
    wait_until("the answer's columns", LIMIT, || visit.browser.script(head) == "sensor_id,windows,none");
    visit.wait_count("#answer tbody tr", 5);
    let first = visit.browser.script("document.querySelector('#answer tbody td').textContent");
    assert_eq!(first, "s-0001", "{first}");
    assert_eq!(visit.count("#answer td.null"), 5);
    visit.shot("page-ask-light.png");

    // A mistake is told in the engine's words, and the table of before is gone.
    ask(&mut visit, "SELECT * FROM iot");
    visit.wait_text("no such table: iot; there are: iot_10s");
    assert_eq!(visit.count("#answer table"), 0);
    ask(&mut visit, "SELECT * FROM iot_10s ORDER BY sensor_id");
    wait_until("the open windows", LIMIT, || visit.count("#answer tbody tr") >= 5);
    visit.wait_fits(1280);
    visit.browser.click("#theme");
    visit.shot("page-ask-dark.png");
    visit.browser.size(390, 844);
    visit.wait_fits(390);
    visit.shot("page-ask-phone.png");
    visit.end();
}
