//! Sources of readings (simulator, replay) and the publisher into the log.
