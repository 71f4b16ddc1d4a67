//! mosquitto_pub, mosquitto_sub, and their library.

use std::io::{Seek as _, Write as _};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::mqtt_support::{Door, SECRET, within};
use super::{Servers, TOPIC, a_silent_one_is_closed, runs, runs_on, scripts};

/// A mosquitto program of Debian's, in one version of the protocol.
struct Mosquitto<'a> {
    door: &'a Door,
    version: &'static str,
}

impl Mosquitto<'_> {
    fn args(&self, device: &str, more: &[&str]) -> Vec<String> {
        let (port, user) = (self.door.address.port().to_string(), format!("user-{device}"));
        let login = ["-h", "127.0.0.1", "-p", &port, "-V", self.version, "-u", &user, "-P", SECRET];
        login.iter().chain(more).map(|argument| (*argument).to_owned()).collect()
    }

    async fn publishes(&self, more: &[&str]) {
        runs("mosquitto_pub".into(), self.args("a", more)).await;
    }

    /// Subscribes as a display, and returns once it has; it ends after `count` messages.
    async fn subscribes(&self, count: usize, more: &[&str]) -> JoinHandle<String> {
        let before = self.subscriptions();
        let count = count.to_string();
        let args = self.args("display", &[&["-C", &count, "-W", "60"], more].concat());
        let running = tokio::spawn(runs("mosquitto_sub".into(), args));
        self.subscribed(before).await;
        running
    }

    /// SUBSCRIBE packets so far.
    fn subscriptions(&self) -> u64 {
        self.door.metrics.packets.with_label_values(&["subscribe"]).get()
    }

    /// Returns when there is another than those before.
    async fn subscribed(&self, before: u64) {
        within("the subscription", async {
            while self.subscriptions() == before {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

/// A way to the server that notes what a client sends: its address, and the bytes once the client has gone.
async fn overheard(server: SocketAddr) -> (SocketAddr, JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let relay = async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut server = TcpStream::connect(server).await.unwrap();
        let ((mut from, mut to), (mut answers, mut onward)) = (client.split(), server.split());
        let noting = async {
            let (mut sent, mut piece) = (Vec::new(), [0; 4096]);
            while let Ok(count @ 1..) = from.read(&mut piece).await {
                sent.extend_from_slice(&piece[..count]);
                onward.write_all(&piece[..count]).await.unwrap();
            }
            onward.shutdown().await.ok();
            sent
        };
        tokio::join!(noting, tokio::io::copy(&mut answers, &mut to)).0
    };
    (address, tokio::spawn(relay))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_and_sessions() {
    for version in ["mqttv311", "mqttv5"] {
        let servers = Servers::open().await;
        let mosquitto = Mosquitto { door: &servers.plain, version };
        let all = ["-t", "vitals/v1/#", "-q", "2", "-F", "%q %r %p"];
        let display = mosquitto.subscribes(4, &[&all[..], &["-k", "60", "-t", TOPIC]].concat()).await;
        for qos in ["0", "1", "2"] {
            mosquitto.publishes(&["-t", TOPIC, "-q", qos, "-m", qos]).await;
        }
        mosquitto.publishes(&["-t", "vitals/v1/a/status", "-q", "1", "-r", "-m", "online"]).await;
        // A message at QoS 2 is shown when its PUBREL is there; one at QoS 1 may overtake it.
        let said = display.await.unwrap();
        let mut lines: Vec<_> = said.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["0 0 0", "1 0 1", "1 0 online", "2 0 2"]);
        let display = mosquitto.subscribes(1, &all).await;
        assert_eq!(display.await.unwrap(), "1 1 online\n", "retained");
        mosquitto.publishes(&["-t", "vitals/v1/a/status", "-q", "1", "-r", "-n"]).await;

        // A session that is kept.
        let kept = ["-c", "-i", "kept"];
        let display = mosquitto.subscribes(1, &[&all[..], &kept].concat()).await;
        mosquitto.publishes(&["-t", TOPIC, "-q", "2", "-m", "first"]).await;
        assert_eq!(display.await.unwrap(), "2 0 first\n");
        mosquitto.publishes(&["-t", TOPIC, "-q", "2", "-m", "while it was away"]).await;
        let display = mosquitto.subscribes(1, &[&all[..], &kept].concat()).await;
        assert_eq!(display.await.unwrap(), "2 0 while it was away\n");
        if version == "mqttv5" {
            let display = mosquitto
                .subscribes(2, &[&all[..], &["-D", "connect", "receive-maximum", "1"]].concat())
                .await;
            mosquitto
                .publishes(&["-t", TOPIC, "-q", "2", "-m", "1", "-D", "publish", "topic-alias", "4"])
                .await;
            mosquitto
                .publishes(&["-t", TOPIC, "-q", "1", "-m", "2", "-D", "publish", "user-property", "k", "v"])
                .await;
            assert_eq!(display.await.unwrap(), "2 0 1\n1 0 2\n");
        }
    }
}

/// mosquitto_pub names its topic in the first PUBLISH of a connection alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_by_its_alias_alone() {
    let servers = Servers::open().await;
    let mosquitto = Mosquitto { door: &servers.plain, version: "mqttv5" };
    let display = mosquitto.subscribes(3, &["-t", "vitals/v1/#", "-q", "1", "-F", "%t %p"]).await;
    let (address, sent) = overheard(servers.plain.address).await;
    let port = address.port().to_string();
    let mut lines = tempfile::tempfile().unwrap();
    lines.write_all(b"first\nsecond\nthird\n").unwrap();
    lines.rewind().unwrap();
    // The later port counts.
    let by_line = ["-p", &port, "-t", TOPIC, "-q", "1", "-l", "-D", "publish", "topic-alias", "4"];
    runs_on(lines, "mosquitto_pub".into(), mosquitto.args("a", &by_line)).await;
    let expected = ["first", "second", "third"].map(|line| format!("{TOPIC} {line}\n")).concat();
    assert_eq!(display.await.unwrap(), expected);
    let sent = within("the end of the connection", sent).await.unwrap();
    let is_in = |text: &[u8]| sent.windows(text.len()).filter(|bytes| *bytes == text).count();
    assert_eq!([TOPIC.as_bytes(), b"first", b"second", b"third"].map(is_in), [1; 4]);
}

/// The programs take a keep-alive from 5 s on, their library takes 0. In 3.1.1 that is silence for as long as the client likes; in 5.0 the server
/// grants its own, and the library keeps to it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_keep_alive_of_0() {
    for (version, protocol) in [("mqttv311", "4"), ("mqttv5", "5")] {
        let servers = Servers::open().await;
        let mosquitto = Mosquitto { door: &servers.short, version };
        let before = mosquitto.subscriptions();
        let script = scripts().join("libmosquitto_client.py").display().to_string();
        let args = vec![script, servers.short.address.port().to_string(), protocol.to_owned()];
        let display = tokio::spawn(runs("/usr/bin/python3".into(), args));
        mosquitto.subscribed(before).await;
        a_silent_one_is_closed(&servers.short).await;
        let pinged = servers.short.metrics.packets.with_label_values(&["pingreq"]).get() > 0;
        assert_eq!(pinged, version == "mqttv5", "{version}");
        mosquitto.publishes(&["-t", TOPIC, "-q", "1", "-m", "still there"]).await;
        assert_eq!(display.await.unwrap(), "still there\n");
    }
}

/// A subscriber that is killed, so that its socket closes without DISCONNECT.
struct Dying(Child);

impl Dying {
    /// Returns when it has subscribed.
    async fn start(mosquitto: &Mosquitto<'_>, more: &[&str]) -> Self {
        let before = mosquitto.subscriptions();
        let mut command = Command::new("mosquitto_sub");
        command.args(mosquitto.args("a", &[&["-t", "vitals/v1/a/num/none"], more].concat()));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let dying = Self(child.expect("mosquitto_sub can't run; `cargo xtask interop --mqtt` installs it"));
        mosquitto.subscribed(before).await;
        dying
    }
}

impl Drop for Dying {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wills_and_shared_subscriptions() {
    for version in ["mqttv311", "mqttv5"] {
        let servers = Servers::open().await;
        let mosquitto = Mosquitto { door: &servers.plain, version };
        let display = mosquitto.subscribes(1, &["-t", "vitals/v1/a/status", "-q", "1", "-F", "%p"]).await;
        let will = ["--will-topic", "vitals/v1/a/status", "--will-payload", "lost", "--will-qos", "1"];
        drop(Dying::start(&mosquitto, &will).await);
        assert_eq!(display.await.unwrap(), "lost\n");
        if version == "mqttv5" {
            let display = mosquitto.subscribes(1, &["-t", "vitals/v1/a/status", "-q", "1", "-F", "%p"]).await;
            let began = caregate_host::clock::monotonic();
            let delay = ["-D", "will", "will-delay-interval", "2", "-x", "60", "-i", "late", "-c"];
            drop(Dying::start(&mosquitto, &[&will[..], &delay].concat()).await);
            assert_eq!(display.await.unwrap(), "lost\n");
            assert!(began.elapsed().as_secs_f64() > 1.9, "{:?}", began.elapsed());
        }

        // Two members share what is published; each ends after its half.
        let member = ["-t", "$share/ward/vitals/v1/a/num/#", "-q", "1", "-F", "%p"];
        let members = [mosquitto.subscribes(5, &member).await, mosquitto.subscribes(5, &member).await];
        for number in 0..10 {
            mosquitto.publishes(&["-t", TOPIC, "-q", "1", "-m", &number.to_string()]).await;
        }
        let mut all = Vec::new();
        for member in members {
            all.extend(member.await.unwrap().lines().map(|line| line.parse::<u32>().unwrap()));
        }
        all.sort_unstable();
        assert_eq!(all, (0..10).collect::<Vec<_>>());
    }
}

/// What the programs say of a refusal.
async fn refused(mosquitto: &Mosquitto<'_>, more: &[&str]) -> String {
    let mut command = Command::new("mosquitto_pub");
    command.args(mosquitto.args("a", more)).stdin(Stdio::null());
    let ended = tokio::task::spawn_blocking(move || command.output().unwrap());
    let output = within("the program's end", ended).await.unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reason_codes_and_the_servers_keep_alive() {
    let servers = Servers::open().await;
    let mosquitto = Mosquitto { door: &servers.plain, version: "mqttv5" };
    let said = refused(&mosquitto, &["-t", TOPIC, "-q", "1", "-m", "refuse"]).await;
    assert!(said.contains("Quota exceeded"), "{said}");
    let said = refused(&mosquitto, &["-t", "vitals/v1/b/num/x", "-q", "1", "-m", "72"]).await;
    assert!(said.contains("Not authorized"), "{said}");
    for (version, told) in [("mqttv311", "not authorised"), ("mqttv5", "Not authorized")] {
        let mosquitto = Mosquitto { door: &servers.plain, version };
        // The later password counts.
        let said = refused(&mosquitto, &["-P", "wrong", "-t", TOPIC, "-q", "1", "-m", "72"]).await;
        let said = said.to_lowercase();
        let is_told = said.contains(&told.to_lowercase()) || said.contains("bad user name or password");
        assert!(is_told, "{version}: {said}");
    }
    // It asks for 60 s and is given 2: it stays for longer than either would let a silent one.
    let short = Mosquitto { door: &servers.short, version: "mqttv5" };
    let display = short.subscribes(1, &["-t", "vitals/v1/#", "-q", "1", "-F", "%p"]).await;
    let pinged = || servers.short.metrics.packets.with_label_values(&["pingreq"]).get();
    within("two pings", async {
        while pinged() < 2 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    short.publishes(&["-t", TOPIC, "-q", "1", "-m", "still there"]).await;
    assert_eq!(display.await.unwrap(), "still there\n");
}
