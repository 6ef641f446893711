//! The command `certificates`: an authority of one's own, and a certificate for each program, for a stack whose parts speak TLS.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use clap::Args;
use common::say::say_line;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};

use super::secrets::Secrets;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// The authority outlives what it signs; to change it means to change the whole stack.
const AUTHORITY_DAYS: u32 = 3650;
/// A certificate is valid for so long, and made anew by the first start after half of that.
const VALID_DAYS: u32 = 398;
const RENEW_DAYS: u32 = VALID_DAYS / 2;
/// A clock that is a little behind must not refuse what was made just now.
const BACKDATED: Duration = DAY;

/// Flags of `certificates`.
#[derive(Debug, Clone, Args)]
#[command(after_help = FILES)]
pub(crate) struct CertificatesArgs {
    /// Folder for the files; those that are there already are kept, until half of their time is over.
    #[arg(long, value_name = "DIR")]
    secrets: PathBuf,
    /// A program that gets a certificate; several times for several.
    #[arg(long = "for", value_name = "NAME", required = true)]
    names: Vec<String>,
    /// A further name or address by which the programs are reached, such as that of this machine; several times for several. Holds for
    /// certificates that are made from now on.
    #[arg(long = "host", value_name = "NAME")]
    hosts: Vec<String>,
}

const FILES: &str = "\
  ca/ca.key              the authority's key: for nobody else
  NAME/ca.pem            the authority, to be trusted
  NAME/tls.pem, tls.key  the certificate of NAME, localhost and 127.0.0.1, for servers and clients, and its key
  NAME/keystore.pem      both in one file, as Apache Kafka reads them";

/// Makes what is missing or old.
///
/// # Errors
/// When a file cannot be read or written, or a name cannot be in a certificate.
pub(crate) fn certificates(args: &CertificatesArgs) -> anyhow::Result<()> {
    let secrets = Secrets::new(&args.secrets);
    let key = key(&secrets, "ca", "ca.key")?;
    let authority = authority(&secrets, &key)?;
    let issuer = Issuer::new(authority_params(), key);
    for name in &args.names {
        secrets.write(name, "ca.pem", &authority)?;
        if is_fresh(&args.secrets.join(name).join("keystore.pem")) {
            say_line(format_args!("{name}: kept"))?;
            continue;
        }
        let key = KeyPair::generate().context("a key cannot be made")?;
        let params = params(name, &args.hosts).with_context(|| format!("'{name}' cannot be in a certificate; use a host name"))?;
        let certificate = params.signed_by(&key, &issuer).context("a certificate cannot be signed")?.pem();
        secrets.write(name, "tls.key", &key.serialize_pem())?;
        secrets.write(name, "tls.pem", &certificate)?;
        // Last: it says that all are there.
        secrets.write(name, "keystore.pem", &format!("{}{certificate}", key.serialize_pem()))?;
        say_line(format_args!("{name}: made, valid for {VALID_DAYS} days"))?;
    }
    Ok(())
}

fn key(secrets: &Secrets, reader: &str, name: &str) -> anyhow::Result<KeyPair> {
    if let Some(pem) = secrets.read(reader, name)? {
        return KeyPair::from_pem(&pem).with_context(|| format!("{reader}/{name} holds no key; delete all certificates to begin anew"));
    }
    let key = KeyPair::generate().context("a key cannot be made")?;
    secrets.write(reader, name, &key.serialize_pem())?;
    Ok(key)
}

/// The authority's own certificate, as PEM.
fn authority(secrets: &Secrets, key: &KeyPair) -> anyhow::Result<String> {
    if let Some(pem) = secrets.read("ca", "ca.pem")? {
        return Ok(pem + "\n");
    }
    let pem = authority_params().self_signed(key).context("the authority's certificate cannot be made")?.pem();
    secrets.write("ca", "ca.pem", &pem)?;
    Ok(pem)
}

fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "Tidemark's own authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid(&mut params, AUTHORITY_DAYS);
    params
}

fn params(name: &str, hosts: &[String]) -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    for host in [name, "localhost", "127.0.0.1"].into_iter().chain(hosts.iter().map(String::as_str)) {
        params.subject_alt_names.push(match host.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(host.try_into()?),
        });
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    // Brokers are servers to some and clients to others.
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    valid(&mut params, VALID_DAYS);
    Ok(params)
}

fn valid(params: &mut CertificateParams, days: u32) {
    let now = SystemTime::now();
    params.not_before = (now - BACKDATED).into();
    params.not_after = (now + DAY * days).into();
}

/// Whether a file was made lately enough.
fn is_fresh(path: &Path) -> bool {
    let age = std::fs::metadata(path).and_then(|found| found.modified()).ok().and_then(|made| made.elapsed().ok());
    age.is_some_and(|age| age < DAY * RENEW_DAYS)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn made(dir: &Path, names: &[&str]) {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        certificates(&CertificatesArgs { secrets: dir.to_owned(), names, hosts: vec!["gateway.example".into()] }).unwrap();
    }

    fn read(dir: &Path, name: &str) -> String {
        std::fs::read_to_string(dir.join(name)).unwrap()
    }

    #[test]
    fn certificates_are_kept_and_share_an_authority() {
        let dir = tempfile::tempdir().unwrap();
        made(dir.path(), &["kafka"]);
        let first = read(dir.path(), "kafka/keystore.pem");
        made(dir.path(), &["kafka", "sink"]);
        assert_eq!(read(dir.path(), "kafka/keystore.pem"), first);
        assert_eq!(read(dir.path(), "kafka/ca.pem"), read(dir.path(), "sink/ca.pem"));
        assert_ne!(read(dir.path(), "sink/tls.key"), read(dir.path(), "kafka/tls.key"));
        assert!(first.contains("PRIVATE KEY") && first.contains("CERTIFICATE"));
    }

    #[test]
    fn an_old_one_is_made_anew_by_the_same_authority() {
        let dir = tempfile::tempdir().unwrap();
        made(dir.path(), &["kafka"]);
        let (first, authority) = (read(dir.path(), "kafka/tls.pem"), read(dir.path(), "kafka/ca.pem"));
        let old = SystemTime::now() - DAY * (RENEW_DAYS + 1);
        let file = std::fs::File::open(dir.path().join("kafka/keystore.pem")).unwrap();
        file.set_modified(old).unwrap();
        made(dir.path(), &["kafka"]);
        assert_ne!(read(dir.path(), "kafka/tls.pem"), first);
        assert_eq!(read(dir.path(), "kafka/ca.pem"), authority);
    }

    #[test]
    fn a_name_that_is_no_host_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let args = CertificatesArgs { secrets: dir.path().to_owned(), names: vec!["ö".into()], hosts: Vec::new() };
        assert!(format!("{:#}", certificates(&args).unwrap_err()).contains("'ö' cannot be in a certificate"));
    }
}
