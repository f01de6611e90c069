//! Authorities and certificates, as files for a server and for us.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};

pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    folder: PathBuf,
    /// The file with its certificate.
    pub file: PathBuf,
}

/// The files of a certificate and of its key.
pub struct Pair {
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl Authority {
    /// With its files in `folder`, which begin with `name`.
    pub fn new(folder: &Path, name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let file = folder.join(format!("{name}.pem"));
        std::fs::write(&file, params.self_signed(&key).expect("a certificate").pem()).expect("writes");
        Self { issuer: Issuer::new(params, key), folder: folder.to_owned(), file }
    }

    /// Issues a certificate for these names and addresses.
    pub fn issue(&self, names: &[&str]) -> Pair {
        self.issue_until(2100, names)
    }

    /// Issues one that is valid until this year begins.
    pub fn issue_until(&self, year: i32, names: &[&str]) -> Pair {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>());
        let params = params.as_mut().expect("names");
        params.distinguished_name.push(DnType::CommonName, names[0]);
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        let file = |suffix: &str| {
            let stem = self.file.file_stem().expect("a name").to_string_lossy().into_owned();
            self.folder.join(format!("{stem}-{}-{year}.{suffix}", names[0]))
        };
        let pair = Pair { cert: file("cert.pem"), key: file("key.pem") };
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        std::fs::write(&pair.cert, certificate.pem()).expect("writes");
        std::fs::write(&pair.key, key.serialize_pem()).expect("writes");
        pair
    }
}

impl Pair {
    /// The secret part of the key's file.
    pub fn secret(&self) -> String {
        let text = std::fs::read_to_string(&self.key).expect("reads");
        text.lines().nth(1).expect("a key").to_owned()
    }
}
