//! A hub on this machine: listing, ranges, a token, a connection that breaks once, a file that is wrong on demand.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use sha2::{Digest, Sha256};

pub struct Hub {
    pub url: String,
    state: Arc<State>,
}

struct State {
    folder: PathBuf,
    /// File and first byte of every download.
    ranges: Mutex<Vec<(String, usize)>>,
    broke: AtomicBool,
    corrupt: AtomicBool,
}

impl Hub {
    pub fn start(folder: PathBuf) -> Hub {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(State { folder, ranges: Mutex::default(), broke: AtomicBool::new(false), corrupt: AtomicBool::new(false) });
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let state = Arc::clone(&shared);
                std::thread::spawn(move || state.serve(stream.unwrap()));
            }
        });
        Hub { url, state }
    }

    pub fn ranges(&self) -> Vec<(String, usize)> {
        self.state.ranges.lock().unwrap().clone()
    }

    pub fn corrupt(&self) {
        self.state.corrupt.store(true, Ordering::SeqCst);
    }
}

impl State {
    fn serve(&self, mut stream: TcpStream) {
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
        let Some(request) = lines.next() else { return };
        let headers: Vec<String> = lines.take_while(|line| !line.is_empty()).map(|line| line.to_lowercase()).collect();
        let path = request.split(' ').nth(1).unwrap().to_owned();
        if !headers.iter().any(|h| h == "authorization: bearer secret") {
            write!(stream, "HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap();
            return;
        }
        if path.starts_with("/api/") {
            let body = self.listing();
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len()).unwrap();
            return;
        }
        let name = path.rsplit('/').next().unwrap().to_owned();
        let mut bytes = std::fs::read(self.folder.join(&name)).unwrap();
        if self.corrupt.load(Ordering::SeqCst) && name == "model.safetensors" {
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
        }
        let from = headers.iter().find_map(|h| h.strip_prefix("range: bytes=")?.trim_end_matches('-').parse().ok()).unwrap_or(0usize);
        self.ranges.lock().unwrap().push((name.clone(), from));
        let status = if from > 0 { "206 Partial Content" } else { "200 OK" };
        write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", bytes.len() - from).unwrap();
        let breaks = name == "model.safetensors" && !self.broke.swap(true, Ordering::SeqCst);
        let end = if breaks { bytes.len() / 2 } else { bytes.len() };
        let _ = stream.write_all(&bytes[from..end]);
    }

    fn listing(&self) -> String {
        let files: Vec<serde_json::Value> = std::fs::read_dir(&self.folder)
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let bytes = std::fs::read(entry.path()).unwrap();
                let sha: String = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
                serde_json::json!({"rfilename": entry.file_name().to_str().unwrap(), "size": bytes.len(), "lfs": {"sha256": sha}})
            })
            .collect();
        serde_json::json!({"sha": "c0ffee", "siblings": files}).to_string()
    }
}
