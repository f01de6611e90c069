//! TLS: which servers are trusted, and our certificate.
//!
//! The whole of the client's configuration is built here, for two reasons. The client's own would verify with a rustls-webpki that has
//! known faults, and it would report less about a refused certificate.

use std::path::Path;
use std::sync::Arc;

use nats::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use nats::rustls::crypto::{WebPkiSupportedAlgorithms, ring};
use nats::rustls::pki_types::pem::PemObject;
use nats::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, TrustAnchor, UnixTime};
use nats::rustls::{self, CertificateError, ClientConfig, DigitallySignedStruct, PeerMisbehaved, SignatureScheme};
use parking_lot::Mutex;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use webpki::{EndEntityCert, KeyUsage};

use super::problem::Problem;
use crate::config::TlsConfig;
use crate::error::BrokerFault;

/// Why a server's certificate was refused; set while connecting.
pub(in crate::broker) type Objection = Arc<Mutex<Option<Problem>>>;

fn problem(detail: impl Into<String>) -> Problem {
    Problem::new(BrokerFault::Tls, detail)
}

/// The client's configuration, and where an objection will be found. Reads the files again.
pub(in crate::broker) fn client(config: &TlsConfig) -> Result<(ClientConfig, Objection), Problem> {
    let provider = ring::default_provider();
    let objection = Objection::default();
    let verifier = Verifier {
        roots: roots(config.ca.as_deref())?,
        algorithms: provider.signature_verification_algorithms,
        authority: config.ca.as_ref().map(|ca| ca.display().to_string()),
        objection: Arc::clone(&objection),
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| problem(format!("TLS cannot be used here: {e}")))?
        // Rustls calls every verifier but its own dangerous. This one verifies as much: see below.
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let client = match (&config.cert, &config.key) {
        (Some(cert), Some(key)) => {
            let bad = |e| problem(format!("cannot use the private key {}: {e}", key.display()));
            builder
                .with_client_auth_cert(certificates(cert, "check broker.tls.cert")?, private_key(key)?)
                .map_err(|e| bad(e).with_remedy("check broker.tls.key"))?
        }
        _ => builder.with_no_client_auth(),
    };
    Ok((client, objection))
}

/// The authorities in this file, or those that this machine trusts.
fn roots(ca: Option<&Path>) -> Result<Vec<TrustAnchor<'static>>, Problem> {
    let Some(ca) = ca else {
        let native = rustls_native_certs::load_native_certs();
        // An old store can hold authorities that cannot be read any more.
        let roots: Vec<_> = native.certs.iter().filter_map(anchor).collect();
        if roots.is_empty() {
            let why = native.errors.first().map_or_else(|| "there are none".into(), ToString::to_string);
            let what = format!("cannot find the authorities that this machine trusts: {why}");
            return Err(
                problem(what).with_remedy("name one with broker.tls.ca, or check SSL_CERT_FILE and SSL_CERT_DIR")
            );
        }
        return Ok(roots);
    };
    let remedy = "check broker.tls.ca";
    let anchors = certificates(ca, remedy)?.iter().map(|cert| anchor(cert).ok_or(ca)).collect::<Result<_, _>>();
    anchors.map_err(|ca| problem(format!("{} has a certificate that cannot be read", ca.display())).with_remedy(remedy))
}

