//! Laying one source of settings over another, keeping where each value came from.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::DEFAULTS;
use super::allowed::Allowed;

/// What an environment variable's name begins with to be a setting.
const ENVIRONMENT_PREFIX: &str = "DRAMATIS__";

/// What the names of other variables begin with, which are none: `DRAMATIS_URL`.
const OTHERS_PREFIX: &str = "DRAMATIS_";

/// Whether a variable is a setting, or was to be one: two underscores end each part of a setting's name.
pub(crate) fn is_meant_for_settings(name: &str) -> bool {
    name.starts_with(ENVIRONMENT_PREFIX) || meant(name).is_some()
}

/// The setting that was meant by a name such as `DRAMATIS_SOCKET__HEARTBEAT_MS`.
fn meant(name: &str) -> Option<String> {
    let rest = name.strip_prefix(OTHERS_PREFIX).filter(|rest| !rest.starts_with('_'))?;
    let (section, _) = rest.split_once("__")?;
    let section = format!("[{}]", section.to_ascii_lowercase());
    let is_one = DEFAULTS.lines().any(|line| line == section);
    is_one.then(|| format!("{ENVIRONMENT_PREFIX}{rest}"))
}

/// A setting given on the command line.
#[derive(Debug, Clone, PartialEq)]
pub struct Flag {
    /// The key it sets, such as `server.listen`.
    pub key: &'static str,
    /// The flag's name, such as `--listen`.
    pub name: &'static str,
    /// The value.
    pub value: Value,
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The built-in file.
    Default,
    /// A file.
    File(PathBuf),
    /// An environment variable.
    Environment(String),
    /// A flag.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("the built-in defaults"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// Why settings were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the config file {} cannot be read: {reason}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The file is no TOML.
    #[error("{origin} is no valid TOML: {reason}")]
    Syntax {
        /// The file.
        origin: Origin,
        /// What the parser said and where, without the line itself: that may hold a secret.
        reason: String,
    },
    /// There is no such key. Its value is shown nowhere: it may be a secret under another name.
    #[error("unknown key {key} (from {origin}): {known}")]
    UnknownKey {
        /// The key, dotted.
        key: String,
        /// Where it came from.
        origin: Origin,
        /// Which keys there are.
        known: String,
    },
    /// A setting by a name that is none.
    #[error("environment variable {name} is no setting: {meant} has two underscores after DRAMATIS")]
    Misnamed {
        /// The variable.
        name: String,
        /// The one that was meant.
        meant: String,
    },
    /// A value that may not stand.
    #[error("{key} must be {allowed}; got {value} (from {origin})")]
    BadValue {
        /// The key, dotted.
        key: String,
        /// The value.
        value: String,
        /// Where it came from.
        origin: Origin,
        /// What may stand.
        allowed: String,
    },
}

/// The settings so far, by dotted key.
pub(super) struct Layers {
    values: BTreeMap<String, (Value, Origin)>,
}

impl Layers {
    pub(super) fn defaults() -> Result<Self, ConfigError> {
        let mut values = BTreeMap::new();
        for (key, value) in leaves(&Origin::Default, DEFAULTS)? {
            values.insert(key, (value, Origin::Default));
        }
        Ok(Self { values })
    }

    pub(super) fn file(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let origin = Origin::File(path.to_owned());
        for (key, value) in leaves(&origin, text)? {
            self.set(&key, value, origin.clone())?;
        }
        Ok(())
    }

    pub(super) fn environment(
        &mut self,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<(), ConfigError> {
        for (name, text) in variables {
            let Some(rest) = name.strip_prefix(ENVIRONMENT_PREFIX) else {
                match meant(&name) {
                    Some(meant) => return Err(ConfigError::Misnamed { name, meant }),
                    None => continue,
                }
            };
            let key = rest.to_ascii_lowercase().replace("__", ".");
            let value =
                Allowed::of(&key).map_or_else(|| Value::String(text.clone()), |allowed| allowed.parse(&text));
            self.set(&key, value, Origin::Environment(name))?;
        }
        Ok(())
    }

    pub(super) fn flags(&mut self, flags: Vec<Flag>) -> Result<(), ConfigError> {
        flags.into_iter().try_for_each(|flag| self.set(flag.key, flag.value, Origin::Flag(flag.name)))
    }

    /// Builds the typed form.
    pub(super) fn finish<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        let mut root = Table::new();
        for (key, (value, _)) in &self.values {
            insert(&mut root, key, value.clone());
        }
        serde_path_to_error::deserialize(Value::Table(root))
            .map_err(|error| self.bad(&error.path().to_string(), &error.inner().to_string()))
    }

