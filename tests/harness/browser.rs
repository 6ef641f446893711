use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::process::Process;
use super::wait::{wait_for, wait_until};

const START: Duration = Duration::from_secs(60);

/// A page in headless Chromium, driven over the DevTools protocol: mouse clicks and key strokes as a person makes them.
pub(crate) struct Browser {
    socket: Socket,
    next: u64,
    /// What the page wrote to its console as errors, and exceptions nobody caught.
    faults: Vec<String>,
    _chromium: Process,
    _profile: tempfile::TempDir,
}

/// The first Chromium on the path.
pub(crate) fn chromium() -> Option<&'static str> {
    let names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
    names.into_iter().find(|name| Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success()))
}

impl Browser {
    pub(crate) fn start(program: &str, width: u32, height: u32) -> Self {
        let profile = tempfile::Builder::new().prefix("tidemark-chromium-").tempdir().unwrap();
        let mut command = Command::new(program);
        command
            .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--no-first-run"])
            .args(["--remote-debugging-port=0", "--remote-allow-origins=*"])
            .arg(format!("--window-size={width},{height}"))
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank");
        let mut chromium = Process::start("chromium", &mut command);
        let address: SocketAddr = chromium.wait_line("its DevTools address", START, |line| {
            line.split("DevTools listening on ws://").nth(1)?.split('/').next()?.parse().ok()
        });
        let path = wait_for("a page in Chromium", START, || {
            let targets = super::http::get_json(address, "/json/list")?;
            let page = targets.as_array()?.iter().find(|target| target["type"] == "page")?;
            let url = page["webSocketDebuggerUrl"].as_str()?;
            Some(url[url.find("/devtools")?..].to_owned())
        });
        let socket = Socket::connect(address, &path);
        let mut browser = Self { socket, next: 0, faults: Vec::new(), _chromium: chromium, _profile: profile };
        browser.call("Page.enable", json!({}));
        browser.call("Runtime.enable", json!({}));
        browser.size(width, height);
        browser
    }

    pub(crate) fn size(&mut self, width: u32, height: u32) {
        let mobile = width < 600;
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile });
        self.call("Emulation.setDeviceMetricsOverride", metrics);
    }

    /// `light` or `dark`, as the person's system says.
    pub(crate) fn color_scheme(&mut self, scheme: &str) {
        self.call("Emulation.setEmulatedMedia", json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] }));
    }

    pub(crate) fn open(&mut self, url: &str) {
        let answer = self.call("Page.navigate", json!({ "url": url }));
        assert!(answer.get("errorText").is_none(), "{url}: {answer}");
        wait_until("the page to load", START, || self.script("document.readyState") == "complete");
    }

    /// The value of a JavaScript expression.
    pub(crate) fn script(&mut self, expression: &str) -> Value {
        let answer = self.call("Runtime.evaluate", json!({ "expression": expression, "returnByValue": true, "awaitPromise": true }));
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// The text that a person sees.
    pub(crate) fn text(&mut self) -> String {
        self.script("document.body.innerText").as_str().unwrap_or_default().to_owned()
    }

    /// Clicks in the middle of what the selector finds, after scrolling to it.
    #[track_caller]
    pub(crate) fn click(&mut self, selector: &str) {
        let place = format!(
            "(() => {{ const e = document.querySelector({}); if (!e) return null; e.scrollIntoView({{block: 'center'}});
               const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2, r.width, r.height]; }})()",
            json!(selector)
        );
        let place = self.script(&place);
        let (Some(x), Some(y)) = (place[0].as_f64(), place[1].as_f64()) else { panic!("nothing to click at: {selector}") };
        assert!(place[2].as_f64() > Some(0.0) && place[3].as_f64() > Some(0.0), "{selector} is not visible");
        self.call("Input.dispatchMouseEvent", json!({ "type": "mouseMoved", "x": x, "y": y }));
        for kind in ["mousePressed", "mouseReleased"] {
            self.call("Input.dispatchMouseEvent", json!({ "type": kind, "x": x, "y": y, "button": "left", "clickCount": 1 }));
        }
    }

    /// Writes into what has the focus.
    pub(crate) fn write(&mut self, text: &str) {
        self.call("Input.insertText", json!({ "text": text }));
    }

    /// What went wrong in the page so far.
    pub(crate) fn faults(&self) -> &[String] {
        &self.faults
    }

    pub(crate) fn screenshot(&mut self, file: &Path) {
        let answer = self.call("Page.captureScreenshot", json!({ "format": "png" }));
        std::fs::write(file, base64(answer["data"].as_str().unwrap())).unwrap();
    }

    fn call(&mut self, method: &str, params: Value) -> Value {
        self.next += 1;
        let id = self.next;
        self.socket.send(&json!({ "id": id, "method": method, "params": params }).to_string());
        loop {
            let message: Value = serde_json::from_str(&self.socket.receive()).unwrap();
            if message["id"] == id {
                assert!(message.get("error").is_none(), "{method}: {message}");
                return message["result"].clone();
            }
            match message["method"].as_str() {
                Some("Runtime.exceptionThrown") => self.faults.push(message["params"]["exceptionDetails"].to_string()),
                Some("Runtime.consoleAPICalled") if message["params"]["type"] == "error" => {
                    self.faults.push(message["params"]["args"].to_string());
                }
                _ => {}
            }
        }
    }
}

