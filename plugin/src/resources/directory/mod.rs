//! Objects in a directory of YAML files.
