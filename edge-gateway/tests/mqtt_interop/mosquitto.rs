//! mosquitto_pub and mosquitto_sub.

use std::process::{Child, Command, Stdio};

use tokio::task::JoinHandle;

use super::mqtt_support::{Door, SECRET, within};
use super::{Servers, TOPIC, runs};

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
        let before = self.door.metrics.packets.with_label_values(&["subscribe"]).get();
        let count = count.to_string();
        let args = self.args("display", &[&["-C", &count, "-W", "60"], more].concat());
        let running = tokio::spawn(runs("mosquitto_sub".into(), args));
        within("the subscription", async {
            while self.door.metrics.packets.with_label_values(&["subscribe"]).get() == before {
                tokio::task::yield_now().await;
            }
        })
        .await;
        running
    }
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

/// A subscriber that is killed, so that its socket closes without DISCONNECT.
struct Dying(Child);

impl Dying {
    /// Returns when it has subscribed.
    async fn start(mosquitto: &Mosquitto<'_>, more: &[&str]) -> Self {
        let before = mosquitto.door.metrics.packets.with_label_values(&["subscribe"]).get();
        let mut command = Command::new("mosquitto_sub");
        command.args(mosquitto.args("a", &[&["-t", "vitals/v1/a/num/none"], more].concat()));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let dying = Self(child.expect("mosquitto_sub can't run; `cargo xtask interop --mqtt` installs it"));
        within("the subscription", async {
            while mosquitto.door.metrics.packets.with_label_values(&["subscribe"]).get() == before {
                tokio::task::yield_now().await;
            }
        })
        .await;
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
