//! Which points are new to a listener.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};

use sink::store::SeriesPoints;

/// How far back a change is looked for, in points per series. Older windows that change are seen at the next full question.
pub(super) const LOOK_BACK: usize = 60;

/// Remembers what one listener has been sent.
#[derive(Debug, Default)]
pub(super) struct Sent(HashMap<(i64, i64), u64>);

impl Sent {
    /// Keeps of `recent` only what the listener does not have in this form, and remembers it.
    pub(super) fn only_new(&mut self, mut recent: Vec<SeriesPoints>) -> Vec<SeriesPoints> {
        let mut now = HashMap::with_capacity(self.0.len());
        for series in &mut recent {
            series.points.retain(|point| {
                let key = (series.series_id, point.time_ms);
                let mut hasher = DefaultHasher::new();
                (point.end_ms, point.is_final).hash(&mut hasher);
                point.fields.iter().for_each(|field| field.hash(&mut hasher));
                let form = hasher.finish();
                now.insert(key, form);
                self.0.get(&key) != Some(&form)
            });
        }
        self.0 = now;
        recent.retain(|series| !series.points.is_empty());
        recent
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use sink::store::StoredPoint;

    use super::*;

    fn recent(values: &[(i64, f64)]) -> Vec<SeriesPoints> {
        let point = |&(time_ms, avg): &(i64, f64)| StoredPoint {
            time_ms,
            end_ms: None,
            fields: [("avg".to_owned(), json!(avg))].into_iter().collect(),
            revision: None,
            is_final: false,
        };
        vec![SeriesPoints { series_id: 1, bucket_ms: None, points: values.iter().map(point).collect() }]
    }

    fn times(changed: &[SeriesPoints]) -> Vec<i64> {
        changed.iter().flat_map(|series| &series.points).map(|point| point.time_ms).collect()
    }

    #[test]
    fn a_point_is_sent_when_it_is_new_or_has_changed() {
        let mut sent = Sent::default();
        assert_eq!(times(&sent.only_new(recent(&[(0, 1.0), (10, 2.0)]))), [0, 10]);
        assert!(sent.only_new(recent(&[(0, 1.0), (10, 2.0)])).is_empty());
        assert_eq!(times(&sent.only_new(recent(&[(0, 1.0), (10, 2.5), (20, 3.0)]))), [10, 20]);
        assert!(sent.only_new(recent(&[(10, 2.5), (20, 3.0)])).is_empty(), "what has left the look-back is forgotten, not sent");
    }
}
