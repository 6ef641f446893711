//! Results from the log into a time-series database.
