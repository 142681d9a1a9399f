//! Pages of a listing for engines that make their own: where a page ends and how the next goes on.

use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::{ListPage, ListRequest, ObjectMeta, PageToken};

/// The most entries of one page.
const ENTRIES_MAX: usize = 1000;

/// A listing's place: everything up to here has been said.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// Up to and with this key.
    Key(String),
    /// Up to and with every key that begins with this.
    Prefix(String),
}

impl Place {
    fn to_token(&self) -> PageToken {
        match self {
            Self::Key(key) => PageToken(format!("k{key}")),
            Self::Prefix(prefix) => PageToken(format!("p{prefix}")),
        }
    }

    fn from_token(token: &PageToken) -> Option<Self> {
        let mut characters = token.0.chars();
        match characters.next()? {
            'k' => Some(Self::Key(characters.as_str().to_owned())),
            'p' => Some(Self::Prefix(characters.as_str().to_owned())),
            _ => None,
        }
    }
}

/// One page under construction. Entries are offered in byte order of their keys.
#[derive(Debug)]
pub(crate) struct PageBuilder {
    prefix: String,
    is_delimited: bool,
    entries_max: usize,
    begin: Option<Place>,
    last: Option<Place>,
    page: ListPage,
}

impl PageBuilder {
    /// The page that `request` asks for.
    pub(crate) fn new(request: &ListRequest, location: &str) -> Result<Self, StoreError> {
        let begin = match (&request.token, &request.start_after) {
            (Some(token), _) => {
                let place = Place::from_token(token).ok_or_else(|| StoreError {
                    operation: "list",
                    subject: format!("{location}/{}", request.prefix),
                    kind: StoreErrorKind::Other,
                    source: Some("the page token is of another store".into()),
                })?;
                Some(place)
            }
            (None, Some(key)) => Some(Place::Key(key.clone())),
            (None, None) => None,
        };
        let entries_max = request
            .page_size_max
            .map_or(ENTRIES_MAX, |size| usize::from(size).clamp(1, ENTRIES_MAX));
        Ok(Self {
            prefix: request.prefix.clone(),
            is_delimited: request.is_delimited,
            entries_max,
            begin,
            last: None,
            page: ListPage::default(),
        })
    }

    /// Whether no key that begins with `prefix` can be in this page: each has been said in an earlier one.
    pub(crate) fn is_before(&self, prefix: &str) -> bool {
        match &self.begin {
            None => false,
            Some(Place::Key(key)) => prefix < key.as_str() && !key.starts_with(prefix),
            Some(Place::Prefix(said)) => {
                prefix.starts_with(said.as_str())
                    || (prefix < said.as_str() && !said.starts_with(prefix))
            }
        }
    }

    /// The common prefix that `key` is rolled up into, if it is.
    pub(crate) fn rolled_up<'a>(&self, key: &'a str) -> Option<&'a str> {
        let rest = key.strip_prefix(self.prefix.as_str())?;
        let slash = rest.find('/').filter(|_| self.is_delimited)?;
        Some(&key[..=self.prefix.len() + slash])
    }

    /// Offers an object. False when the page is full and `meta` belongs to the next one.
    pub(crate) fn offer(&mut self, meta: ObjectMeta) -> bool {
        let key = meta.key.as_str();
        if !key.starts_with(&self.prefix) || self.is_said(key) {
            return true;
        }
        let rolled_up = self.rolled_up(key).map(str::to_owned);
        if let Some(prefix) = &rolled_up
            && self.page.prefixes.last() == Some(prefix)
        {
            return true;
        }
        if self.page.objects.len() + self.page.prefixes.len() == self.entries_max {
            self.page.next = self.last.as_ref().map(Place::to_token);
            return false;
        }
        if let Some(prefix) = rolled_up {
            self.last = Some(Place::Prefix(prefix.clone()));
            self.page.prefixes.push(prefix);
        } else {
            self.last = Some(Place::Key(key.to_owned()));
            self.page.objects.push(meta);
        }
        true
    }

    /// The page.
    pub(crate) fn finish(self) -> ListPage {
        self.page
    }

    fn is_said(&self, key: &str) -> bool {
        match &self.begin {
            None => false,
            Some(Place::Key(said)) => key <= said.as_str(),
            Some(Place::Prefix(said)) => key <= said.as_str() || key.starts_with(said.as_str()),
        }
    }
}
