//! A publisher that says to the server what no client library would: any bytes as headers, any bytes as a subject.
//!
//! In the protocol's own words: <https://docs.nats.io/reference/reference-protocols/nats-protocol>.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Messages sent before their acknowledgements are read, at most.
const WINDOW: usize = 500;

pub struct Raw {
    from: BufReader<TcpStream>,
    unacknowledged: usize,
    /// Answers of the stream that came while sending.
    sequences: Vec<u64>,
}

impl Raw {
    pub fn connect(url: &str) -> Self {
        let address = url.rsplit_once("//").expect("a URL").1;
        let stream = TcpStream::connect(address).expect("connects");
        stream.set_nodelay(true).expect("sets");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("sets");
        let mut raw = Self { from: BufReader::new(stream), unacknowledged: 0, sequences: Vec::new() };
        let options = r#"{"verbose":false,"pedantic":false,"headers":true,"no_responders":true,"protocol":1}"#;
        raw.write(format!("CONNECT {options}\r\nSUB raw.acks.{0} 1\r\n", raw.inbox()).as_bytes());
        raw
    }

    /// Unique on its server: the local port of this connection.
    fn inbox(&self) -> u16 {
        self.from.get_ref().local_addr().expect("connected").port()
    }

    /// Publishes and waits for the stream's word: its sequence there.
    pub fn publish(&mut self, subject: impl AsRef<[u8]>, headers: Option<&[u8]>, payload: impl AsRef<[u8]>) -> u64 {
        self.send(subject, headers, payload);
        self.finish()
    }

    /// Publishes all of these and waits for the stream's word: the last one's sequence there.
    pub fn publish_all(&mut self, subject: &str, payloads: &[String]) -> u64 {
        for payload in payloads {
            self.send(subject, None, payload);
        }
        self.finish()
    }

    /// Publishes without waiting, but for room in the window.
    pub fn send(&mut self, subject: impl AsRef<[u8]>, headers: Option<&[u8]>, payload: impl AsRef<[u8]>) {
        if self.unacknowledged >= WINDOW {
            self.finish();
        }
        let (headers_verb, headers, payload) = (headers.is_some(), headers.unwrap_or_default(), payload.as_ref());
        let mut message = if headers_verb { b"HPUB ".to_vec() } else { b"PUB ".to_vec() };
        message.extend_from_slice(subject.as_ref());
        let ack = format!(" raw.acks.{} ", self.inbox());
        let total = headers.len() + payload.len();
        let sizes = if headers_verb { format!("{} {total}", headers.len()) } else { total.to_string() };
        message.extend_from_slice(format!("{ack}{sizes}\r\n").as_bytes());
        message.extend_from_slice(headers);
        message.extend_from_slice(payload);
        message.extend_from_slice(b"\r\n");
        self.write(&message);
        self.unacknowledged += 1;
    }

    /// Waits until the stream has acknowledged all; the last one's sequence.
    pub fn finish(&mut self) -> u64 {
        while self.unacknowledged > 0 {
            let sequence = self.acknowledgement();
            self.sequences.push(sequence);
            self.unacknowledged -= 1;
        }
        *self.sequences.last().expect("something was sent")
    }

    fn acknowledgement(&mut self) -> u64 {
        loop {
            let mut line = String::new();
            let read = self.from.read_line(&mut line).expect("the server speaks");
            assert!(read > 0, "the server hung up");
            let words: Vec<_> = line.split_whitespace().collect();
            match words.first().copied() {
                Some("PING") => self.write(b"PONG\r\n"),
                Some("MSG") => {
                    let length: usize = words.last().and_then(|length| length.parse().ok()).expect("a length");
                    let mut body = vec![0; length + 2];
                    self.from.read_exact(&mut body).expect("the server speaks");
                    let body: serde_json::Value = serde_json::from_slice(&body).expect("an acknowledgement");
                    assert!(body["error"].is_null(), "not stored: {body}");
                    return body["seq"].as_u64().expect("a sequence");
                }
                Some("INFO" | "PONG" | "+OK") => {}
                _ => panic!("the server says {line:?}"),
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        self.from.get_mut().write_all(bytes).expect("the server listens");
    }
}
