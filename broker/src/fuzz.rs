//! The places where bytes from elsewhere are read, for the fuzz targets in `fuzz/`. Each takes any bytes and must neither panic nor
//! take memory for what is not there. Not part of the API.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use crate::api::{Advertised, Client, try_decode};
use crate::auth::sasl::{MECHANISMS, Sasl};
use crate::auth::scram::ClientFirst;
use crate::auth::users::Users;
use crate::batch::{BatchHeader, HEADER, marker_of, repacked, seal, stamped};
use crate::log::scan::batches;
use crate::records::{all_have_keys, find_record};
use crate::wire::frame::{read_body, read_length};

/// Largest frame; small, so that a lie about it is found quickly.
const MAX_FRAME: usize = 1 << 20;

/// Takes any bytes.
pub type Target = fn(&[u8]);

/// All targets by name.
pub const TARGETS: &[(&str, Target)] = &[
    ("batch", batch),
    ("connection", connection),
    ("records", records),
    ("request", request),
    ("sasl", sasl),
    ("segment", segment),
    ("subscription", subscription),
];

/// What arrives on a connection: frames.
pub fn connection(mut bytes: &[u8]) {
    let reading = async {
        while let Ok(Some(length)) = read_length(&mut bytes, MAX_FRAME).await {
            let Ok(frame) = read_body(&mut bytes, length).await else { return };
            assert_eq!(frame.len(), length);
            try_decode(frame, &client()).ok();
        }
    };
    // Bytes in memory never keep anybody waiting.
    assert_eq!(pin!(reading).poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(()));
}

fn client() -> std::sync::Arc<Client> {
    Client::new("/fuzz".to_owned(), Advertised { host: "localhost".to_owned(), port: 9092 }, None)
}

/// One frame: header, shape and body of a request.
pub fn request(bytes: &[u8]) {
    try_decode(bytes.to_vec().into(), &client()).ok();
}

/// A produced batch, as it came and with a checksum that fits.
pub fn batch(bytes: &[u8]) {
    let Ok(header) = BatchHeader::parse(bytes) else { return };
    look_into(bytes);
    if let Some(records) = bytes.get(HEADER..header.size) {
        look_into(&seal(&header, records));
    }
}

fn look_into(batch: &[u8]) {
    let Ok(header) = BatchHeader::parse_produced(batch) else { return };
    all_have_keys(&header, batch).ok();
    find_record(&header, batch, |timestamp| timestamp > 1000);
    marker_of(&header, batch);
    let stamped = stamped(batch, 7);
    assert!(BatchHeader::parse(&stamped).is_ok_and(|header| header.verify(&stamped).is_ok()));
    if let Ok(repacked) = repacked(&header, batch, 0) {
        assert!(BatchHeader::parse_produced(&repacked).is_ok());
    }
}

/// Records packed with the compression that the first byte names.
pub fn records(bytes: &[u8]) {
    let Some((codec, packed)) = bytes.split_first() else { return };
    let header = BatchHeader { attributes: i16::from(codec % 5), ..BatchHeader::blank(0, 0, 1) };
    look_into(&seal(&header, packed));
}

/// Bytes of a segment file.
pub fn segment(bytes: &[u8]) {
    for (begin, header) in batches(bytes) {
        assert!(begin + header.size <= bytes.len());
    }
}

/// A message of an authentication; the first byte chooses the mechanism.
pub fn sasl(bytes: &[u8]) {
    let Some((mechanism, message)) = bytes.split_first() else { return };
    let mut sasl = Sasl::new(Users::default().into());
    assert!(sasl.choose(MECHANISMS[usize::from(*mechanism) % MECHANISMS.len()]));
    sasl.advance(message).ok();
    ClientFirst::parse(message);
}

/// What a consumer says about the topics it subscribes to.
pub fn subscription(bytes: &[u8]) {
    crate::group::join::topics(bytes);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::api::{APIS, frame};
    use crate::batch::fixture::{Spec, batch as made};
    use crate::wire::shape::fixture;
    use crate::wire::shapes::shape_of;

    fn corpus() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus")
    }

    #[test]
    fn the_corpus_does_no_harm() {
        for (name, target) in TARGETS {
            let files: Vec<_> = std::fs::read_dir(corpus().join(name)).unwrap().flatten().collect();
            assert!(!files.is_empty(), "{name} has no corpus");
            for file in files {
                target(&std::fs::read(file.path()).unwrap());
            }
        }
    }

    /// What is sent when nothing is wrong: the beginning of each corpus. `TIDEMARK_WRITE_CORPUS=1` writes it anew.
    #[test]
    fn the_corpus_begins_with_what_is_right() {
        let mut seeds: Vec<(&str, String, Vec<u8>)> = Vec::new();
        for (key, first, last) in APIS {
            for version in [*first, *last] {
                let body = fixture::request(&shape_of(*key).unwrap(), version, "t");
                let frame = frame(*key, version, &body).to_vec();
                let whole = [&(frame.len() as i32).to_be_bytes()[..], &frame].concat();
                seeds.push(("connection", format!("{key:?}-{version}"), whole));
                seeds.push(("request", format!("{key:?}-{version}"), frame));
            }
        }
        for codec in 0..5_i16 {
            let batch = made(&Spec { records: 3, key: Some(b"key".to_vec()), codec, ..Spec::default() });
            seeds.push(("records", format!("codec-{codec}"), [&[codec as u8], &batch[HEADER..]].concat()));
            seeds.push(("segment", format!("codec-{codec}"), [&batch[..], &batch].concat()));
            seeds.push(("batch", format!("codec-{codec}"), batch.to_vec()));
        }
        seeds.push(("sasl", "plain".to_owned(), b"\0\0ann\0a secret".to_vec()));
        seeds.push(("sasl", "scram".to_owned(), b"\x01n,,n=ann,r=nonce".to_vec()));
        let subscription = [&[0, 3][..], &[0, 0, 0, 1, 0, 1], b"t", &[0xff; 4], &[0, 0, 0, 0], &[0xff; 4], &[0xff; 2]].concat();
        seeds.push(("subscription", "one-topic".to_owned(), subscription));
        for (target, name, bytes) in seeds {
            let path = corpus().join(target).join(name);
            if std::env::var_os("TIDEMARK_WRITE_CORPUS").is_some() {
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(&path, &bytes).unwrap();
            }
            let kept = std::fs::read(&path).unwrap_or_else(|fault| panic!("{}: {fault}", path.display()));
            assert_eq!(kept, bytes, "{}", path.display());
        }
    }
}
