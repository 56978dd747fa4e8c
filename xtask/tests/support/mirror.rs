//! A mirror in this process, and packages for it.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Output;

/// Serves every request with `respond`, which gets the request's number, its first line and the
/// first byte that it asks for.
pub fn serve(respond: impl Fn(usize, &str, u64, &mut TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let first = lines.next().unwrap().unwrap();
            let headers = lines.map(Result::unwrap).take_while(|line| !line.is_empty());
            let start = headers.filter_map(|line| {
                line.to_lowercase()
                    .strip_prefix("range: bytes=")?
                    .trim_end_matches('-')
                    .parse()
                    .ok()
            });
            let start = start.last().unwrap_or(0);
            respond(number, &first, start, &mut stream);
        }
    });
    url
}

pub fn whole(stream: &mut TcpStream, body: &[u8]) {
    part(stream, body, 0, body.len());
}

/// Answers with the body from `start`, but stops after `until` of its bytes. A client that has
/// gone away is none of our business.
pub fn part(stream: &mut TcpStream, body: &[u8], start: u64, until: usize) {
    let start = usize::try_from(start).unwrap();
    let head = match start {
        0 => "HTTP/1.1 200 OK\r\n".to_owned(),
        _ => format!(
            "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {start}-{}/{}\r\n",
            body.len() - 1,
            body.len()
        ),
    };
    let length = body.len() - start;
    let head = format!("{head}Content-Length: {length}\r\nConnection: close\r\n\r\n");
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body[start..until]));
}

pub fn xz(content: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    let mut reader = liblzma::read::XzEncoder::new(content, 1);
    std::io::copy(&mut reader, &mut packed).unwrap();
    packed
}

/// A package with these files.
pub fn package<P: AsRef<str>>(files: &[(P, &[u8])]) -> Vec<u8> {
    let data = xz(&tar(files));
    let mut archive = ar::Builder::new(Vec::new());
    for (name, content) in [("debian-binary", &b"2.0\n"[..]), ("data.tar.xz", &data)] {
        let header = ar::Header::new(name.as_bytes().to_vec(), content.len() as u64);
        archive.append(&header, content).unwrap();
    }
    archive.into_inner().unwrap()
}

/// An archive of these files.
pub fn tar<P: AsRef<str>>(files: &[(P, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, format!("./{}", path.as_ref()), *content).unwrap();
    }
    tar.into_inner().unwrap()
}

/// No file is in the cache but locks, which are empty.
#[track_caller]
pub fn assert_only_locks(cache: &Path) {
    let mut left = vec![cache.to_owned()];
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            assert_eq!(path.metadata().unwrap().len(), 0, "{} is left", path.display());
            assert!(path.parent().unwrap().ends_with("locks"), "{} is left", path.display());
        }
    }
}

pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}
