use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::AtomicBool;

use nix::libc::linger;
use nix::sys::socket::{setsockopt, sockopt};

use super::*;

const INFO: &str = concat!(
    r#"INFO {"server_id":"x","server_name":"x","version":"2.15.1","go":"go1","host":"127.0.0.1","port":4222,"headers":true,"#,
    r#""max_payload":1048576,"proto":1,"client_id":1}"#,
    "\r\n"
);

/// Answers the first ping of a connection, and resets it after this pause. Returns whether a client has connected.
fn greet_and_reset(mut stream: &TcpStream, pause: Duration) -> bool {
    let _ = stream.write_all(INFO.as_bytes());
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    if !lines.any(|line| line == "PING") {
        return false;
    }
    let _ = stream.write_all(b"PONG\r\n");
    let until = Instant::now() + pause;
    while Instant::now() < until {}
    setsockopt(stream, sockopt::Linger, &linger { l_onoff: 1, l_linger: 0 }).expect("an option");
    true
}

#[test]
fn a_client_whose_connection_is_reset_while_it_is_made_does_not_connect_again() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("nats://{}", listener.local_addr().expect("an address"));
    let (over, clients) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let (ends, counter) = (Arc::clone(&over), Arc::clone(&clients));
    let server = thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            if ends.load(Ordering::Relaxed) {
                break;
            }
            // The client may receive the answer and then find its next write refused: how soon that must be depends on the machine.
            let pause = Duration::from_micros(counter.load(Ordering::Relaxed) as u64 % 40 * 5);
            counter.fetch_add(usize::from(greet_and_reset(&stream, pause)), Ordering::Relaxed);
        }
    });
    let config =
        BrokerConfig { servers: vec![url.clone()], timeout: Duration::from_secs(2), ..BrokerConfig::default() };
    let cluster = Arc::new(Cluster::new(&config).expect("an address"));
    let failures = (0..10_000).filter(|_| Link::open(&cluster, &Signal::default()).is_err()).take(8).count();
    assert_eq!(failures, 8, "connections that were not made");
    // Clients that are lost after they were made wait to be closed, and connect once more then.
    let settled = Instant::now() + Duration::from_secs(20);
    let mut before = usize::MAX;
    while std::mem::replace(&mut before, clients.load(Ordering::Relaxed)) != clients.load(Ordering::Relaxed) {
        assert!(Instant::now() < settled, "clients connect again and again");
        thread::sleep(Duration::from_secs(1));
    }
    over.store(true, Ordering::Relaxed);
    drop(TcpStream::connect(url.trim_start_matches("nats://")));
    server.join().expect("no panic");
}
