//! The ways in: users and roles, TLS with and without client certificates, WebSocket, ports.

use std::process::Command;

use argon2::password_hash::{PasswordHasher, SaltString};
use protocols::config::Tls;
use protocols::config::users::{User, Users};

use super::*;
use crate::broker::StartError;

fn hash(password: &str) -> String {
    // few rounds: the test is about the way, not about the strength
    let params = argon2::Params::new(64, 1, 1, None).unwrap();
    let argon = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
    argon.hash_password(password.as_bytes(), &SaltString::from_b64("c2FsdHNhbHQ").unwrap()).unwrap().to_string()
}

fn user(name: &str, role: &str) -> User {
    User {
        name: name.to_owned(),
        password: Some(hash("secret")),
        certificate: None,
        role: role.to_owned(),
        publish: Vec::new(),
        subscribe: Vec::new(),
    }
}

fn users() -> Users {
    let mut users = Users { users: vec![user("ann", "app"), user("rita", "reader")], ..Users::default() };
    users.users.push(User { password: None, certificate: Some("CN=device-7".to_owned()), ..user("cert", "mapper") });
    users
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_come_in_with_their_password_and_do_what_their_role_may() {
    let stage = stage_with(Settings { users: Some(users()), anonymous: Anonymous::Never, ..settings() }).await;
    for (login, four, five) in [
        (Some(("ann", "secret")), 0, 0),
        (Some(("ann", "wrong")), 4, 0x86),
        (Some(("nobody", "secret")), 4, 0x86),
        (Some(("cert", "")), 4, 0x86),
        (None, 5, 0x87),
        (Some(("ann", "secret")), 0, 0),
    ] {
        for (version, expected) in [(4, four), (5, five)] {
            let (_, answer) = Raw::try_enter(stage.address, &Hello { login, ..Hello::new(version, "c") }).await;
            assert_eq!(answer.unwrap().1[1], expected, "{login:?} {version}");
        }
    }
    let rita = Some(("rita", "secret"));
    let mut reader = Raw::enter(stage.address, &Hello { login: rita, ..Hello::new(5, "r") }).await.0;
    assert_eq!(reader.subscribe("#", 0).await, 0);
    assert_eq!(reader.subscribe("$SYS/#", 0).await, 0x87);
    assert_eq!(reader.publish1(false, "a", "x").await, 0x87);
    reader.publish_with(0, 0, &[], "twin/d/get", "").await;
    assert_eq!(reader.message().await.topic, "twin/d/get");
    let mut four = Raw::enter(stage.address, &Hello { login: rita, ..Hello::new(4, "r4") }).await.0;
    assert_eq!(four.subscribe("$SYS/#", 0).await, 0x80);
    // a client id is its user's
    let ann = Hello { login: Some(("ann", "secret")), ..Hello::new(5, "r") };
    assert_eq!(Raw::try_enter(stage.address, &ann).await.1.unwrap().1[1], 0x87);
    stage.broker.set_users(Some(Users::default()));
    let again = Hello { login: rita, ..Hello::new(5, "r2") };
    assert_eq!(Raw::try_enter(stage.address, &again).await.1.unwrap().1[1], 0x86);
    reader.send(&packet(0xc0, &[])).await;
    reader.expect(0xd0, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_in_use_is_named_together_with_who_has_it() {
    let stage = stage().await;
    let again = Listener { bind: stage.address, ..listener("again") };
    let error = Broker::start(Settings { listeners: vec![again], ..settings() }).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&stage.address.to_string()) && text.contains("again"), "{text}");
    let StartError::InUse { holder, .. } = error else { panic!("{text}") };
    assert_eq!(holder.map(|holder| holder.pid), Some(std::process::id()), "{text}");
}

fn openssl(folder: &std::path::Path, arguments: &str) {
    let status = Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output();
    let output = status.expect("openssl makes the certificates of this test");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_certificate_stands_for_its_user() {
    use rustls_pki_types::pem::PemObject;
    use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(path, &format!("req -x509 {key} -keyout ca.key -out ca.crt -days 2 -subj /CN=ca"));
    std::fs::write(path.join("server.ext"), "subjectAltName=DNS:localhost\n").unwrap();
    std::fs::write(path.join("client.ext"), "extendedKeyUsage=clientAuth\n").unwrap();
    for (name, subject) in [("server", "/CN=localhost"), ("client", "/O=Plant/CN=device-7")] {
        openssl(path, &format!("req {key} -keyout {name}.key -out {name}.csr -subj {subject}"));
        openssl(
            path,
            &format!(
                "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile {name}.ext -out {name}.crt"
            ),
        );
    }
    let tls = Tls { cert: "server.crt".into(), key: "server.key".into(), client_ca: Some("ca.crt".into()) };
    let listeners = vec![Listener { tls: Some(tls), ..listener("tls") }];
    let settings =
        Settings { listeners, users: Some(users()), anonymous: Anonymous::Never, base: path.into(), ..settings() };
    let stage = stage_with(settings).await;

    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(path.join("ca.crt")).unwrap()).unwrap();
    let builder = || {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider);
        builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots.clone())
    };
    let chain = vec![CertificateDer::from_pem_file(path.join("client.crt")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(path.join("client.key")).unwrap();
    let known = builder().with_client_auth_cert(chain, key).unwrap();
    let unknown = builder().with_no_client_auth();
    for (config, comes_in) in [(known, true), (unknown, false)] {
        let stream = TcpStream::connect(stage.address).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let mut answer = [0; 4];
        let talk = async {
            let mut stream = connector.connect(ServerName::try_from("localhost").unwrap(), stream).await?;
            stream.write_all(&Hello::new(4, "device").bytes()).await?;
            stream.read_exact(&mut answer).await
        };
        let done = timeout(SOON, talk).await.unwrap();
        assert_eq!(done.is_ok(), comes_in);
        assert_eq!(answer == [0x20, 2, 0, 0], comes_in);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mqtt_6_websocket_frames_may_cut_packets_anywhere() {
    use futures_util::{SinkExt, StreamExt};
    use tokio_tungstenite::tungstenite::Message;
    use tokio_tungstenite::tungstenite::client::IntoClientRequest;

    let stage =
        stage_with(Settings { listeners: vec![Listener { websocket: true, ..listener("ws") }], ..settings() }).await;
    let request = |protocol: &str| {
        let mut request = format!("ws://{}/mqtt", stage.address).into_client_request().unwrap();
        request.headers_mut().insert("Sec-WebSocket-Protocol", protocol.parse().unwrap());
        request
    };
    let stream = TcpStream::connect(stage.address).await.unwrap();
    let (mut socket, response) = tokio_tungstenite::client_async(request("mqtt"), stream).await.unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], "mqtt", "MQTT-6.0.0-4");
    let mut bytes = Hello::new(4, "browser").bytes();
    bytes.extend(packet(0x82, &[&[0, 1][..], &text("t"), &[0]].concat()));
    bytes.extend(packet(0x30, &[&text("t")[..], &[b'x'; 500]].concat()));
    for piece in bytes.chunks(3) {
        socket.send(Message::Binary(piece.to_vec().into())).await.unwrap();
    }
    let mut got = Vec::new();
    while got.len() < 4 + 5 + 506 {
        match timeout(SOON, socket.next()).await.unwrap().unwrap().unwrap() {
            Message::Binary(bytes) => got.extend(bytes),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(got[..12], [0x20, 2, 0, 0, 0x90, 3, 0, 1, 0, 0x30, 0xf7, 3]);
    socket.send(Message::Text("text".into())).await.unwrap();
    let end = timeout(SOON, async { while let Some(Ok(Message::Binary(_))) = socket.next().await {} }).await;
    assert!(end.is_ok(), "MQTT-6.0.0-1");
    let stream = TcpStream::connect(stage.address).await.unwrap();
    assert!(tokio_tungstenite::client_async(request("chat"), stream).await.is_err(), "MQTT-6.0.0-3");
}
