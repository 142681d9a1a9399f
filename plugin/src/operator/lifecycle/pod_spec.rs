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
    /// The main container is missing.
    NoMainContainer,
    /// This field is no list.
    NotAList(&'static str),
}

/// Puts the sidecar in, or brings the one that is there up to date.
pub(super) fn inject(
    pod_spec: &mut Map<String, Value>,
    main_container: &str,
    sidecar: &Sidecar,
) -> Result<(), Problem> {
    let volumes = list(pod_spec, "volumes")?;
    if position(volumes, SOCKETS_VOLUME).is_none() {
        volumes.push(json!({"name": SOCKETS_VOLUME, "emptyDir": {}}));
    }
    let present = position(volumes, sidecar.certificates_volume);
    match (&sidecar.certificates, present) {
        (Some(volume), Some(index)) => volumes[index].clone_from(volume),
        (Some(volume), None) => volumes.push(volume.clone()),
        (None, Some(index)) => drop(volumes.remove(index)),
        (None, None) => {}
    }

    let containers = list(pod_spec, "containers")?;
    let main = position(containers, main_container).ok_or(Problem::NoMainContainer)?;
    let main = containers[main]
        .as_object_mut()
        .ok_or(Problem::NoMainContainer)?;
    let mounts = list(main, "volumeMounts")?;
    if position(mounts, SOCKETS_VOLUME).is_none() {
        mounts.push(mount(SOCKETS_VOLUME, SOCKETS_PATH));
    }
    let main = main.clone();

    let containers = list(pod_spec, "initContainers")?;
    if let Some(index) = position(containers, sidecar.name) {
        containers[index] = sidecar.container(&main, Some(&containers[index]));
    } else {
        let bootstrap = position(containers, BOOTSTRAP_INSTANCE);
        let index = bootstrap.unwrap_or(containers.len());
        containers.insert(index, sidecar.container(&main, None));
    }
    Ok(())
}

/// The list in this field, made if there is none.
fn list<'a>(
    object: &'a mut Map<String, Value>,
    field: &'static str,
) -> Result<&'a mut Vec<Value>, Problem> {
    let value = object.entry(field).or_insert_with(|| json!([]));
    if value.is_null() {
        *value = json!([]);
    }
    value.as_array_mut().ok_or(Problem::NotAList(field))
}

fn position(list: &[Value], name: &str) -> Option<usize> {
    list.iter()
        .position(|item| item.get("name").and_then(Value::as_str) == Some(name))
}
