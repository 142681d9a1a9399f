//! Putting a sidecar into a Pod's spec: volumes, the main container's mount, the container.
//!
//! Not here: what the sidecar is.

use serde_json::{Map, Value, json};

use crate::operator::lifecycle::container::{SOCKETS_PATH, SOCKETS_VOLUME, Sidecar, mount};

/// The operator's container that recovers inside the Pod: the sidecar must run before it.
const BOOTSTRAP_INSTANCE: &str = "bootstrap-instance";

/// What is wrong with a Pod's spec.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Problem {
    /// There is none.
    NoPodSpec,
    /// The main container is missing.
    NoMainContainer,
    /// This field is no list.
    NotAList(String),
}

/// The operations (RFC 6902) that put the sidecar into the Pod's spec at `path` in `object`, or
/// bring the one that is there up to date.
pub(super) fn inject(
    object: &Value,
    path: &str,
    main_container: &str,
    sidecar: &Sidecar,
) -> Result<Vec<Value>, Problem> {
    let pod_spec = object.pointer(path).and_then(Value::as_object);
    pod_spec.ok_or(Problem::NoPodSpec)?;
    let mut edit = Edit {
        object: object.clone(),
        operations: Vec::new(),
    };

    let volumes = format!("{path}/volumes");
    if edit.position(&volumes, SOCKETS_VOLUME)?.is_none() {
        edit.push(&volumes, json!({"name": SOCKETS_VOLUME, "emptyDir": {}}))?;
    }
    let present = edit.position(&volumes, sidecar.certificates_volume)?;
    match (&sidecar.certificates, present) {
        (Some(volume), Some(index)) => edit.replace(&volumes, index, volume.clone()),
        (Some(volume), None) => edit.push(&volumes, volume.clone())?,
        (None, Some(index)) => edit.remove(&volumes, index),
        (None, None) => {}
    }

    let containers = format!("{path}/containers");
    let index = edit.position(&containers, main_container)?;
    let main = format!("{containers}/{}", index.ok_or(Problem::NoMainContainer)?);
    let mounts = format!("{main}/volumeMounts");
    if edit.position(&mounts, SOCKETS_VOLUME)?.is_none() {
        edit.push(&mounts, mount(SOCKETS_VOLUME, SOCKETS_PATH))?;
    }

    let main = edit.object.pointer(&main).and_then(Value::as_object);
    let main: Map<String, Value> = main.cloned().ok_or(Problem::NoMainContainer)?;
    let containers = format!("{path}/initContainers");
    let present = edit.position(&containers, sidecar.name)?;
    if let Some(index) = present {
        let existing = edit.list(&containers)?.get(index);
        let container = sidecar.container(&main, existing);
        edit.replace(&containers, index, container);
    } else {
        let bootstrap = edit.position(&containers, BOOTSTRAP_INSTANCE)?;
        let index = bootstrap.unwrap_or(edit.list(&containers)?.len());
        edit.insert(&containers, index, sidecar.container(&main, None));
    }
    Ok(edit.operations)
}

/// A document under change, and the operations that changed it. Lists are named by their JSON
/// pointers (RFC 6901), in which nothing here needs an escape.
struct Edit {
    object: Value,
    operations: Vec<Value>,
}

impl Edit {
    /// The list; an empty one where there is none.
    fn list(&self, list: &str) -> Result<&[Value], Problem> {
        match self.object.pointer(list) {
            None | Some(Value::Null) => Ok(&[]),
            Some(Value::Array(items)) => Ok(items),
            Some(_) => Err(Problem::NotAList(list.to_owned())),
        }
    }

    /// Where the item of this name is in the list.
    fn position(&self, list: &str, name: &str) -> Result<Option<usize>, Problem> {
        let mut items = self.list(list)?.iter();
        Ok(items.position(|item| item.get("name").and_then(Value::as_str) == Some(name)))
    }

    fn push(&mut self, list: &str, item: Value) -> Result<(), Problem> {
        let end = self.list(list)?.len();
        self.insert(list, end, item);
        Ok(())
    }

    /// Adds an item in front of the one at `index`, or at the end; makes the list if there is
    /// none.
    fn insert(&mut self, list: &str, index: usize, item: Value) {
        if let Some(Value::Array(items)) = self.object.pointer_mut(list) {
            let path = format!("{list}/{index}");
            let operation = json!({"op": "add", "path": path, "value": item});
            items.insert(index, item);
            self.operations.push(operation);
        } else if let Some((parent, field)) = list.rsplit_once('/')
            && let Some(Value::Object(fields)) = self.object.pointer_mut(parent)
        {
            let items = Value::Array(vec![item]);
            let operation = json!({"op": "add", "path": list, "value": items});
            fields.insert(field.to_owned(), items);
            self.operations.push(operation);
        }
    }

    fn replace(&mut self, list: &str, index: usize, item: Value) {
        let path = format!("{list}/{index}");
        if let Some(present) = self.object.pointer_mut(&path)
            && *present != item
        {
            let operation = json!({"op": "replace", "path": path, "value": item});
            *present = item;
            self.operations.push(operation);
        }
    }

    fn remove(&mut self, list: &str, index: usize) {
        if let Some(Value::Array(items)) = self.object.pointer_mut(list) {
            items.remove(index);
            let path = format!("{list}/{index}");
            self.operations.push(json!({"op": "remove", "path": path}));
        }
    }
}
