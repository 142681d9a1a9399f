//! Python literals, as some values of `backup.info` are written: a reader and a writer.
//!
//! Strings, numbers, tuples, lists, dictionaries, `None`, `True` and `False`. Not here: sets,
//! bytes, expressions, which no `backup.info` holds.

use std::fmt;

/// How deep literals may be nested: a text from a store must not exhaust the stack.
const DEPTH_MAX: usize = 32;

/// A Python literal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Literal {
    /// `None`.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// A number, in the very digits it was written with.
    Number(String),
    /// A string.
    Text(String),
    /// A tuple.
    Tuple(Vec<Literal>),
    /// A list.
    List(Vec<Literal>),
    /// A dictionary, in the order it was written.
    Dict(Vec<(Literal, Literal)>),
}

/// Text that is no literal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no Python literal at byte {at}: {expected} expected")]
pub struct LiteralError {
    /// Where reading stopped, in bytes.
    pub at: usize,
    /// What should have been there.
    pub expected: &'static str,
}

impl Literal {
    /// A string.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// A whole number.
    pub fn integer(number: u64) -> Self {
        Self::Number(number.to_string())
    }

    /// A number of seconds to the microsecond, as Python prints a float; 0 for what is no number.
    pub fn seconds(seconds: f64) -> Self {
        let rounded = (seconds * 1e6).round() / 1e6;
        let rounded = if rounded.is_finite() { rounded } else { 0.0 };
        Self::Number(print_float(rounded))
    }

    /// Reads a literal and nothing after it.
    pub fn parse(text: &str) -> Result<Self, LiteralError> {
        let mut reader = Reader { text, at: 0 };
        let literal = reader.literal(0)?;
        reader.skip_blanks();
        if reader.at == text.len() {
            Ok(literal)
        } else {
            Err(reader.expected("the end"))
        }
    }

    /// The string, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The whole number, if it is one and is not negative.
    pub fn as_integer(&self) -> Option<u64> {
        match self {
            Self::Number(digits) => digits.parse().ok(),
            _ => None,
        }
    }

    /// The elements, of a list or a tuple.
    pub fn as_elements(&self) -> Option<&[Self]> {
        match self {
            Self::List(elements) | Self::Tuple(elements) => Some(elements),
            _ => None,
        }
    }
}

