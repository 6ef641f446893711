//! The listener beyond this machine: who gets in, and what each may do. librdkafka speaks SASL here, TLS is spoken by rustls.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::path::Path;
use std::sync::Arc;

use broker::{Broker, BrokerError, External};
use common::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const USERS: &str = "[users.ann]\npassword = 'a secret'\nwrite = ['t']\nread = ['t']\ngroups = ['ann-*']\n\
                     [users.bob]\npassword = 'b'\nread = ['other']\n[users.root]\npassword = 'r'\nadmin = true\n";

async fn start(home: &Home, tls: Option<(&Path, &Path)>) -> Result<Broker, BrokerError> {
    let users_file = home.dir.path().join("users.toml");
    std::fs::write(&users_file, USERS).unwrap();
    let mut config = home.config();
    let tls = tls.map(|(certificate, key)| (certificate.to_path_buf(), key.to_path_buf()));
    config.data_dir = home.dir.path().join("log");
    config.external = Some(External { listen: "127.0.0.1:0".parse().unwrap(), advertised: None, tls, users_file });
    Broker::start(config).await
}

/// Frames of the protocol over any stream, without a client library.
struct Wire<S>(S);

impl<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin> Wire<S> {
    /// Sends a request with a header of version 1; the answer without its correlation id, `None` when the connection ends.
    async fn ask(&mut self, key: i16, version: i16, body: &[u8]) -> Option<Vec<u8>> {
        let mut frame = ((10 + body.len()) as i32).to_be_bytes().to_vec();
        frame.extend([key.to_be_bytes(), version.to_be_bytes()].concat());
        frame.extend(7_i32.to_be_bytes());
        frame.extend((-1_i16).to_be_bytes());
        frame.extend(body);
        self.0.write_all(&frame).await.ok()?;
        self.0.flush().await.ok()?;
        let mut length = [0; 4];
        self.0.read_exact(&mut length).await.ok()?;
        let mut answer = vec![0; i32::from_be_bytes(length) as usize];
        self.0.read_exact(&mut answer).await.ok()?;
        assert_eq!(answer[..4], 7_i32.to_be_bytes());
        Some(answer.split_off(4))
    }

    /// PLAIN; whether it was accepted.
    async fn log_in(&mut self, user: &str, password: &str) -> bool {
        let handshake = self.ask(17, 1, &text("PLAIN")).await.unwrap();
        assert_eq!(handshake[..2], [0, 0]);
        let token = format!("\0{user}\0{password}").into_bytes();
        let answer = self.ask(36, 0, &[&(token.len() as i32).to_be_bytes()[..], &token].concat()).await.unwrap();
        answer[..2] == [0, 0]
    }

