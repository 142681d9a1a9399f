//! A fake HTTP/1.1 endpoint of one test: answers by a function, and remembers what was asked.
//!
//! Not a server for anything else: one thread for each connection, bodies in memory.

use std::fmt::{self, Write as _};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

/// One request, as it arrived.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// `GET` and its like.
    pub method: String,
    /// Path and query, as they were sent.
    pub target: String,
    /// Names in lower case, in the order of arrival.
    pub headers: Vec<(String, String)>,
    /// The body, chunks put together.
    pub body: Vec<u8>,
}

impl Request {
    /// What comes before the query, as it was sent.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// What comes after the question mark, as it was sent; empty where there is none.
    pub fn query(&self) -> &str {
        self.target.split_once('?').map_or("", |(_, query)| query)
    }

    /// The first header of this name, in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(header, _)| header == name)
            .map(|(_, value)| value.as_str())
    }

    /// The decoded value of a field of the query; empty for a field without a value.
    pub fn query_value(&self, name: &str) -> Option<String> {
        field(self.query(), name)
    }

    /// The decoded value of a field of a form in the body.
    pub fn form_value(&self, name: &str) -> Option<String> {
        field(&self.text(), name)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// What is answered.
#[derive(Debug, Clone)]
pub struct Response {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    end: End,
}

/// How the answer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Whole, and the connection stays.
    Whole,
    /// The connection closes in the middle of the body.
    Cut,
    /// The connection closes without an answer.
    Dropped,
}

impl Response {
    /// An answer with no body.
    pub fn new(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Vec::new(),
            end: End::Whole,
        }
    }

    /// An answer with a body of this type.
    pub fn with_body(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        let mut response = Self::new(status).header("content-type", content_type);
        response.body = body.into();
        response
    }

    /// A JSON answer.
    pub fn json(status: u16, body: &str) -> Self {
        Self::with_body(status, "application/json", body)
    }

    /// An XML answer.
    pub fn xml(status: u16, body: &str) -> Self {
        Self::with_body(status, "application/xml", body)
    }

    /// The same with one more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same, but the connection breaks after half of the body.
    #[must_use]
    pub fn cut(mut self) -> Self {
        self.end = End::Cut;
        self
    }

    /// No answer at all: the request was taken, and the connection breaks.
    pub fn dropped() -> Self {
        let mut response = Self::new(500);
        response.end = End::Dropped;
        response
    }
}

/// A running endpoint; stops when it is dropped.
pub struct Endpoint {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    answer: Box<dyn Fn(&Request) -> Response + Send + Sync>,
    requests: Mutex<Vec<Request>>,
    connections: Mutex<Vec<(TcpStream, JoinHandle<()>)>>,
    is_stopped: AtomicBool,
}

impl Endpoint {
    /// Starts one on a free port of the loopback interface. Requests of several connections are
    /// answered side by side; each is remembered before it is answered.
    pub fn start(answer: impl Fn(&Request) -> Response + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0")
            .unwrap_or_else(|error| panic!("cannot listen on a free port: {error}"));
        let address = listener
            .local_addr()
            .unwrap_or_else(|error| panic!("a listener has an address: {error}"));
        let shared = Arc::new(Shared {
            answer: Box::new(answer),
            requests: Mutex::default(),
            connections: Mutex::default(),
            is_stopped: AtomicBool::new(false),
        });
        let theirs = Arc::clone(&shared);
        let acceptor = thread::spawn(move || accept(&listener, &theirs));
        Self {
            address,
            shared,
            acceptor: Some(acceptor),
        }
    }

    /// Its URL, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// All that was asked so far, oldest first.
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.shared.requests).clone()
    }

    /// The same, and forgets them.
    pub fn take_requests(&self) -> Vec<Request> {
        std::mem::take(&mut lock(&self.shared.requests))
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Endpoint").field(&self.address).finish()
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.shared.is_stopped.store(true, Ordering::SeqCst);
        // The acceptor looks at the flag after each connection: this is the last one.
        let woken = TcpStream::connect(self.address);
        if let (Some(acceptor), Ok(_)) = (self.acceptor.take(), woken) {
            let _ = acceptor.join();
        }
        for (stream, thread) in lock(&self.shared.connections).drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
            let _ = thread.join();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming().flatten() {
        if shared.is_stopped.load(Ordering::SeqCst) {
            return;
        }
        let Ok(own) = stream.try_clone() else {
            continue;
        };
        let theirs = Arc::clone(shared);
        let thread = thread::spawn(move || {
            // A client may go away at any moment: that is its right, and no failure of the test.
            let mut connection = BufReader::new(stream);
            let _ = serve(&mut connection, &theirs);
            // Dropping it would not do: the endpoint keeps a handle of its own.
            let _ = connection.get_ref().shutdown(Shutdown::Both);
        });
        lock(&shared.connections).push((own, thread));
    }
}

