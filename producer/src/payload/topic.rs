//! Topic templates: `sensors/{site}/{sensor_id}/{kind}`.

use std::str::FromStr;

use common::reading::Reading;

/// A topic filter whose levels have names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template(Vec<Level>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Level {
    Exact(String),
    /// `+`
    Any,
    /// `#`
    Rest,
    SensorId,
    Kind,
    Label(String),
}

/// What a topic says by its place in a template.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Parts<'a> {
    pub(crate) sensor_id: Option<&'a str>,
    pub(crate) kind: Option<&'a str>,
    pub(crate) labels: Vec<(&'a str, &'a str)>,
}

impl<'a> Parts<'a> {
    /// A part that is too long for a name.
    pub(super) fn too_long(&self) -> Option<&'a str> {
        let names = self.sensor_id.iter().chain(&self.kind).copied();
        names.chain(self.labels.iter().map(|(_, value)| *value)).find(|part| part.len() > super::MAX_NAME)
    }
}

impl Template {
    /// The MQTT filter of all topics that could match.
    pub(crate) fn filter(&self) -> String {
        let levels: Vec<&str> = self.0.iter().map(Level::filter).collect();
        levels.join("/")
    }

    pub(crate) fn matches<'a>(&'a self, topic: &'a str) -> Option<Parts<'a>> {
        let mut parts = Parts::default();
        let mut levels = topic.split('/');
        for (index, level) in self.0.iter().enumerate() {
            if *level == Level::Rest {
                // The broker's own topics ($SYS/...) are nobody's readings.
                return (index > 0 || !topic.starts_with('$')).then_some(parts);
            }
            let text = levels.next()?;
            match level {
                Level::Exact(exact) if exact != text => return None,
                // A wildcard at the beginning does not take the broker's own topics.
                Level::Exact(_) => {}
                _ if index == 0 && text.starts_with('$') => return None,
                Level::SensorId => parts.sensor_id = Some(text),
                Level::Kind => parts.kind = Some(text),
                Level::Label(name) => parts.labels.push((name, text)),
                Level::Any | Level::Rest => {}
            }
        }
        levels.next().is_none().then_some(parts)
    }
}

impl Level {
    fn filter(&self) -> &str {
        match self {
            Self::Exact(text) => text,
            Self::Rest => "#",
            _ => "+",
        }
    }

    fn parse(text: &str, template: &str) -> Result<Self, String> {
        let fault = |what: &str| Err(format!("'{template}' is no topic template: {what}"));
        match text {
            "+" => Ok(Self::Any),
            "#" => Ok(Self::Rest),
            "{sensor_id}" => Ok(Self::SensorId),
            "{kind}" => Ok(Self::Kind),
            _ if text.starts_with('{') && text.ends_with('}') => {
                let name = &text[1..text.len() - 1];
                let legal = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
                match legal {
                    false => fault("a part's name has letters, digits and '_'"),
                    true if Reading::FIELDS.contains(&name) => {
                        fault("of a reading's own columns, only sensor_id and kind can come from a topic")
                    }
                    true => Ok(Self::Label(name.to_owned())),
                }
            }
            _ if text.contains(['+', '#', '{', '}']) => fault("a wildcard or a named part is a whole level, such as 'a/{sensor_id}/#'"),
            _ => Ok(Self::Exact(text.to_owned())),
        }
    }
}

impl FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() || text.starts_with("$share/") {
            return Err(format!("'{text}' is no topic template; a shared subscription is named by producer.mqtt.share"));
        }
        let levels = text.split('/').map(|level| Level::parse(level, text)).collect::<Result<Vec<_>, _>>()?;
        if levels.iter().rev().skip(1).any(|level| *level == Level::Rest) {
            return Err(format!("'{text}' is no topic template: '#' stands at the end only"));
        }
        let named = |level: &Level| !matches!(level, Level::Exact(_) | Level::Any | Level::Rest);
        let twice = levels.iter().enumerate().find(|(index, level)| named(level) && levels[..*index].contains(level));
        if let Some((index, _)) = twice {
            let part = text.split('/').nth(index).unwrap_or_default();
            return Err(format!("'{text}' is no topic template: {part} stands in it twice; give each part its own name"));
        }
        Ok(Self(levels))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_gives_its_parts() {
        let template: Template = "sensors/{site}/{sensor_id}/+/{kind}/#".parse().unwrap();
        assert_eq!(template.filter(), "sensors/+/+/+/+/#");
        let parts = template.matches("sensors/hall/p-1/x/temperature").unwrap();
        assert_eq!((parts.sensor_id, parts.kind), (Some("p-1"), Some("temperature")));
        assert_eq!(parts.labels, [("site", "hall")]);
        assert!(template.matches("sensors/hall/p-1/x/temperature/more/of/it").is_some());
        for other in ["sensors/hall/p-1/x", "sensor/hall/p-1/x/t", "sensors", ""] {
            assert!(template.matches(other).is_none(), "{other}");
        }
    }

    #[test]
    fn wildcards_leave_the_brokers_own_topics_alone() {
        for text in ["#", "+/{sensor_id}", "{site}/{sensor_id}"] {
            let template: Template = text.parse().unwrap();
            assert!(template.matches("$SYS/load").is_none(), "{text}");
            assert!(template.matches("a/load").is_some(), "{text}");
        }
    }

    #[test]
    fn what_is_no_template_is_said() {
        for text in ["", "a/#/b", "a/b+", "a{sensor_id}", "a/{}", "a/{ts}", "a/{ä}", "$share/g/a", "a/{x}/{x}", "{kind}/{kind}"] {
            assert!(text.parse::<Template>().is_err(), "{text}");
        }
    }
}