    /// Names and error codes of the topics in a Metadata answer of version 1, for these topics or all.
    async fn topics(&mut self, wanted: Option<&str>) -> Vec<(String, i16)> {
        let body = wanted.map_or((-1_i32).to_be_bytes().to_vec(), |name| [&1_i32.to_be_bytes()[..], &text(name)].concat());
        let answer = self.ask(3, 1, &body).await.unwrap();
        let mut at = 4 + 4;
        let string = |at: &mut usize| {
            let length = i16::from_be_bytes(answer[*at..*at + 2].try_into().unwrap());
            *at += 2 + length.max(0) as usize;
            String::from_utf8(answer[*at - length.max(0) as usize..*at].to_vec()).unwrap()
        };
        string(&mut at);
        at += 4;
        string(&mut at);
        at += 4;
        let number = |at: &mut usize| {
            *at += 4;
            i32::from_be_bytes(answer[*at - 4..*at].try_into().unwrap())
        };
        let mut found = Vec::new();
        for _ in 0..number(&mut at) {
            let error = i16::from_be_bytes(answer[at..at + 2].try_into().unwrap());
            at += 2;
            let name = string(&mut at);
            at += 1;
            for _ in 0..number(&mut at) {
                at += 2 + 4 + 4;
                at += 4 * number(&mut at) as usize;
                at += 4 * number(&mut at) as usize;
            }
            found.push((name, error));
        }
        found
    }
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as i16).to_be_bytes()[..], text.as_bytes()].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_user_gets_in_by_its_password_and_does_what_it_may() {
    let home = Home::new();
    let broker = start(&home, None).await.unwrap();
    create(&broker, "t", 1, &[]).await;
    create(&broker, "other", 1, &[]).await;
    let connect = || async { Wire(TcpStream::connect(broker.external_addr().unwrap()).await.unwrap()) };
    let mut stranger = connect().await;
    assert!(stranger.ask(18, 0, &[]).await.is_some(), "what there is may be asked");
    assert_eq!(stranger.ask(3, 1, &(-1_i32).to_be_bytes()).await, None, "nothing else");
    let mut wrong = connect().await;
    assert!(!wrong.log_in("ann", "a guess").await);
    assert_eq!(wrong.ask(18, 0, &[]).await, None, "the connection ends");
    let mut nobody = connect().await;
    assert!(!nobody.log_in("nobody", "a secret").await);
    let (mut ann, mut bob, mut root) = (connect().await, connect().await, connect().await);
    assert!(ann.log_in("ann", "a secret").await && bob.log_in("bob", "b").await && root.log_in("root", "r").await);
    let names = |found: Vec<(String, i16)>| found.into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    assert_eq!(names(ann.topics(None).await), ["t"]);
    assert_eq!(names(bob.topics(None).await), ["other"]);
    assert_eq!(names(root.topics(None).await), ["other", "t"]);
    assert_eq!(ann.topics(Some("other")).await, [("other".to_owned(), 29)]);
    // CreateTopics version 2: one topic, one partition; bob may not, root may.
    let body = [&1_i32.to_be_bytes()[..], &text("new"), &1_i32.to_be_bytes(), &1_i16.to_be_bytes(), &[0; 8], &[0; 4], &[0]].concat();
    let code = |answer: Option<Vec<u8>>| answer.map(|answer| i16::from_be_bytes([answer[4 + 4 + 5], answer[4 + 4 + 6]]));
    assert_eq!(code(bob.ask(19, 2, &body).await), Some(29));
    assert_eq!(code(root.ask(19, 2, &body).await), Some(0));
    // FindCoordinator version 1 for a group: error code after the throttle time.
    let group = |name: &str| [text(name), vec![0]].concat();
    let find = |answer: Option<Vec<u8>>| answer.map(|answer| i16::from_be_bytes([answer[4], answer[5]]));
    assert_eq!(find(ann.ask(10, 1, &group("ann-1")).await), Some(0));
    assert_eq!(find(ann.ask(10, 1, &group("bobs")).await), Some(30));
    broker.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_listener_speaks_tls() {
    let home = Home::new();
    let certificate = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/localhost.pem"));
    let key = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/localhost.key"));
    let broker = start(&home, Some((certificate, key))).await.unwrap();
    create(&broker, "t", 1, &[]).await;
    let mut roots = rustls::RootCertStore::empty();
    use rustls::pki_types::pem::PemObject as _;
    roots.add(rustls::pki_types::CertificateDer::from_pem_file(certificate).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config.with_root_certificates(roots).with_no_client_auth()));
    let stream = TcpStream::connect(broker.external_addr().unwrap()).await.unwrap();
    let mut ann = Wire(connector.connect("localhost".try_into().unwrap(), stream).await.unwrap());
    assert!(ann.log_in("ann", "a secret").await);
    assert_eq!(ann.topics(None).await, [("t".to_owned(), 0)]);
    // Who does not speak TLS is not understood.
    let mut plain = Wire(TcpStream::connect(broker.external_addr().unwrap()).await.unwrap());
    assert_eq!(plain.ask(18, 0, &[]).await, None);
    broker.shutdown().await.unwrap();
    let swapped = start(&home, Some((key, certificate))).await.unwrap_err();
    assert!(matches!(&swapped, BrokerError::Security { .. }), "{swapped}");
}
