//! The appliance's live page: charts of the results, the fleet at a glance, and the pipeline's own state.
//!
//! It knows the SQLite store's read side and the telemetry, and nothing else of the appliance.
//!
//! | route | what |
//! |---|---|
//! | `/` | the page |
//! | `/assets/...` | its script, style and charting library; nothing is fetched from elsewhere |
//! | `/api/overview` | measurements and series with their latest points |
//! | `/api/points` | points of chosen series in a range of time |
//! | `/api/sql` | questions in SQL; not of the page's own making (`src/questions.rs`) |
//! | `/api/events` | server-sent events: changed points, and the pipeline's state |
//!
//! | file | what |
//! |---|---|
//! | `assets` | what is served as it is: compressed once, the charting library by `build.rs`; cached by the browser |
//! | `overview`, `points`, `events` | one route each |
//! | `changes` | which points are new to a listener |
//! | `reader` | the store, for many requests at a time |
//! | `pipeline` | the telemetry, asked at a bounded rate |

mod assets;
mod changes;
mod events;
mod overview;
mod pipeline;
mod points;
mod reader;

use std::path::PathBuf;

use axum::Router;
use axum::routing::get;
use common::Telemetry;

use pipeline::Pipeline;
use reader::Reader;

/// What the page shows.
#[derive(Debug, Clone)]
pub(crate) struct PageState {
    /// The SQLite database of the sink; may be missing, and come later.
    pub sqlite: PathBuf,
    /// The parts' own state.
    pub telemetry: Telemetry,
}

/// What the routes share; clones are the same thing.
#[derive(Debug, Clone)]
struct Shared {
    reader: Reader,
    pipeline: Pipeline,
}

/// The page's routes. They never end an event stream by themselves: the server that they are given to does, when it stops.
pub(crate) fn router(state: PageState) -> Router {
    let shared = Shared { reader: Reader::new(&state.sqlite), pipeline: Pipeline::new(state.telemetry) };
    Router::new()
        .route("/", get(assets::index))
        .route("/assets/{*path}", get(assets::asset))
        .route("/api/overview", get(overview::overview))
        .route("/api/points", get(points::points))
        .route("/api/events", get(events::events))
        .with_state(shared)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
