//! An API server in memory, on loopback: it keeps objects, tells watchers, and notes each call
//! that is beyond the rights it was given. A test that ends with such a call fails.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use cellarman_plugin::resources::api::ApiServer;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;
use tokio::task::JoinHandle;

/// A call that is allowed: its method, and what its path begins with.
pub(crate) type Right = (&'static str, &'static str);

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<String, Value>,
    version: u64,
    /// What changed, with the version and the path: a watch begins where its list ended.
    changes: Vec<(u64, String, Value)>,
    calls: Vec<String>,
    beyond: Vec<String>,
    denied: Vec<Right>,
}

/// The API server.
pub(crate) struct Api {
    state: Arc<Mutex<State>>,
    events: broadcast::Sender<()>,
    address: String,
    serving: JoinHandle<()>,
}

struct Call {
    method: String,
    path: String,
    query: String,
    content_type: String,
    body: Value,
}

impl Api {
    pub(crate) async fn start(rights: &'static [Right]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State::default()));
        let (events, _) = broadcast::channel(256);
        let serving = {
            let (state, events) = (Arc::clone(&state), events.clone());
            tokio::spawn(async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    let (state, events) = (Arc::clone(&state), events.clone());
                    tokio::spawn(answer(stream, rights, state, events));
                }
            })
        };
        Self {
            state,
            events,
            address,
            serving,
        }
    }

    pub(crate) fn server(&self) -> ApiServer {
        server_at(&self.address)
    }

    /// Where it answers.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Puts an object, as somebody else would; its path decides what it is.
    pub(crate) fn put(&self, path: &str, mut object: Value) {
        let mut state = self.state.lock().unwrap();
        let (_, name) = path.rsplit_once('/').unwrap();
        object["metadata"]["name"] = json!(name);
        if let Some((_, rest)) = path.split_once("/namespaces/") {
            object["metadata"]["namespace"] = json!(rest.split('/').next().unwrap());
        }
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = json!(format!("uid-{name}"));
        }
        store(&mut state, &self.events, path, object);
    }

    pub(crate) fn remove(&self, path: &str) {
        let mut state = self.state.lock().unwrap();
        delete(&mut state, &self.events, path);
    }

    pub(crate) fn object(&self, path: &str) -> Option<Value> {
        self.state.lock().unwrap().objects.get(path).cloned()
    }

    pub(crate) fn paths(&self) -> Vec<String> {
        self.state.lock().unwrap().objects.keys().cloned().collect()
    }

    /// From now on refused, for want of a right.
    pub(crate) fn deny(&self, right: Right) {
        self.state.lock().unwrap().denied.push(right);
    }

    /// The calls since the last time, without lists and watches.
    pub(crate) fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().calls)
    }

    /// Waits until the object is as it has to be.
    pub(crate) async fn until(&self, path: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let waiting = async {
            loop {
                if let Some(object) = self.object(path).filter(&holds) {
                    return object;
                }
                tokio::task::yield_now().await;
            }
        };
        let limit = std::time::Duration::from_mins(1);
        let waited = tokio::time::timeout(limit, waiting).await;
        waited.unwrap_or_else(|_| panic!("{path} stays {:#?}", self.object(path)))
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.serving.abort();
        if !std::thread::panicking() {
            let beyond = &self.state.lock().unwrap().beyond;
            assert!(beyond.is_empty(), "calls beyond the rights: {beyond:#?}");
        }
    }
}

/// The API server at this address, which need not answer.
pub(crate) fn server_at(address: &str) -> ApiServer {
    let config = kube::Config::new(address.parse().unwrap());
    ApiServer::new(kube::Client::try_from(config).unwrap())
}

