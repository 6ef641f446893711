//! Which topics exist: the registry in `topics.json`, and the open partitions behind it.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use serde::{Deserialize, Serialize};

use crate::data_dir::{DataDir, load, store};
use crate::error::BrokerError;
use crate::ids::random_id;
use crate::log::disk;
use crate::log::partition::{Ground, Partition};
use crate::topic_config::{LiveConfig, TopicConfig, without_unchecked};

const VERSION: u64 = 1;
/// Kafka's limit, which keeps folder names within what file systems take.
const MAX_NAME: usize = 249;
/// Each partition holds a file open.
pub(crate) const MAX_PARTITIONS: i32 = 1000;
const DELETED: &str = "deleted";

/// A topic and its open partitions.
#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) name: String,
    pub(crate) id: u128,
    pub(crate) config: LiveConfig,
    pub(crate) partitions: Vec<Arc<Partition>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Registry {
    version: u64,
    topics: BTreeMap<String, Kept>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Kept {
    id: String,
    partitions: i32,
    config: BTreeMap<String, String>,
}

/// All topics of a broker.
#[derive(Debug)]
pub(crate) struct Topics {
    dir: Arc<DataDir>,
    segment_bytes: u64,
    ground: Ground,
    open: RwLock<HashMap<String, Arc<Topic>>>,
    /// Held while topics are created or deleted, which waits for the disk; readers need not wait for that.
    changing: Mutex<()>,
}

/// Why a topic cannot be created.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CreateFault {
    #[error("the topic exists already")]
    Exists,
    #[error(transparent)]
    Storage(#[from] BrokerError),
}

/// Checks a topic's name by Kafka's rules, which also keep it inside the log's folder.
pub(crate) fn check_name(name: &str) -> Result<(), &'static str> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    match name {
        "" => Err("a topic name must not be empty"),
        "." | ".." => Err("a topic name must not be '.' or '..'"),
        name if name.len() > MAX_NAME => Err("a topic name has at most 249 characters"),
        name if !name.chars().all(legal) => Err("a topic name has only letters, digits, '.', '_' and '-'"),
        _ => Ok(()),
    }
}

/// Two names that differ in '.' and '_' alone would have the same metrics, so Kafka takes only one of them.
fn collides(one: &str, other: &str) -> bool {
    one != other && one.replace('.', "_") == other.replace('.', "_")
}

impl Topics {
    /// A topic whose name is too like this one for both to be there.
    pub(crate) fn colliding(&self, name: &str) -> Option<String> {
        let all = self.all();
        all.iter().find(|topic| collides(&topic.name, name)).map(|topic| topic.name.clone())
    }

    /// Opens all topics of the directory; clears away what an interrupted creation or deletion has left.
    pub(crate) fn open(dir: Arc<DataDir>, segment_bytes: u64, ground: Ground) -> Result<Self, BrokerError> {
        let registry_path = dir.file("topics.json");
        let registry = match load::<Registry>(&registry_path)? {
            Some(registry) => registry,
            None if has_entries(&dir.log_dir()) => {
                return Err(BrokerError::Damaged { path: registry_path, detail: "is missing, though there are topics".to_owned() });
            }
            None => {
                let empty = Registry { version: VERSION, topics: BTreeMap::new() };
                store(&registry_path, &empty)?;
                empty
            }
        };
        let topics = Self { dir, segment_bytes, ground, open: RwLock::default(), changing: Mutex::new(()) };
        topics.clear_leftovers(&registry)?;
        topics.open_all(&registry)?;
        Ok(topics)
    }

