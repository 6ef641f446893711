//! A database behind TLS that trusts only clients with a certificate; authority and certificates are made for the test.
#![allow(clippy::unwrap_used, dead_code)]

mod database;
mod log;
mod rows;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use common::Settings;
use common::settings::Database as To;
use database::{Database, Kind, TOKEN};
use log::Log;
use rows::{row, start, until, verify};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

const TOPIC: &str = "iot.agg.q";

/// An authority, and certificates of it for `127.0.0.1` and for the sink, by OpenSSL; `None` where that is missing.
fn certificates() -> Option<tempfile::TempDir> {
    if Command::new("openssl").arg("version").output().is_err() {
        eprintln!("skipped: 'openssl' is missing");
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let script = "set -e
        new='-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes'
        openssl req -x509 $new -days 2 -subj /CN=authority -keyout ca.key -out ca.pem -addext basicConstraints=critical,CA:TRUE
        for name in server sink; do
            openssl req $new -subj /CN=$name -keyout $name.key -out $name.csr
            printf 'subjectAltName=IP:127.0.0.1\\nbasicConstraints=CA:FALSE\\n' >$name.ext
            openssl x509 -req -in $name.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile $name.ext -out $name.pem
        done";
    let output = Command::new("sh").args(["-c", script]).current_dir(dir.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(dir)
}

/// Takes TLS of clients that the authority knows, and hands what they say to `upstream`.
async fn front(upstream: SocketAddr, dir: &Path) -> SocketAddr {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(dir.join("ca.pem")).unwrap()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
    let chain = vec![CertificateDer::from_pem_file(dir.join("server.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(dir.join("server.key")).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config.with_client_cert_verifier(verifier).with_single_cert(chain, key).unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut client = acceptor.accept(stream).await?;
                let mut server = TcpStream::connect(upstream).await?;
                tokio::io::copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_verifies_its_clients_is_written_with_our_certificate_and_without_it_says_why() {
    let Some(influx) = Database::start(Kind::Influxdb, "a_database_that_verifies", &[]) else { return };
    let Some(dir) = certificates() else { return };
    let path = |name: &str| -> Option<PathBuf> { Some(dir.path().join(name)) };
    let address = front(influx.address, dir.path()).await;
    let log = Log::start().await;
    log.create(&[TOPIC, "iot.dead"]).await;
    log.produce(TOPIC, &(0..100).map(|i| row(&format!("s-{i}"), 0, i as f64, i, true)).collect::<Vec<_>>()).await;
    let mut settings = Settings::default();
    settings.kafka.bootstrap_servers = log.servers();
    settings.sink.to = vec![To::Influxdb];
    settings.sink.state_path = dir.path().join("state");
    settings.sink.influxdb.url = format!("https://{address}");
    settings.sink.influxdb.org = "o".into();
    settings.sink.influxdb.bucket = "b".into();
    settings.sink.influxdb.token = Some(TOKEN.into());

    // The public authorities do not know the server; then the server does not know us.
    for ca in [None, path("ca.pem")] {
        settings.sink.influxdb.ca_file = ca;
        let running = start(&settings);
        until("the sink says why it waits", || running.status("error").is_string()).await;
        let error = running.status("error").as_str().unwrap().to_owned();
        assert!(error.contains("https://") && error.contains("cert_file") && error.contains("keeps trying"), "{error}");
        assert!(!error.contains(TOKEN) && running.status("points") == 0);
        running.stop().await;
    }
    settings.sink.influxdb.cert_file = path("sink.pem");
    settings.sink.influxdb.key_file = path("sink.key");
    let running = start(&settings);
    running.done(100).await;
    running.stop().await;
    let report = verify(&settings).await;
    assert!(report.is_equal() && report.equal == 100, "{report}");

    settings.sink.influxdb.key_file = path("ca.pem");
    let fault = start(&settings).task.await.unwrap().unwrap_err().to_string();
    assert!(fault.contains("the key ") && fault.contains("ca.pem") && fault.contains("check key_file"), "{fault}");
}