/// Answers one connection's requests until it ends.
fn serve(connection: &mut BufReader<TcpStream>, shared: &Shared) -> io::Result<()> {
    while let Some(request) = receive(connection)? {
        let is_head = request.method == "HEAD";
        lock(&shared.requests).push(request.clone());
        let response = (shared.answer)(&request);
        let stream = connection.get_mut();
        if response.end != End::Dropped {
            stream.write_all(&head_of(&response))?;
            let sent = match response.end {
                End::Cut => &response.body[..response.body.len() / 2],
                _ if is_head => &[],
                _ => &response.body[..],
            };
            stream.write_all(sent)?;
            stream.flush()?;
        }
        if response.end != End::Whole {
            return Ok(());
        }
    }
    Ok(())
}

fn head_of(response: &Response) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {} -\r\n", response.status);
    for (name, value) in &response.headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    let has_length = response
        .headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    if !has_length && response.status != 204 && response.status != 304 {
        let _ = write!(head, "content-length: {}\r\n", response.body.len());
    }
    head.push_str("\r\n");
    head.into_bytes()
}

/// The next request; `None` where the client has closed the connection between two.
fn receive(connection: &mut BufReader<TcpStream>) -> io::Result<Option<Request>> {
    let first = line(connection)?;
    if first.is_empty() {
        return Ok(None);
    }
    let mut words = first.split(' ').map(str::to_owned);
    let mut request = Request {
        method: words.next().unwrap_or_default(),
        target: words.next().unwrap_or_default(),
        ..Request::default()
    };
    loop {
        let header = line(connection)?;
        let Some((name, value)) = header.split_once(':') else {
            break;
        };
        let name = name.to_ascii_lowercase();
        request.headers.push((name, value.trim().to_owned()));
    }
    if request.header("expect").is_some() {
        connection
            .get_mut()
            .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    if request.header("transfer-encoding").is_some() {
        request.body = chunks(connection)?;
    } else {
        let length = request
            .header("content-length")
            .and_then(|length| length.parse().ok())
            .unwrap_or(0);
        request.body = vec![0; length];
        connection.read_exact(&mut request.body)?;
    }
    Ok(Some(request))
}

fn chunks(connection: &mut BufReader<TcpStream>) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let size = line(connection)?;
        let digits = size.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(digits, 16).map_err(io::Error::other)?;
        let from = body.len();
        body.resize(from + size, 0);
        connection.read_exact(&mut body[from..])?;
        // The line that ends the chunk, or, after the last one, the trailers.
        while !line(connection)?.is_empty() {}
        if size == 0 {
            return Ok(body);
        }
    }
}

/// One line without its end; empty at the end of the connection.
fn line(connection: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut bytes = Vec::new();
    connection.read_until(b'\n', &mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
}

/// The decoded value of a field of `a=b&c=d`.
fn field(encoded: &str, name: &str) -> Option<String> {
    encoded.split('&').find_map(|pair| {
        let (found, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(found) == name).then(|| decoded(value))
    })
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = tail
            .get(..2)
            .filter(|_| *first == b'%')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        let byte = if *first == b'+' { b' ' } else { *first };
        bytes.push(escaped.unwrap_or(byte));
        rest = if escaped.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange(endpoint: &Endpoint, sent: &str) -> String {
        let mut stream = TcpStream::connect(endpoint.address).expect("it listens");
        stream.write_all(sent.as_bytes()).expect("it reads");
        stream.shutdown(Shutdown::Write).expect("it is open");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        answer
    }

    #[test]
    fn requests_of_one_connection_are_remembered_and_answered() {
        let endpoint = Endpoint::start(|request| match request.path() {
            "/a" => Response::json(200, "{}").header("x-own", "1"),
            _ => Response::new(404),
        });
        let sent = "PUT /a?b=c%20d&e HTTP/1.1\r\nContent-Length: 3\r\nX-Key: v\r\n\r\nabc\
            POST /b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n";
        let answer = exchange(&endpoint, sent);
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 2, "{answer}");
        assert!(answer.contains("x-own: 1\r\n") && answer.contains("HTTP/1.1 404"));
        let requests = endpoint.take_requests();
        assert_eq!(requests[0].header("x-key"), Some("v"));
        assert_eq!(requests[0].query_value("b").as_deref(), Some("c d"));
        assert_eq!(requests[0].query_value("e").as_deref(), Some(""));
        assert!(requests.iter().all(|request| request.body == b"abc"));
        assert!(endpoint.requests().is_empty());
    }

    #[test]
    fn an_answer_can_break_off() {
        let endpoint = Endpoint::start(|request| match request.path() {
            "/cut" => Response::with_body(200, "text/plain", "0123456789").cut(),
            _ => Response::dropped(),
        });
        let answer = exchange(&endpoint, "GET /cut HTTP/1.1\r\n\r\n");
        assert!(
            answer.ends_with("content-length: 10\r\n\r\n01234"),
            "{answer}"
        );
        assert_eq!(exchange(&endpoint, "GET / HTTP/1.1\r\n\r\n"), "");
    }
}