    /// Opens the topics in several threads: after a crash each has to read and check its newest segments.
    fn open_all(&self, registry: &Registry) -> Result<(), BrokerError> {
        let left = Mutex::new(registry.topics.iter());
        let work = || -> Result<(), BrokerError> {
            loop {
                let next = left.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some((name, kept)) = next else { return Ok(()) };
                let topic = Arc::new(self.open_topic(name, kept)?);
                self.write().insert(name.clone(), topic);
            }
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(4);
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let own = work();
            let ended = others.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            ended.fold(own, Result::and)
        })
    }

    fn open_topic(&self, name: &str, kept: &Kept) -> Result<Topic, BrokerError> {
        let damaged = |detail: String| BrokerError::Damaged { path: self.dir.file("topics.json"), detail };
        check_name(name).map_err(|fault| damaged(format!("has the topic '{name}' ({fault})")))?;
        let config = TopicConfig::new(without_unchecked(kept.config.clone()), self.segment_bytes)
            .map_err(|fault| damaged(format!("has an impossible setting of topic '{name}' ({fault})")))?;
        let id = u128::from_str_radix(&kept.id, 16).map_err(|fault| damaged(format!("has a bad topic id ({fault})")))?;
        let config = LiveConfig::new(config);
        let partitions = (0..kept.partitions).map(|index| self.open_partition(name, index, &config)).collect::<Result<_, _>>()?;
        Ok(Topic { name: name.to_owned(), id, config, partitions })
    }

    fn open_partition(&self, topic: &str, index: i32, config: &LiveConfig) -> Result<Arc<Partition>, BrokerError> {
        let path = self.dir.partition(topic, index);
        if !path.is_dir() {
            return Err(BrokerError::Damaged { path, detail: "is missing, though topics.json names it".to_owned() });
        }
        Partition::open(&path, config.clone(), self.ground.clone()).map(Arc::new)
    }

    /// Folders that the registry does not name belong to no topic: their creation or deletion was interrupted.
    fn clear_leftovers(&self, registry: &Registry) -> Result<(), BrokerError> {
        let dir = self.dir.log_dir();
        let entries = fs::read_dir(&dir).map_err(|fault| BrokerError::io("read", &dir, fault))?;
        for path in entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()) {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let known = name.rsplit_once('-').is_some_and(|(topic, index)| {
                let kept = registry.topics.get(topic);
                kept.is_some_and(|kept| index.parse::<i32>().is_ok_and(|index| index < kept.partitions))
            });
            if !known {
                tracing::warn!(folder = %path.display(), "a folder that belongs to no topic is removed");
                fs::remove_dir_all(&path).map_err(|fault| BrokerError::io("remove", &path, fault))?;
            }
        }
        Ok(())
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, HashMap<String, Arc<Topic>>> {
        self.open.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, HashMap<String, Arc<Topic>>> {
        self.open.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self, name: &str) -> Option<Arc<Topic>> {
        self.read().get(name).cloned()
    }

    pub(crate) fn get_by_id(&self, id: u128) -> Option<Arc<Topic>> {
        self.read().values().find(|topic| topic.id == id).cloned()
    }

    pub(crate) fn partition(&self, topic: &str, index: i32) -> Option<Arc<Partition>> {
        self.get(topic)?.partition(index)
    }

    /// All topics, by name.
    pub(crate) fn all(&self) -> Vec<Arc<Topic>> {
        let mut all: Vec<_> = self.read().values().cloned().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// Creates a topic whose name and settings have been checked. Blocks on the disk.
    pub(crate) fn create(&self, name: &str, partitions: i32, config: &TopicConfig) -> Result<Arc<Topic>, CreateFault> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.get(name).is_some() {
            return Err(CreateFault::Exists);
        }
        let kept = Kept { id: format!("{:032x}", random_id()), partitions, config: config.given().clone() };
        let created = self.create_folders(name, 0..partitions).and_then(|()| {
            let topic = Arc::new(self.open_topic(name, &kept)?);
            self.save_with(Some((name, kept)), None)?;
            Ok(topic)
        });
        match created {
            Ok(topic) => {
                self.write().insert(name.to_owned(), topic.clone());
                Ok(topic)
            }
            Err(fault) => {
                for index in 0..partitions {
                    remove_folder(&self.dir.partition(name, index));
                }
                Err(fault.into())
            }
        }
    }

    /// Adds partitions to a topic until it has `count`. Blocks on the disk.
    pub(crate) fn grow(&self, name: &str, count: i32) -> Result<(), BrokerError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(topic) = self.get(name) else { return Ok(()) };
        let first = topic.partitions.len() as i32;
        let grown = self.create_folders(name, first..count).and_then(|()| {
            let added = (first..count).map(|index| self.open_partition(name, index, &topic.config));
            let mut partitions = topic.partitions.clone();
            partitions.extend(added.collect::<Result<Vec<_>, _>>()?);
            let grown = Topic { name: name.to_owned(), id: topic.id, config: topic.config.clone(), partitions };
            self.save_with(Some((name, grown.kept())), None)?;
            Ok(grown)
        });
        match grown {
            Ok(grown) => drop(self.write().insert(name.to_owned(), Arc::new(grown))),
            Err(fault) => {
                (first..count).for_each(|index| remove_folder(&self.dir.partition(name, index)));
                return Err(fault);
            }
        }
        Ok(())
    }

    /// Gives a topic other settings. Blocks on the disk.
    pub(crate) fn alter(&self, name: &str, config: TopicConfig) -> Result<(), BrokerError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(topic) = self.get(name) else { return Ok(()) };
        self.save_with(Some((name, Kept { config: config.given().clone(), ..topic.kept() })), None)?;
        topic.config.set(config);
        Ok(())
    }

    fn create_folders(&self, name: &str, indexes: std::ops::Range<i32>) -> Result<(), BrokerError> {
        for index in indexes {
            let path = self.dir.partition(name, index);
            fs::create_dir(&path).map_err(|fault| BrokerError::io("create", &path, fault))?;
        }
        let dir = self.dir.log_dir();
        disk::sync_dir(&dir).map_err(|fault| BrokerError::io("sync", &dir, fault))
    }

    /// Deletes a topic; `Ok(false)` when there is none. Blocks on the disk.
    pub(crate) fn delete(&self, name: &str) -> Result<bool, BrokerError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(topic) = self.get(name) else { return Ok(false) };
        self.save_with(None, Some(name))?;
        self.write().remove(name);
        for partition in &topic.partitions {
            partition.abandon();
            // Out of the way first, so that a topic of the same name can come at once.
            let away = partition.dir().with_file_name(format!("{}.{:032x}.{DELETED}", partition.name, topic.id));
            match fs::rename(partition.dir(), &away) {
                Ok(()) => remove_folder(&away),
                Err(fault) => tracing::warn!(folder = %partition.dir().display(), %fault, "a deleted partition stays until the next start"),
            }
        }
        Ok(true)
    }

    /// Writes the registry as it is, with one topic more or less.
    fn save_with(&self, added: Option<(&str, Kept)>, removed: Option<&str>) -> Result<(), BrokerError> {
        let mut topics: BTreeMap<_, _> = self.read().values().map(|topic| (topic.name.clone(), topic.kept())).collect();
        if let Some(name) = removed {
            topics.remove(name);
        }
        if let Some((name, kept)) = added {
            topics.insert(name.to_owned(), kept);
        }
        store(&self.dir.file("topics.json"), &Registry { version: VERSION, topics })
    }
}

impl Topic {
    pub(crate) fn partition(&self, index: i32) -> Option<Arc<Partition>> {
        self.partitions.get(usize::try_from(index).ok()?).cloned()
    }

    fn kept(&self) -> Kept {
        Kept { id: format!("{:032x}", self.id), partitions: self.partitions.len() as i32, config: self.config.get().given().clone() }
    }
}

fn has_entries(dir: &Path) -> bool {
    fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some())
}

fn remove_folder(path: &Path) {
    if let Err(fault) = fs::remove_dir_all(path)
        && fault.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(folder = %path.display(), %fault, "a deleted folder stays until the next start");
    }
}

#[cfg(test)]
mod tests {
    use super::check_name;

    #[test]
    fn names_that_leave_the_folder_are_refused() {
        for bad in ["", ".", "..", "a/b", "../x", "a\\b", "ü", "a b", "a\0", &"x".repeat(250)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
        for good in ["iot", "iot.agg.iot-10s", "_x", "A-1"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
    }
}