/// As much of RFC 6455 as a client on the loopback needs: text frames, whole or in pieces.
struct Socket(TcpStream);

impl Socket {
    fn connect(address: SocketAddr, path: &str) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(START)).unwrap();
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGlkZW1hcmsgaXMgaGVyZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
        Self(stream)
    }

    fn send(&mut self, text: &str) {
        // A client must mask; a mask of zeros leaves the bytes as they are.
        let mut frame = vec![0x81];
        match text.len() {
            length @ 0..126 => frame.push(0x80 | u8::try_from(length).unwrap()),
            length @ 126..=0xFFFF => {
                frame.push(0x80 | 126);
                frame.extend(u16::try_from(length).unwrap().to_be_bytes());
            }
            length => {
                frame.push(0x80 | 127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        frame.extend([0; 4]);
        frame.extend(text.as_bytes());
        self.0.write_all(&frame).unwrap();
    }

    fn receive(&mut self) -> String {
        let mut message = Vec::new();
        loop {
            let [first, second] = self.exactly::<2>();
            let length = match second & 0x7F {
                126 => u64::from(u16::from_be_bytes(self.exactly())),
                127 => u64::from_be_bytes(self.exactly()),
                length => u64::from(length),
            };
            let mut body = vec![0; usize::try_from(length).unwrap()];
            self.0.read_exact(&mut body).unwrap();
            // 0 continues, 1 is text; the others (ping, close) carry no message.
            if first & 0x0F <= 1 {
                message.append(&mut body);
                if first & 0x80 != 0 {
                    return String::from_utf8(message).unwrap();
                }
            }
        }
    }

    fn exactly<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.read_exact(&mut bytes).unwrap();
        bytes
    }
}

fn base64(text: &str) -> Vec<u8> {
    let value = |c: u8| match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a' + 26,
        b'0'..=b'9' => c - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let digits: Vec<u8> = text.bytes().filter(|c| *c != b'=').map(value).collect();
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3);
    for group in digits.chunks(4) {
        let word = group.iter().fold(0u32, |word, digit| word << 6 | u32::from(*digit)) << (6 * (4 - group.len()));
        bytes.extend(&word.to_be_bytes()[1..group.len()]);
    }
    bytes
}

#[test]
fn base64_is_read() {
    assert_eq!(base64("dGlkZW1hcms="), b"tidemark");
    assert_eq!(base64("AAEC/w=="), [0, 1, 2, 255]);
}