fn anchor(certificate: &CertificateDer<'_>) -> Option<TrustAnchor<'static>> {
    webpki::anchor_from_trusted_cert(certificate).ok().map(|anchor| anchor.to_owned())
}

fn certificates(file: &Path, remedy: &'static str) -> Result<Vec<CertificateDer<'static>>, Problem> {
    let name = file.display();
    let bad = |what: String| problem(what).with_remedy(remedy);
    let text = std::fs::read(file).map_err(|e| bad(format!("cannot read the certificates {name}: {e}")))?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|_| bad(format!("{name} is damaged: some of it is not PEM")))?;
    if certificates.is_empty() {
        return Err(bad(format!("there is no certificate in {name}; it must be PEM")));
    }
    Ok(certificates)
}

/// No error contains any part of the file.
fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, Problem> {
    let name = file.display();
    let bad = |what: String| problem(what).with_remedy("check broker.tls.key");
    let text = std::fs::read(file).map_err(|e| bad(format!("cannot read the private key {name}: {e}")))?;
    PrivateKeyDer::from_pem_slice(&text)
        .map_err(|_| bad(format!("there is no private key in {name}; it must be PEM and not encrypted")))
}

/// Verifies what rustls does by itself, with a current rustls-webpki: chain, name, time and the handshake's signature.
struct Verifier {
    roots: Vec<TrustAnchor<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
    /// The file of the roots, where there is one.
    authority: Option<String>,
    objection: Objection,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier").field("roots", &self.roots.len()).finish_non_exhaustive()
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verify = || {
            let certificate = EndEntityCert::try_from(end_entity)?;
            certificate.verify_for_usage(
                self.algorithms.all,
                &self.roots,
                intermediates,
                now,
                KeyUsage::server_auth(),
                None,
                None,
            )?;
            certificate.verify_is_valid_for_subject_name(server_name)
        };
        match verify() {
            Ok(()) => Ok(ServerCertVerified::assertion()),
            Err(error) => {
                *self.objection.lock() = Some(self.objection_to(&error, server_name));
                Err(CertificateError::ApplicationVerificationFailure.into())
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        // In TLS 1.2 the scheme does not determine the curve; the key does.
        self.verify_signature(message, certificate, signed, usize::MAX)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        if !is_of_tls13(signed.scheme) {
            return Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into());
        }
        // In TLS 1.3 the scheme determines everything; rustls lists that algorithm first.
        self.verify_signature(message, certificate, signed, 1)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl Verifier {
    /// Verifies with the first algorithms of the scheme, as many as may be tried.
    fn verify_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
        tries: usize,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = self.algorithms.mapping.iter().find(|(scheme, _)| *scheme == signed.scheme);
        let (_, algorithms) = known.ok_or(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme)?;
        let bad = |_| rustls::Error::from(CertificateError::BadEncoding);
        let certificate = EndEntityCert::try_from(certificate).map_err(bad)?;
        let signature = signed.signature();
        let verifies = algorithms
            .iter()
            .take(tries)
            .any(|algorithm| certificate.verify_signature(*algorithm, message, signature).is_ok());
        if verifies {
            return Ok(HandshakeSignatureValid::assertion());
        }
        let what = "it has not the private key of its certificate: another machine may answer in its place";
        *self.objection.lock() = Some(problem(what));
        Err(CertificateError::BadSignature.into())
    }

    fn objection_to(&self, error: &webpki::Error, server_name: &ServerName<'_>) -> Problem {
        use webpki::Error as E;
        let refused = |what: String, remedy: &str| problem(what).with_remedy(remedy);
        match error {
            E::UnknownIssuer => match &self.authority {
                Some(file) => refused(
                    format!("its certificate is from an authority that is not in {file}"),
                    "check broker.tls.ca",
                ),
                None => refused(
                    "its certificate is from an authority that this machine does not trust".into(),
                    "name the authority's certificate with broker.tls.ca",
                ),
            },
            E::CertExpired { not_after, .. } => refused(
                format!("its certificate expired at {}", date(*not_after)),
                "renew it, or set this machine's clock",
            ),
            E::CertNotValidYet { not_before, .. } => refused(
                format!("its certificate is valid only from {} on", date(*not_before)),
                "check this machine's clock",
            ),
            E::CertNotValidForName(names) => {
                let names = names.presented.iter().map(|name| plain(name)).collect::<Vec<_>>();
                let names = if names.is_empty() { "no name".into() } else { names.join(", ") };
                let server_name = server_name.to_str();
                refused(
                    format!("its certificate is for {names}, not for {server_name}"),
                    "address the server by a name in its certificate",
                )
            }
            other => problem(format!("its certificate is refused: {other:?}")),
        }
    }
}

/// TLS 1.3 has no other signatures: <https://datatracker.ietf.org/doc/html/rfc8446#section-4.2.3>.
fn is_of_tls13(scheme: SignatureScheme) -> bool {
    use SignatureScheme as S;
    matches!(
        scheme,
        S::ECDSA_NISTP256_SHA256
            | S::ECDSA_NISTP384_SHA384
            | S::ECDSA_NISTP521_SHA512
            | S::ED25519
            | S::RSA_PSS_SHA256
            | S::RSA_PSS_SHA384
            | S::RSA_PSS_SHA512
    )
}

/// The name in `DnsName("a.b")`: `a.b`.
fn plain(name: &str) -> &str {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(name);
    inner.trim_matches('"')
}

fn date(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    let date = OffsetDateTime::from_unix_timestamp(seconds).ok().and_then(|time| time.format(&Rfc3339).ok());
    date.unwrap_or_else(|| format!("second {seconds} of 1970"))
}

#[cfg(test)]
mod tests;
