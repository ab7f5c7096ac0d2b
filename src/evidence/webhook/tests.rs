//! What can't be called by any spelling, at any moment.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Webhooks with a key, for which every name has the addresses that `resolve` gives.
fn webhooks(allow: &str, resolve: impl Fn() -> Vec<IpAddr> + Send + Sync + 'static) -> Webhooks {
    let settings = Settings {
        keys: SECRET.parse().unwrap(),
        allow: allow.parse().unwrap(),
        root_cert: None,
    };
    let mut webhooks = Webhooks::new(&settings).unwrap();
    webhooks.caller.resolve = Arc::new(move |_, port| {
        let found = resolve().into_iter();
        let found = found
            .map(|address| SocketAddr::new(address, port))
            .collect();
        Box::pin(async move { Ok(found) })
    });
    webhooks
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn question() -> Question {
    Question {
        id: "id".into(),
        body: "{}".into(),
    }
}

fn now() -> Timestamp {
    Timestamp::UNIX_EPOCH
}

/// Refused when the gate is created.
const REFUSED: &[&str] = &[
    // Loopback, by every spelling.
    "https://127.0.0.1/",
    "https://127.0.0.1:443/",
    "https://127.1/",
    "https://127.0.1/",
    "https://127.255.255.254/",
    "https://2130706433/",
    "https://0x7f000001/",
    "https://0x7f.0.0.1/",
    "https://0x7f.1/",
    "https://0177.0.0.1/",
    "https://017700000001/",
    "https://127.0.0.01/",
    "https://127.0.0.0x1/",
    "https://00000177.0.0.1/",
    "https://0/",
    "https://0.0.0.0/",
    "https://0x0/",
    "https://127。0。0。1/",
    "https://１２７.０.０.１/",
    "https://①②⑦.⓪.⓪.①/",
    "https://%31%32%37.0.0.1/",
    "https://127.0.0.1./",
    "https://[::1]/",
    "https://[0:0:0:0:0:0:0:1]/",
    "https://[::]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[::ffff:7f00:1]/",
    "https://[0:0:0:0:0:ffff:7f00:0001]/",
    "https://[::127.0.0.1]/",
    "https://[::7f00:1]/",
    "https://[64:ff9b::127.0.0.1]/",
    "https://[64:ff9b::7f00:1]/",
    "https://[64:ff9b:1::7f00:1]/",
    "https://[2002:7f00:1::]/",
    "https://[2001:0:7f00:1::]/",
    "https://[::ffff:0:127.0.0.1]/",
    "https://localhost/",
    "https://LOCALHOST/",
    "https://localhost./",
    "https://a.localhost/",
    "https://localhost.localdomain/",
    "https://ｌｏｃａｌｈｏｓｔ/",
    "https://loc%61lhost/",
    "https://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ/",
    // The cloud's keepers of credentials.
    "https://169.254.169.254/latest/meta-data/",
    "https://169.254.43518/",
    "https://2852039166/",
    "https://0xa9fea9fe/",
    "https://0251.0376.0251.0376/",
    "https://[::ffff:169.254.169.254]/",
    "https://[::ffff:a9fe:a9fe]/",
    "https://[2002:a9fe:a9fe::]/",
    "https://[64:ff9b::a9fe:a9fe]/",
    "https://[fd00:ec2::254]/",
    "https://[fe80::a9fe:a9fe]/",
    "https://metadata.google.internal/",
    "https://METADATA.google.internal/",
    "https://metadata.google.internal./",
    "https://metadata.goog/",
    "https://metadata/",
    "https://instance-data/",
    "https://168.63.129.16/",
    "https://100.100.100.200/",
    "https://192.0.0.192/",
    // Neighbours.
    "https://10.0.0.1/",
    "https://10.1/",
    "https://172.16.0.1/",
    "https://172.31.255.255/",
    "https://192.168.1.1/",
    "https://192.168.257/",
    "https://100.64.0.1/",
    "https://198.18.0.1/",
    "https://224.0.0.1/",
    "https://255.255.255.255/",
    "https://[fc00::1]/",
    "https://[fd12:3456::1]/",
    "https://[fe80::1]/",
    "https://[fe80::1%25eth0]/",
    "https://[fe80::1%eth0]/",
    "https://[fec0::1]/",
    "https://[ff02::1]/",
    "https://[2001:db8::1]/",
    "https://kubernetes/",
    "https://kubernetes.default.svc.cluster.local/",
    "https://ip-10-0-0-1.ec2.internal/",
    // One host for who reads it, another for who calls it.
    "https://example.com@127.0.0.1/",
    "https://example.com:pass@127.0.0.1/",
    "https://127.0.0.1:443@example.com/",
    "https://@example.com/",
    "https://example.com\\@127.0.0.1/",
    "https://127.0.0.1\\@example.com/",
    "https:\\\\127.0.0.1/",
    "https:/127.0.0.1/",
    "https:127.0.0.1",
    "https:///127.0.0.1/",
    "https://example.com#@127.0.0.1/",
    "https://exa\tmple.com/",
    "https://example.com\n/",
    " https://example.com/",
    "https://example.com /",
    "https://127.0.0.1%00.example.com/",
    "https://127.0.0.1%2f.example.com/",
    "https://127.0.0.1?.example.com/",
    "https://127.0.0.1;.example.com/",
    "https://example.com\u{ad}.internal/",
    // Other schemes and ports.
    "http://example.com/",
    "http://93.184.215.14/",
    "https://example.com:80/",
    "https://example.com:22/",
    "https://example.com:6379/",
    "https://example.com:9005/",
    "https://example.com:0/",
    "https://example.com:65536/",
    "https://example.com:+443/",
    "ftp://example.com/",
    "file:///etc/passwd",
    "gopher://127.0.0.1:6379/_FLUSHALL",
    "data:text/plain,1",
    "//example.com/",
    "example.com",
    "",
];

/// Names that look public, and whose addresses only show where they lead.
const RESOLVED: &[&str] = &[
    "https://localtest.me/",
    "https://127.0.0.1.nip.io/",
    "https://7f000001.c0a80001.rbndr.us/",
    "https://spoofed.burpcollaborator.net/",
    "https://xn--bcher-kva.example/",
];

/// Where such a name may lead.
const ADDRESSES: &[&str] = &[
    "127.0.0.1",
    "0.0.0.0",
    "10.0.0.1",
    "169.254.169.254",
    "192.168.0.1",
    "100.64.0.1",
    "::1",
    "::",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b:1::7f00:1",
    "2002:7f00:1::",
    "2001:0:7f00:1::",
    "fd00::1",
    "fe80::1",
    "ff02::1",
];

#[tokio::test]
async fn what_is_not_public_is_refused_by_every_spelling() {
    assert!(REFUSED.len() >= 60);
    let webhooks = webhooks("", || vec![ip("127.0.0.1")]);
    for url in REFUSED {
        let admitted = webhooks.admit(url);
        assert!(admitted.is_err(), "{url}");
        // Also where it has come into the storage: by another rule, or another hand.
        if let Ok(endpoint) = Endpoint::parse(url) {
            let answer = webhooks.ask(&endpoint, &question(), now()).await;
            let Answer::Nothing(why) = &answer else {
                panic!("{url}: {answer:?}");
            };
            assert!(why.contains("may not be called"), "{url}: {why}");
        }
    }
}

#[tokio::test]
async fn a_name_is_refused_by_any_of_its_addresses() {
    for address in ADDRESSES {
        for public in [vec![], vec!["93.184.215.14"]] {
            let found: Vec<_> = public.into_iter().chain([*address]).map(ip).collect();
            let webhooks = webhooks("", move || found.clone());
            for url in RESOLVED {
                let endpoint = webhooks.admit(url).unwrap();
                let refused = webhooks.caller.addresses(&endpoint).await.unwrap_err();
                assert!(
                    refused.contains("leads to an address that is"),
                    "{url} {address}: {refused}"
                );
            }
        }
    }
}

#[tokio::test]
async fn what_is_public_may_be_called() {
    let webhooks = webhooks("", || vec![ip("93.184.215.14"), ip("2606:2800:21f::1")]);
    for url in [
        "https://example.com",
        "https://example.com/score?key=1",
        "https://1.1.1.1/",
        "https://172.32.0.1/",
        "https://[2606:4700::1111]/",
        "https://xn--bcher-kva.example/",
        "https://internal.example.com/",
    ] {
        let endpoint = webhooks.admit(url).unwrap();
        let addresses = webhooks.caller.addresses(&endpoint).await;
        assert!(!addresses.unwrap().is_empty(), "{url}");
    }
}

/// What the operator lists, a URL, the address of its host where that is a name, and whether it is
/// admitted, and called.
const LISTED: &str = "\
10.0.0.0/8            | https://10.1.2.3/                 |                 | yes | yes
10.0.0.0/8            | https://10.1.2.3:8443/            |                 | yes | yes
10.0.0.0/8            | http://10.1.2.3/                  |                 | no  | no
10.0.0.0/8            | https://192.168.0.1/              |                 | no  | no
10.0.0.0/8:8443       | https://10.1.2.3:8443/            |                 | yes | yes
10.0.0.0/8:8443       | https://10.1.2.3/                 |                 | no  | no
http://10.0.0.0/8:80  | http://10.1.2.3/                  |                 | yes | yes
[fd00::/8]:8443       | https://[fd00::1]:8443/           |                 | yes | yes
fd00::/8              | https://[fd00::1]/                |                 | yes | yes
fd00::/8              | https://[fc00::1]/                |                 | no  | no
10.0.0.0/8            | https://scores.cluster.local/     | 10.1.2.3        | yes | yes
10.0.0.0/8            | https://scores.cluster.local/     | 127.0.0.1       | yes | no
10.0.0.0/8            | https://scores.example.com:8443/  | 93.184.215.14   | yes | no
http://10.0.0.0/8     | http://scores.example.com/        | 93.184.215.14   | yes | no
0.0.0.0/0 ::/0        | https://localhost/                | 127.0.0.1       | no  | yes
0.0.0.0/0             | https://metadata.google.internal/ | 169.254.169.254 | no  | yes
localhost             | https://localhost/                | 127.0.0.1       | yes | yes
hooks.internal:8443   | https://hooks.internal:8443/      | 10.0.0.1        | yes | yes
hooks.internal:8443   | https://hooks.internal/           | 10.0.0.1        | no  | no
hooks.internal        | http://hooks.internal/            | 10.0.0.1        | no  | no
http://hooks.internal | http://hooks.internal/            | 10.0.0.1        | yes | yes
hooks.internal        | https://other.internal/           | 10.0.0.1        | no  | no
";

#[tokio::test]
async fn the_operator_lists_what_else_may_be_called() {
    for line in LISTED.lines() {
        let fields: Vec<_> = line.split('|').map(str::trim).collect();
        let &[allow, url, address, admitted, called] = fields.as_slice() else {
            panic!("{line}");
        };
        let webhooks = webhooks(allow, move || address.parse().into_iter().collect());
        assert_eq!(webhooks.admit(url).is_ok(), admitted == "yes", "{line}");
        let endpoint = Endpoint::parse(url).unwrap();
        let addresses = webhooks.caller.addresses(&endpoint).await;
        assert_eq!(addresses.is_ok(), called == "yes", "{line}: {addresses:?}");
    }
    for wrong in [
        "10.0.0.0/33",
        "https://example.com",
        "example.com/",
        "Example.com",
        "[::1",
        "a:0",
        "a:b",
        "ftp://a",
    ] {
        assert!(wrong.parse::<Allow>().is_err(), "{wrong}");
    }
}

#[test]
fn without_a_key_nothing_is_admitted_and_the_setting_is_named() {
    let refused = Webhooks::new(&Settings::default())
        .unwrap()
        .admit("https://example.com/");
    assert!(refused.unwrap_err().contains("DELOS_WEBHOOK_SECRET"));
}

/// A server that answers each connection with some bytes, and counts them.
async fn server(address: &str, answer: &'static [u8]) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(answer).await;
        }
    });
    (address, count)
}