    /// The error that a key's present value is refused with.
    pub(super) fn bad(&self, key: &str, allowed: &str) -> ConfigError {
        let (value, origin) = self
            .values
            .get(key)
            .map_or_else(|| ("nothing".to_owned(), Origin::Default), |(v, o)| (shown(key, v), o.clone()));
        ConfigError::BadValue { key: key.to_owned(), value, origin, allowed: allowed.to_owned() }
    }

    fn set(&mut self, key: &str, value: Value, origin: Origin) -> Result<(), ConfigError> {
        let section = format!("{key}.");
        let is_section = self.values.keys().any(|known| known.starts_with(&section));
        if is_section && value.is_table() {
            return Ok(());
        }
        let (Some(allowed), true) = (Allowed::of(key), self.values.contains_key(key)) else {
            return Err(ConfigError::UnknownKey { key: key.to_owned(), origin, known: self.known(key) });
        };
        if !allowed.admits(&value) {
            return Err(ConfigError::BadValue {
                key: key.to_owned(),
                value: shown(key, &value),
                origin,
                allowed: allowed.to_string(),
            });
        }
        self.values.insert(key.to_owned(), (value, origin));
        Ok(())
    }

    /// The keys next to the one that does not exist, or else the sections.
    fn known(&self, key: &str) -> String {
        let sections: Vec<&str> =
            self.values.keys().filter_map(|k| k.rsplit_once('.')).map(|(s, _)| s).collect();
        let mut section = key;
        loop {
            if sections.contains(&section) {
                let prefix = format!("{section}.");
                let keys: Vec<&str> = self.values.keys().filter_map(|k| k.strip_prefix(&prefix)).collect();
                return format!("[{section}] has {}", keys.join(", "));
            }
            let Some((outer, _)) = section.rsplit_once('.') else { break };
            section = outer;
        }
        let mut sections = sections;
        sections.dedup();
        sections.sort_unstable();
        sections.dedup();
        format!("the sections are {}", sections.join(", "))
    }
}

/// A value as errors show it.
fn shown(key: &str, value: &Value) -> String {
    match Allowed::of(key) {
        Some(Allowed::Secret) => "a text that is not shown".to_owned(),
        _ => value.to_string(),
    }
}

/// The values of a TOML text by dotted key; an empty table is a value of its own.
fn leaves(origin: &Origin, text: &str) -> Result<Vec<(String, Value)>, ConfigError> {
    let table: Table = text.parse().map_err(|error: toml::de::Error| ConfigError::Syntax {
        origin: origin.clone(),
        reason: match error.span().and_then(|span| text.get(..span.start)) {
            Some(before) => format!("{}: {}", place_after(before), error.message()),
            None => error.message().to_owned(),
        },
    })?;
    let mut found = Vec::new();
    collect("", table, &mut found);
    Ok(found)
}

/// Line and column of what comes after this.
fn place_after(before: &str) -> String {
    let line = before.rsplit('\n').next().unwrap_or_default();
    format!("line {}, column {}", before.matches('\n').count() + 1, line.chars().count() + 1)
}

fn collect(prefix: &str, table: Table, found: &mut Vec<(String, Value)>) {
    for (name, value) in table {
        let key = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
        match value {
            Value::Table(inner) if !inner.is_empty() => collect(&key, inner, found),
            value => found.push((key, value)),
        }
    }
}

fn insert(table: &mut Table, key: &str, value: Value) {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
        }
        Some((section, rest)) => {
            let inner = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(inner) = inner {
                insert(inner, rest, value);
            }
        }
    }
}
