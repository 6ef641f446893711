//! Streaming SQL over event time: query, engine, task.