/// As Python's `repr` prints a float: an exponent below 1e-4 and from 1e16 on, of two digits at
/// least, and `.0` where there is no fraction.
fn print_float(number: f64) -> String {
    let magnitude = number.abs();
    if magnitude != 0.0 && !(1e-4..1e16).contains(&magnitude) {
        let text = format!("{number:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = exponent
            .strip_prefix('-')
            .map_or(('+', exponent), |exponent| ('-', exponent));
        format!("{digits}e{sign}{exponent:0>2}")
    } else {
        format!("{number:?}")
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn literal(&mut self, depth: usize) -> Result<Literal, LiteralError> {
        if depth > DEPTH_MAX {
            return Err(self.expected("less nesting"));
        }
        self.skip_blanks();
        match self.peek() {
            Some('\'' | '"') => self.string().map(Literal::Text),
            Some('[') => self
                .elements(']', depth)
                .map(|(list, _)| Literal::List(list)),
            Some('(') => self.parenthesis(depth),
            Some('{') => self.dict(depth),
            Some('-' | '+' | '.' | '0'..='9') => self.number(),
            Some(c) if c.is_ascii_alphabetic() => self.word(),
            _ => Err(self.expected("a value")),
        }
    }

    fn word(&mut self) -> Result<Literal, LiteralError> {
        let known = [
            ("None", Literal::None),
            ("True", Literal::Bool(true)),
            ("False", Literal::Bool(false)),
        ];
        for (word, literal) in known {
            if self.text[self.at..].starts_with(word) {
                self.at += word.len();
                return Ok(literal);
            }
        }
        Err(self.expected("None, True or False"))
    }

    fn number(&mut self) -> Result<Literal, LiteralError> {
        let rest = &self.text[self.at..];
        let is_part = |c: char| c.is_ascii_digit() || matches!(c, '.' | '-' | '+' | 'e' | 'E');
        let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        let digits = &rest[..end];
        let is_number = digits.parse::<f64>().is_ok_and(f64::is_finite);
        if !is_number {
            return Err(self.expected("a number"));
        }
        self.at += end;
        Ok(Literal::Number(digits.to_owned()))
    }

    fn string(&mut self) -> Result<String, LiteralError> {
        let Some(quote) = self.take() else {
            return Err(self.expected("a quote"));
        };
        let mut string = String::new();
        loop {
            match self.take() {
                Some(c) if c == quote => return Ok(string),
                Some('\\') => string.push(self.escape()?),
                Some(c) => string.push(c),
                None => return Err(self.expected("a closing quote")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, LiteralError> {
        match self.take() {
            Some('n') => Ok('\n'),
            Some('r') => Ok('\r'),
            Some('t') => Ok('\t'),
            Some(c @ ('\\' | '\'' | '"')) => Ok(c),
            Some('x') => self.code_point(2),
            Some('u') => self.code_point(4),
            Some('U') => self.code_point(8),
            _ => Err(self.expected("an escape sequence")),
        }
    }

    fn code_point(&mut self, digits: usize) -> Result<char, LiteralError> {
        let code = self
            .text
            .get(self.at..self.at + digits)
            .filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|digits| u32::from_str_radix(digits, 16).ok())
            .and_then(char::from_u32)
            .ok_or_else(|| self.expected("the hexadecimal digits of a character"))?;
        self.at += digits;
        Ok(code)
    }

    fn parenthesis(&mut self, depth: usize) -> Result<Literal, LiteralError> {
        let (mut elements, has_comma) = self.elements(')', depth)?;
        // `(x)` is x, `(x,)` is a tuple of one.
        match (elements.len(), has_comma) {
            (1, false) => Ok(elements.remove(0)),
            _ => Ok(Literal::Tuple(elements)),
        }
    }

    /// The elements up to `close`, and whether there was a comma.
    fn elements(
        &mut self,
        close: char,
        depth: usize,
    ) -> Result<(Vec<Literal>, bool), LiteralError> {
        self.take();
        let mut elements = Vec::new();
        let mut has_comma = false;
        loop {
            self.skip_blanks();
            if self.take_if(close) {
                return Ok((elements, has_comma));
            }
            elements.push(self.literal(depth + 1)?);
            self.skip_blanks();
            if self.take_if(',') {
                has_comma = true;
            } else if self.peek() != Some(close) {
                return Err(self.expected("a comma or the closing bracket"));
            }
        }
    }

    fn dict(&mut self, depth: usize) -> Result<Literal, LiteralError> {
        self.take();
        let mut entries = Vec::new();
        loop {
            self.skip_blanks();
            if self.take_if('}') {
                return Ok(Literal::Dict(entries));
            }
            let key = self.literal(depth + 1)?;
            self.skip_blanks();
            if !self.take_if(':') {
                return Err(self.expected("a colon"));
            }
            entries.push((key, self.literal(depth + 1)?));
            self.skip_blanks();
            if !self.take_if(',') && self.peek() != Some('}') {
                return Err(self.expected("a comma or the closing brace"));
            }
        }
    }

    fn skip_blanks(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn take(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn take_if(&mut self, c: char) -> bool {
        let is_there = self.peek() == Some(c);
        if is_there {
            self.at += c.len_utf8();
        }
        is_there
    }

    fn expected(&self, expected: &'static str) -> LiteralError {
        LiteralError {
            at: self.at,
            expected,
        }
    }
}

impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Bool(true) => f.write_str("True"),
            Self::Bool(false) => f.write_str("False"),
            Self::Number(digits) => f.write_str(digits),
            Self::Text(text) => write_string(f, text),
            Self::List(elements) => write_elements(f, '[', elements, "]"),
            Self::Tuple(elements) if elements.len() == 1 => write_elements(f, '(', elements, ",)"),
            Self::Tuple(elements) => write_elements(f, '(', elements, ")"),
            Self::Dict(entries) => {
                f.write_str("{")?;
                for (index, (key, value)) in entries.iter().enumerate() {
                    let comma = if index > 0 { ", " } else { "" };
                    write!(f, "{comma}{key}: {value}")?;
                }
                f.write_str("}")
            }
        }
    }
}

fn write_elements(
    f: &mut fmt::Formatter<'_>,
    open: char,
    elements: &[Literal],
    close: &str,
) -> fmt::Result {
    write!(f, "{open}")?;
    for (index, element) in elements.iter().enumerate() {
        let comma = if index > 0 { ", " } else { "" };
        write!(f, "{comma}{element}")?;
    }
    f.write_str(close)
}

/// As Python's `repr`: single quotes, unless the text holds those and no double ones.
fn write_string(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    write!(f, "{quote}")?;
    for c in text.chars() {
        match c {
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            '\r' => f.write_str("\\r")?,
            '\t' => f.write_str("\\t")?,
            c if c == quote => write!(f, "\\{c}")?,
            c if is_printable(c) => write!(f, "{c}")?,
            c => match u32::from(c) {
                code @ 0..=0xFF => write!(f, "\\x{code:02x}")?,
                code @ 0x100..=0xFFFF => write!(f, "\\u{code:04x}")?,
                code => write!(f, "\\U{code:08x}")?,
            },
        }
    }
    write!(f, "{quote}")
}

/// Close to what Python escapes; a reader takes a character either way.
fn is_printable(c: char) -> bool {
    let is_blank_or_format = c.is_whitespace() && c != ' '
        || matches!(
            u32::from(c),
            0xAD | 0x200B..=0x200F | 0x202A..=0x202E | 0x2060..=0x206F | 0xFEFF
                | 0xE000..=0xF8FF | 0xF_0000..
        );
    !c.is_control() && !is_blank_or_format
}

#[cfg(test)]
mod tests;
