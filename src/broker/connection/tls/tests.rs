use std::time::Duration;

use nats::rustls::version::{TLS12, TLS13};
use nats::rustls::{ClientConnection, ServerConfig, ServerConnection, SupportedProtocolVersion};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, GeneralSubtree, IsCa, Issuer, KeyPair, NameConstraints,
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, SignatureAlgorithm,
};

use super::*;

fn authority(change: fn(&mut CertificateParams)) -> (Issuer<'static, KeyPair>, CertificateDer<'static>) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "an authority");
    change(&mut params);
    let key = KeyPair::generate().expect("a key");
    let certificate = params.self_signed(&key).expect("a certificate");
    (Issuer::new(params, key), certificate.der().clone())
}

fn verifier(authority: &CertificateDer<'_>) -> Verifier {
    Verifier {
        roots: vec![anchor(authority).expect("an anchor")],
        algorithms: ring::default_provider().signature_verification_algorithms,
        authority: Some("ca.pem".into()),
        objection: Objection::default(),
    }
}

/// Why a certificate for these names, issued by an authority, is refused when connecting to `host`.
fn objection(change_authority: fn(&mut CertificateParams), names: &[&str], host: &str) -> Option<String> {
    let (issuer, authority) = authority(change_authority);
    let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
    let params = CertificateParams::new(names).expect("names");
    let certificate = params.signed_by(&KeyPair::generate().expect("a key"), &issuer).expect("a certificate");
    let verifier = verifier(&authority);
    let host = ServerName::try_from(host).expect("a name");
    let outcome = verifier.verify_server_cert(certificate.der(), &[], &host, &[], UnixTime::now());
    let objection = verifier.objection.lock().take().map(|problem| problem.to_string());
    assert_eq!(outcome.is_err(), objection.is_some());
    objection
}

#[test]
fn a_certificate_is_for_the_names_in_it() {
    let none = |_: &mut CertificateParams| {};
    assert_eq!(objection(none, &["a.test", "127.0.0.1"], "a.test"), None);
    assert_eq!(objection(none, &["a.test", "127.0.0.1"], "127.0.0.1"), None);
    let text = objection(none, &["a.test", "*.b.test", "127.0.0.1"], "c.test").expect("refused");
    assert!(text.contains("is for a.test, *.b.test, 127.0.0.1, not for c.test"), "{text}");
    let text = objection(none, &["a.test"], "::1").expect("refused");
    assert!(text.contains("is for a.test, not for ::1"), "{text}");
}

#[test]
fn an_authority_for_some_names_issues_no_wildcard_for_others() {
    // RUSTSEC-2026-0099: a rustls-webpki before 0.103.12 let the wildcard pass.
    let some_names = |params: &mut CertificateParams| {
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName("accept.a.test".into())],
            excluded_subtrees: vec![],
        });
    };
    assert_eq!(objection(some_names, &["accept.a.test"], "accept.a.test"), None);
    for (names, host) in [("*.a.test", "reject.a.test"), ("reject.a.test", "reject.a.test")] {
        let text = objection(some_names, &[names], host).expect("refused");
        assert!(text.contains("NameConstraintViolation"), "{text}");
    }
}

#[test]
fn an_unknown_authority_and_a_wrong_time_are_named() {
    let (issuer, authority_certificate) = authority(|_| {});
    let params = CertificateParams::new(vec!["a.test".into()]).expect("names");
    let certificate = params.signed_by(&KeyPair::generate().expect("a key"), &issuer).expect("a certificate");
    let text = |authority: &CertificateDer<'_>, at: u64| {
        let verifier = verifier(authority);
        let host = ServerName::try_from("a.test").expect("a name");
        let at = UnixTime::since_unix_epoch(Duration::from_secs(at));
        verifier.verify_server_cert(certificate.der(), &[], &host, &[], at).expect_err("refused");
        verifier.objection.lock().take().expect("a reason").to_string()
    };
    let (_, other) = authority(|params| params.distinguished_name.push(DnType::CommonName, "another"));
    assert!(text(&other, 1_700_000_000).contains("not in ca.pem; check --tlsca"));
    assert!(text(&authority_certificate, 0).contains("valid only from 1975-01-01T00:00:00Z on"));
    assert!(text(&authority_certificate, 1 << 40).contains("expired at 4096-01-01T00:00:00Z"));
}

