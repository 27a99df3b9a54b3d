//! A proxy that lets every train request through and loses its answer.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

pub struct Proxy {
    pub url: String,
    lost: Receiver<()>,
}

impl Proxy {
    pub fn start(server: &str) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = server.strip_prefix("http://").unwrap().to_owned();
        let (sender, lost) = channel();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                connect(client.unwrap(), TcpStream::connect(&server).unwrap(), sender.clone());
            }
        });
        Proxy { url, lost }
    }

    pub fn wait_for_a_lost_answer(&self) {
        self.lost.recv().unwrap();
    }
}

fn connect(mut client: TcpStream, mut server: TcpStream, lost: Sender<()>) {
    let is_training = Arc::new(AtomicBool::new(false));
    let (asks, mut to_client, mut from_server) = (Arc::clone(&is_training), client.try_clone().unwrap(), server.try_clone().unwrap());
    std::thread::spawn(move || {
        let mut piece = [0; 65536];
        while let Ok(count @ 1..) = client.read(&mut piece) {
            if piece.starts_with(b"POST /v1/train ") {
                asks.store(true, Ordering::SeqCst);
            }
            if server.write_all(&piece[..count]).is_err() {
                return;
            }
        }
        let _ = server.shutdown(Shutdown::Both);
    });
    std::thread::spawn(move || {
        let (mut piece, mut swallowed) = ([0; 65536], Vec::new());
        while let Ok(count @ 1..) = from_server.read(&mut piece) {
            if is_training.load(Ordering::SeqCst) {
                swallowed.extend_from_slice(&piece[..count]);
                if String::from_utf8_lossy(&swallowed).contains(r#""type":"stop""#) {
                    let _ = lost.send(());
                    let _ = to_client.shutdown(Shutdown::Both);
                    return;
                }
            } else if to_client.write_all(&piece[..count]).is_err() {
                return;
            }
        }
        let _ = to_client.shutdown(Shutdown::Both);
    });
}