const GOOD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\n{\"value\": 0.93}";

/// A server of names that gives another address the second time, when the first was found good.
#[tokio::test]
async fn a_name_that_leads_elsewhere_the_next_time_leads_nowhere() {
    let (good, good_calls) = server("127.0.0.1:0", GOOD).await;
    let port = good.port();
    let (_, other_calls) = server(&format!("127.0.0.2:{port}"), GOOD).await;
    let answers = vec![
        vec![ip("127.0.0.1")],
        vec![ip("127.0.0.2")],
        vec![ip("127.0.0.1"), ip("127.0.0.2")],
        vec![],
        vec![ip("127.0.0.1")],
    ];
    let left = Mutex::new(answers.into_iter());
    let webhooks = webhooks(&format!("http://127.0.0.1:{port}"), move || {
        // One that is asked more than once a call runs out of them.
        left.lock().unwrap().next().expect("asked too often")
    });
    let endpoint = webhooks
        .admit(&format!("http://rebind.example:{port}/"))
        .unwrap();
    let mut answers = Vec::new();
    for _ in 0..5 {
        answers.push(webhooks.ask(&endpoint, &question(), now()).await);
    }
    let value = Answer::Value(0.93, "answered 0.93".into());
    assert_eq!((&answers[0], &answers[4]), (&value, &value));
    for refused in &answers[1..3] {
        let Answer::Nothing(why) = refused else {
            panic!("{answers:?}");
        };
        assert!(
            why.contains("leads to an address that is loopback") || why.contains("not encrypted"),
            "{why}"
        );
    }
    assert_eq!(
        answers[3],
        Answer::Nothing("its host has no address".into())
    );
    assert_eq!(good_calls.load(Ordering::SeqCst), 2);
    assert_eq!(other_calls.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_answer_that_is_no_answer_is_no_evidence() {
    for (bytes, said) in [
        (&b""[..], "breaks off"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "breaks off"),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n{\"value\": 0.93}",
            "breaks off within",
        ),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
            "breaks off within",
        ),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
            "answers 101",
        ),
    ] {
        let (address, _) = server("127.0.0.1:0", bytes).await;
        let webhooks = webhooks(&format!("http://{address}"), Vec::new);
        let endpoint = webhooks.admit(&format!("http://{address}/")).unwrap();
        let answer = webhooks.ask(&endpoint, &question(), now()).await;
        let Answer::Nothing(why) = &answer else {
            panic!("{answer:?}");
        };
        assert!(why.contains(said), "{said}: {why}");
    }
    let headers: Vec<u8> = [b"HTTP/1.1 200 OK\r\n".to_vec(), b"x: y\r\n".repeat(100_000)].concat();
    let body: Vec<u8> = [b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![b' '; 4 << 20]].concat();
    for (bytes, said) in [(headers, "breaks off"), (body, "more than is read")] {
        let (address, _) = server("127.0.0.1:0", bytes.leak()).await;
        let webhooks = webhooks(&format!("http://{address}"), Vec::new);
        let endpoint = webhooks.admit(&format!("http://{address}/")).unwrap();
        let answer = webhooks.ask(&endpoint, &question(), now()).await;
        assert!(format!("{answer:?}").contains(said), "{said}: {answer:?}");
    }
}