/// A handshake in memory with a server that has `certificate` and signs with `key`.
fn shake_hands(
    version: &'static SupportedProtocolVersion,
    authority: &CertificateDer<'_>,
    certificate: &CertificateDer<'static>,
    key: &KeyPair,
) -> Result<(), (rustls::Error, Option<String>)> {
    let verifier = Arc::new(verifier(authority));
    let client = ClientConfig::builder()
        .dangerous()
        .with_custom_certificate_verifier(Arc::<Verifier>::clone(&verifier))
        .with_no_client_auth();
    let server = ServerConfig::builder_with_protocol_versions(&[version])
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], PrivateKeyDer::try_from(key.serialize_der()).expect("a key"))
        .expect("a server");
    let host = ServerName::try_from("a.test").expect("a name");
    let mut client = ClientConnection::new(Arc::new(client), host).expect("a client");
    let mut server = ServerConnection::new(Arc::new(server)).expect("a server");
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).expect("written");
        server.read_tls(&mut &wire[..]).expect("read");
        server.process_new_packets().expect("the client is right");
        wire.clear();
        server.write_tls(&mut wire).expect("written");
        client.read_tls(&mut &wire[..]).expect("read");
        client
            .process_new_packets()
            .map_err(|e| (e, verifier.objection.lock().take().map(|problem| problem.to_string())))?;
    }
    assert_eq!(client.protocol_version(), Some(version.version));
    Ok(())
}

#[test]
fn the_handshake_is_verified_in_both_versions_of_tls() {
    let algorithms: [&SignatureAlgorithm; 3] = [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ED25519];
    for version in [&TLS12, &TLS13] {
        for algorithm in algorithms {
            let (issuer, authority) = authority(|_| {});
            let key = KeyPair::generate_for(algorithm).expect("a key");
            let params = CertificateParams::new(vec!["a.test".into()]).expect("names");
            let certificate = params.signed_by(&key, &issuer).expect("a certificate");
            let shaken = shake_hands(version, &authority, certificate.der(), &key);
            assert!(shaken.is_ok(), "{version:?} {algorithm:?}: {shaken:?}");
            // Another machine has the certificate, which is public, but not its key.
            let other = KeyPair::generate_for(algorithm).expect("a key");
            let (error, objection) = shake_hands(version, &authority, certificate.der(), &other).expect_err("refused");
            assert_eq!(error, CertificateError::BadSignature.into(), "{version:?} {algorithm:?}");
            assert!(objection.is_some_and(|text| text.contains("has not the private key")));
        }
    }
}

#[test]
fn files_that_hold_no_certificate_or_key_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("writes");
        Some(path)
    };
    let key = KeyPair::generate().expect("a key");
    let certificate = CertificateParams::default().self_signed(&key).expect("a certificate").pem();
    let good = TlsConfig {
        ca: file("ca.pem", &certificate),
        cert: file("cert.pem", &certificate),
        key: file("key.pem", &key.serialize_pem()),
        ..TlsConfig::default()
    };
    assert!(client(&good).is_ok());
    let refused = |config: TlsConfig| client(&config).expect_err("must be refused").to_string();
    let missing = refused(TlsConfig { ca: Some("/nowhere/ca.pem".into()), ..good.clone() });
    assert!(
        missing.contains("cannot read the certificates /nowhere/ca.pem") && missing.contains("--tlsca"),
        "{missing}"
    );
    let empty = refused(TlsConfig { ca: file("empty.pem", "hunter2"), ..good.clone() });
    assert!(empty.contains("no certificate in") && empty.contains("empty.pem"), "{empty}");
    let garbage = "-----BEGIN CERTIFICATE-----\naHVudGVyMg==\n-----END CERTIFICATE-----\n";
    let garbage = refused(TlsConfig { ca: file("garbage.pem", garbage), ..good.clone() });
    assert!(garbage.contains("garbage.pem has a certificate that cannot be read"), "{garbage}");
    let cut = refused(TlsConfig { cert: file("cut.pem", &certificate[..certificate.len() / 2]), ..good.clone() });
    assert!(cut.contains("cut.pem is damaged") && cut.contains("--tlscert"), "{cut}");
    let swapped = refused(TlsConfig { key: good.cert.clone(), ..good.clone() });
    assert!(swapped.contains("no private key in") && swapped.contains("--tlskey"), "{swapped}");
}
