//! Log lines as JSON: `level`, `ts`, `logger`, `msg`, `logging_pod`, then the fields of the event.
//!
//! These names are the reference's, which log collectors are set to. Not here: what is logged.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::sync::Mutex;

use cellarman::clock;
use chrono::SecondsFormat;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber, error};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::arguments::LogArguments;

/// Starts logging as told. A destination that cannot be opened is told on standard error.
pub fn start(arguments: &LogArguments, logger: &'static str) {
    let level = match arguments.log_level.as_str() {
        "error" => Level::ERROR,
        "warning" | "warn" => Level::WARN,
        "debug" => Level::DEBUG,
        "trace" => Level::TRACE,
        _ => Level::INFO,
    };
    let (sink, failure) = sink(arguments);
    let lines = JsonLines {
        sink: Mutex::new(sink),
        level_field: arguments.log_field_level.clone(),
        time_field: arguments.log_field_timestamp.clone(),
        logger,
        pod: std::env::var("POD_NAME").unwrap_or_default(),
    };
    // Other crates log whole requests at the finer levels, credentials among them.
    let targets = Targets::new()
        .with_target("cellarman", level)
        .with_target("cellarman_plugin", level);
    // A second start, as tests make, keeps the first one's subscriber.
    drop(
        tracing_subscriber::registry()
            .with(lines.with_filter(targets))
            .try_init(),
    );
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        error!(place, "panicked: {}", words_of(panic.payload()));
    }));
    if let Some(failure) = failure {
        error!(error = %failure, "cannot open the log's destination; logging to standard error");
    }
}

/// What a panic says, where it says it in words.
pub fn words_of(payload: &(dyn std::any::Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no words")
}

fn sink(arguments: &LogArguments) -> (Box<dyn Write + Send>, Option<io::Error>) {
    let Some(path) = &arguments.log_destination else {
        return (Box::new(io::stderr()), None);
    };
    let is_new = arguments.log_truncate_destination;
    let file = OpenOptions::new()
        .create(true)
        .write(true)
        .append(!is_new)
        .truncate(is_new)
        .open(path);
    match file {
        Ok(file) => (Box::new(file), None),
        Err(error) => (Box::new(io::stderr()), Some(error)),
    }
}

struct JsonLines {
    sink: Mutex<Box<dyn Write + Send>>,
    level_field: String,
    time_field: String,
    logger: &'static str,
    pod: String,
}

impl<S> Layer<S> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = self.line(event);
        line.push(b'\n');
        // Where nobody can be told, nobody is told.
        if let Ok(mut sink) = self.sink.lock() {
            let _ = sink.write_all(&line);
        }
    }
}

impl JsonLines {
    fn line(&self, event: &Event<'_>) -> Vec<u8> {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warning",
            Level::INFO => "info",
            Level::DEBUG => "debug",
            Level::TRACE => "trace",
        };
        let now = clock::now().to_rfc3339_opts(SecondsFormat::Micros, true);
        let mut line = Map::new();
        line.insert(self.level_field.clone(), level.into());
        line.insert(self.time_field.clone(), now.into());
        line.insert("logger".to_owned(), self.logger.into());
        line.insert("msg".to_owned(), fields.message.into());
        line.insert("logging_pod".to_owned(), self.pod.clone().into());
        for (name, value) in fields.others {
            line.entry(name).or_insert(value);
        }
        serde_json::to_vec(&line).unwrap_or_default()
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    others: Map<String, Value>,
}

impl Fields {
    fn take(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            (name, value) => drop(self.others.insert(name.to_owned(), value)),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.take(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.take(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.take(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.take(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.take(field, value.into());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, PoisonError};

    use super::*;

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            held.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_event_is_one_line_with_the_references_fields() {
        let memory = Memory::default();
        let lines = JsonLines {
            sink: Mutex::new(Box::new(memory.clone())),
            level_field: "severity".to_owned(),
            time_field: "ts".to_owned(),
            logger: "instance",
            pod: "pg-1".to_owned(),
        };
        let subscriber = tracing_subscriber::registry().with(lines);
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(count = 3, name = %"a\nb", msg = "not this", "two\nlines");
        });
        let bytes = memory.0.lock().unwrap().clone();
        assert_eq!(bytes.split(|byte| *byte == b'\n').count(), 2);
        let mut line: Value = serde_json::from_slice(&bytes).unwrap();
        let time = line.as_object_mut().unwrap().remove("ts").unwrap();
        assert!(time.as_str().unwrap().ends_with('Z'), "{time}");
        let expected = serde_json::json!({
            "severity": "warning", "logger": "instance", "msg": "two\nlines",
            "logging_pod": "pg-1", "count": 3, "name": "a\nb",
        });
        assert_eq!(line, expected);
    }
}
