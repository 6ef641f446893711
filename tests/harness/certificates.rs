use std::path::PathBuf;
use std::process::Command;

/// An authority, and certificates for `127.0.0.1` and a device, by OpenSSL.
pub(crate) struct Certificates(tempfile::TempDir);

impl Certificates {
    pub(crate) fn make(test: &str) -> Option<Self> {
        if Command::new("openssl").arg("version").output().is_err() {
            super::skipped(test, "'openssl' is missing");
            return None;
        }
        let dir = tempfile::Builder::new().prefix("tidemark-test-").tempdir().unwrap();
        let script = "set -e
            openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.pem \
                -addext basicConstraints=critical,CA:TRUE
            for name in server device; do
                openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=$name -keyout $name.key -out $name.csr
                printf 'subjectAltName=IP:127.0.0.1\\nbasicConstraints=CA:FALSE\\n' >$name.ext
                openssl x509 -req -in $name.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile $name.ext -out $name.pem
            done";
        let output = Command::new("sh").args(["-c", script]).current_dir(dir.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Some(Self(dir))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// `mosquitto_passwd` writes the users: `pump`, with the password `secret`.
    pub(crate) fn users(&self) -> PathBuf {
        let path = self.path("users");
        assert!(Command::new("mosquitto_passwd").args(["-b", "-c"]).arg(&path).args(["pump", "secret"]).status().unwrap().success());
        path
    }
}
