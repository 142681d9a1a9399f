//! A YAML file of several documents, of which one is changed and the others keep their very bytes.
//!
//! Not here: which files there are, and what the documents mean.

use serde_norway::Value;

/// The text of a file, cut at the lines that part its documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Documents {
    /// Each with the line in front of it that begins it, where there is one.
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    /// `---` and its line end, or nothing.
    mark: String,
    text: String,
}

impl Documents {
    /// Cuts the text. A line that begins with `---` in the first column always parts documents.
    pub(super) fn cut(text: &str) -> Self {
        let mut parts = vec![Part {
            mark: String::new(),
            text: String::new(),
        }];
        for line in text.split_inclusive('\n') {
            let bare = line.trim_end();
            if bare == "---" || bare.starts_with("--- ") {
                let (mark, rest) = line.split_at(3);
                let (mark, rest) = if bare == "---" {
                    (line, "")
                } else {
                    (mark, rest)
                };
                parts.push(Part {
                    mark: mark.to_owned(),
                    text: rest.to_owned(),
                });
            } else if let Some(last) = parts.last_mut() {
                last.text.push_str(line);
            }
        }
        Self { parts }
    }

    /// The whole text again.
    pub(super) fn to_text(&self) -> String {
        let parts = self.parts.iter();
        parts.fold(String::new(), |mut text, part| {
            text.push_str(&part.mark);
            text.push_str(&part.text);
            text
        })
    }

    /// Each document that is not empty, with its place.
    pub(super) fn read(&self) -> impl Iterator<Item = (usize, Result<Value, serde_norway::Error>)> {
        let parts = self.parts.iter().enumerate();
        parts.filter_map(|(at, part)| {
            let value = serde_norway::from_str::<Value>(&part.text);
            let is_empty = matches!(value, Ok(Value::Null));
            (!is_empty).then_some((at, value))
        })
    }

    /// Puts another document at this place.
    pub(super) fn replace(&mut self, at: usize, value: &Value) -> Result<(), serde_norway::Error> {
        let text = serde_norway::to_string(value)?;
        if let Some(part) = self.parts.get_mut(at) {
            if part.mark == "---" {
                part.mark.push('\n');
            }
            part.text = text;
        }
        Ok(())
    }

    /// Takes the document at this place away; tells whether any is left.
    pub(super) fn remove(&mut self, at: usize) -> bool {
        if at < self.parts.len() {
            self.parts.remove(at);
        }
        self.read().next().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "# first\na: 1\n---\n# second\nb: |\n  x\n   --- y\n--- # third\nc: 3\n---\n";

    #[test]
    fn what_is_not_changed_keeps_its_bytes() {
        let mut documents = Documents::cut(TEXT);
        assert_eq!(documents.to_text(), TEXT);
        let found: Vec<usize> = documents.read().map(|(at, _)| at).collect();
        assert_eq!(found, [0, 1, 2]);
        let value = serde_norway::from_str("b: 9").unwrap();
        documents.replace(1, &value).unwrap();
        assert_eq!(
            documents.to_text(),
            "# first\na: 1\n---\nb: 9\n--- # third\nc: 3\n---\n"
        );
        assert!(documents.remove(1));
        assert_eq!(
            documents.to_text(),
            "# first\na: 1\n--- # third\nc: 3\n---\n"
        );
        assert!(documents.remove(0));
        assert!(!documents.remove(0));
    }
}