async fn answer(
    stream: TcpStream,
    rights: &[Right],
    state: Arc<Mutex<State>>,
    events: broadcast::Sender<()>,
) {
    let mut stream = BufReader::new(stream);
    let Some(call) = read(&mut stream).await else {
        return;
    };
    let subscription = events.subscribe();
    let words = format!("{} {}", call.method, call.path);
    let is = |right: &Right| right.0 == call.method && call.path.starts_with(right.1);
    let is_watch = call.query.contains("watch=true");
    let (code, body) = {
        let mut state = state.lock().unwrap();
        if !rights.iter().any(is) {
            state.beyond.push(words.clone());
        }
        let is_denied = state.denied.iter().any(is);
        if !is_watch {
            state.calls.push(words);
        }
        if is_denied {
            failure(403, "Forbidden")
        } else {
            respond(&mut state, &events, &call)
        }
    };
    if is_watch && code == 200 {
        watch(stream.into_inner(), &call, &state, subscription).await;
        return;
    }
    let body = body.to_string();
    let head = format!(
        "HTTP/1.1 {code} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    let _ = stream.write_all(head.as_bytes()).await;
    let _ = stream.write_all(body.as_bytes()).await;
    let _ = stream.shutdown().await;
}

async fn read(stream: &mut BufReader<TcpStream>) -> Option<Call> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok()?;
    let mut words = line.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let (mut length, mut content_type) = (0, String::new());
    loop {
        let mut header = String::new();
        stream.read_line(&mut header).await.ok()?;
        let Some((name, value)) = header.trim_end().split_once(": ") else {
            break;
        };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().ok()?,
            "content-type" => value.clone_into(&mut content_type),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    Some(Call {
        method,
        path: path.to_owned(),
        query: query.to_owned(),
        content_type,
        body: serde_json::from_slice(&body).unwrap_or_default(),
    })
}

async fn watch(
    mut stream: TcpStream,
    call: &Call,
    state: &Mutex<State>,
    mut events: broadcast::Receiver<()>,
) {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n";
    let _ = stream.write_all(head.as_bytes()).await;
    let from = call
        .query
        .split('&')
        .find_map(|part| part.strip_prefix("resourceVersion="));
    let mut seen: u64 = from.unwrap().parse().unwrap();
    loop {
        let mut lines = String::new();
        for (version, path, change) in &state.lock().unwrap().changes {
            if *version > seen && matches(call, path, &change["object"]) {
                lines.push_str(&change.to_string());
                lines.push('\n');
            }
            seen = seen.max(*version);
        }
        if stream.write_all(lines.as_bytes()).await.is_err() {
            return;
        }
        // One that lags reads all that it missed.
        if let Err(broadcast::error::RecvError::Closed) = events.recv().await {
            return;
        }
    }
}

/// Whether an object belongs to the list that is asked for, of one namespace or of all.
fn matches(call: &Call, path: &str, object: &Value) -> bool {
    let (parent, _) = path.rsplit_once('/').unwrap();
    let selector = call
        .query
        .split('&')
        .find_map(|part| part.strip_prefix("labelSelector="));
    let label = selector.map(|selector| selector.replace("%2F", "/"));
    let is_labelled = label.is_none_or(|label| object["metadata"]["labels"].get(&label).is_some());
    let everywhere = parent.split_once("/namespaces/").map(|(root, rest)| {
        let (_, plural) = rest.split_once('/').unwrap();
        format!("{root}/{plural}")
    });
    is_labelled && (parent == call.path || everywhere.as_deref() == Some(call.path.as_str()))
}

fn respond(state: &mut State, events: &broadcast::Sender<()>, call: &Call) -> (u16, Value) {
    let path = call.path.trim_end_matches("/status");
    let current = state.objects.get(path).cloned();
    match (call.method.as_str(), current) {
        ("GET", Some(object)) => (200, object),
        ("GET", None) if is_list(path) => list(state, call),
        ("POST", _) => {
            let name = call.body["metadata"]["name"].as_str().unwrap();
            let path = format!("{path}/{name}");
            if state.objects.contains_key(&path) {
                return failure(409, "AlreadyExists");
            }
            let mut object = call.body.clone();
            object["metadata"]["uid"] = json!(format!("uid-{name}"));
            (201, store(state, events, &path, object))
        }
        ("PATCH", Some(current)) => {
            let version = &call.body["metadata"]["resourceVersion"];
            if !version.is_null() && *version != current["metadata"]["resourceVersion"] {
                return failure(409, "Conflict");
            }
            let mut object = current;
            if call.content_type.contains("apply") {
                apply(&mut object, &call.body);
            } else {
                json_patch::merge(&mut object, &call.body);
            }
            (200, store(state, events, path, object))
        }
        ("DELETE", Some(current)) => {
            let uid = &call.body["preconditions"]["uid"];
            if !uid.is_null() && *uid != current["metadata"]["uid"] {
                return failure(409, "Conflict");
            }
            delete(state, events, path);
            (200, json!({"kind": "Status", "status": "Success"}))
        }
        _ => failure(404, "NotFound"),
    }
}

fn is_list(path: &str) -> bool {
    path.rsplit('/').next().is_some_and(|plural| {
        [
            "objectstores",
            "backups",
            "roles",
            "rolebindings",
            "secrets",
        ]
        .contains(&plural)
    })
}

/// A page holds two objects.
fn list(state: &State, call: &Call) -> (u16, Value) {
    let all: Vec<&Value> = state
        .objects
        .iter()
        .filter(|(path, object)| matches(call, path, object))
        .map(|(_, object)| object)
        .collect();
    let token = call
        .query
        .split('&')
        .find_map(|part| part.strip_prefix("continue="));
    let from: usize = token.map_or(0, |token| token.parse().unwrap());
    let page: Vec<&&Value> = all.iter().skip(from).take(2).collect();
    let next = from + page.len();
    let mut metadata = json!({"resourceVersion": state.version.to_string()});
    if next < all.len() {
        metadata["continue"] = json!(next.to_string());
    }
    (
        200,
        json!({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": page}),
    )
}

/// Conditions are merged by their type; the rest as a merge patch would.
fn apply(object: &mut Value, wanted: &Value) {
    let mut conditions = object["status"]["conditions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let mut rest = wanted.clone();
    let applied = rest["status"]["conditions"].take();
    for condition in applied.as_array().unwrap() {
        conditions.retain(|before| before["type"] != condition["type"]);
        conditions.push(condition.clone());
    }
    rest["status"]["conditions"] = json!(conditions);
    json_patch::merge(object, &rest);
}

fn store(
    state: &mut State,
    events: &broadcast::Sender<()>,
    path: &str,
    mut object: Value,
) -> Value {
    state.version += 1;
    object["metadata"]["resourceVersion"] = json!(state.version.to_string());
    let before = state.objects.insert(path.to_owned(), object.clone());
    let kind = if before.is_some() {
        "MODIFIED"
    } else {
        "ADDED"
    };
    change(state, events, path, json!({"type": kind, "object": object}));
    object
}

fn delete(state: &mut State, events: &broadcast::Sender<()>, path: &str) {
    let mut object = state.objects.remove(path).unwrap();
    state.version += 1;
    object["metadata"]["resourceVersion"] = json!(state.version.to_string());
    change(
        state,
        events,
        path,
        json!({"type": "DELETED", "object": object}),
    );
}

fn change(state: &mut State, events: &broadcast::Sender<()>, path: &str, change: Value) {
    let version = state.version;
    state.changes.push((version, path.to_owned(), change));
    // Nobody may be watching.
    let _ = events.send(());
}

fn failure(code: u16, reason: &str) -> (u16, Value) {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": format!("it was answered: {reason}"), "reason": reason, "code": code,
    });
    (code, status)
}
